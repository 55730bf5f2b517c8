// The sample browser: a list of prompts, and beside it the chosen one with all its texts.

const ORDERS = {
  "by step": (a, b) => a.order - b.order,
  "with token values first": (a, b) => coloured(b) - coloured(a),
  "largest gap first": (a, b) => missing(b.gap) - missing(a.gap),
  "smallest gap first": (a, b) => missing(a.gap, Infinity) - missing(b.gap, Infinity),
  "best student first": (a, b) => missing(student(b).score) - missing(student(a).score),
  "worst student first": (a, b) => missing(student(a).score, Infinity) - missing(student(b).score, Infinity),
  "longest student first": (a, b) => student(b).text.length - student(a).text.length,
};

const missing = (value, stand = -Infinity) => (value === null ? stand : value);
const student = (entry) => entry.sides[entry.sides.length - 1];
const coloured = (entry) => Number(entry.sides.some((side) => side.pieces));
const prompt = (entry) => entry.prompt[entry.prompt.length - 1].content;

function textOf(entry) {
  return [entry.id, ...entry.prompt.map((m) => m.content), ...entry.sides.map((s) => s.text)].join("\n").toLowerCase();
}

function sampleBrowser(host, entries) {
  const state = { shown: entries, at: 0 };
  const texts = new Map(entries.map((entry) => [entry, textOf(entry)]));
  const search = el("input", { type: "search", placeholder: "search prompts and responses", "aria-label": "search" });
  const order = choice("order", Object.keys(ORDERS));
  const sources = [...new Set(entries.map((entry) => entry.source))];
  const source = choice("source", sources.length > 1 ? ["all", ...sources] : sources);
  const position = el("span", { class: "position" });
  const list = el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "samples" });
  const detail = el("div", { class: "detail" });
  const [back, on] = [el("button", { type: "button" }, "← previous"), el("button", { type: "button" }, "next →")];
  let rows = [];

  const choose = (at) => {
    const last = state.shown.length - 1;
    state.at = Math.min(Math.max(0, at), Math.max(0, last));
    rows.forEach((row, i) => row.setAttribute("aria-selected", String(i === state.at)));
    position.textContent = last < 0 ? "nothing found" : `${state.at + 1} of ${last + 1}`;
    back.disabled = state.at <= 0;
    on.disabled = state.at >= last;
    detail.replaceChildren(...(last < 0 ? [] : [detailOf(state.shown[state.at])]));
    const row = rows[state.at];
    if (!row) return;
    // Only the list scrolls, never the page.
    if (row.offsetTop < list.scrollTop) list.scrollTop = row.offsetTop;
    const below = row.offsetTop + row.offsetHeight - list.clientHeight;
    if (below > list.scrollTop) list.scrollTop = below;
  };
  const fill = () => {
    const wanted = search.value.trim().toLowerCase();
    const from = source.value;
    state.shown = entries
      .filter((entry) => (from === "all" || entry.source === from) && texts.get(entry).includes(wanted))
      .sort((a, b) => ORDERS[order.value](a, b) || a.order - b.order);
    rows = state.shown.map((entry, i) => {
      const row = rowOf(entry);
      row.addEventListener("click", () => choose(i));
      return row;
    });
    list.replaceChildren(...rows);
    choose(0);
  };
  search.addEventListener("input", fill);
  order.addEventListener("change", fill);
  source.addEventListener("change", fill);
  back.addEventListener("click", () => choose(state.at - 1));
  on.addEventListener("click", () => choose(state.at + 1));
  list.addEventListener("keydown", (event) => {
    const way = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (!way) return;
    event.preventDefault();
    choose(state.at + way);
  });
  host.append(
    el("div", { class: "tools" }, search, source, order, el("span", { class: "turn" }, back, position, on)),
    el("div", { class: "panes" }, list, detail),
  );
  fill();
}

function choice(label, values) {
  const select = el("select", { "aria-label": label });
  values.forEach((value) => select.append(el("option", { value }, value)));
  select.value = values[0];
  return select;
}

function rowOf(entry) {
  const when = entry.step === null ? entry.source : `step ${entry.step}${entry.source === "training" ? "" : ", " + entry.source}`;
  return el(
    "div", { class: "row", role: "option", "aria-selected": "false" },
    el("span", { class: "when" }, coloured(entry) ? `${when} ◑` : when),
    el("span", { class: "gap", title: "teacher − student" }, entry.gap === null ? "" : figure(entry.gap)),
    el("span", { class: "words", lang: languageOf(prompt(entry)) }, prompt(entry).slice(0, 90)),
  );
}

function detailOf(entry) {
  const node = el("div", {});
  const title = entry.step === null ? "held-out prompt" : `step ${entry.step}`;
  const head = el("h3", {}, title);
  if (entry.id) head.append(el("span", { class: "id" }, ` ${entry.id}`));
  node.append(head);
  for (const message of entry.prompt) {
    node.append(
      el("div", { class: "message" }, el("span", { class: "role" }, message.role), el("p", { class: "text", lang: languageOf(message.content) }, message.content)),
    );
  }
  const colours = colouring(entry);
  const best = Math.max(...entry.sides.map((side) => missing(side.score)));
  const sides = entry.sides.map((side) => sideOf(side, colours, side.score !== null && side.score === best));
  node.append(el("div", { class: "sides" }, ...sides));
  if (colours) node.append(colourLegend(colours));
  if (entry.gap !== null) {
    node.append(el("p", { class: "help" }, `teacher − student: ${figure(entry.gap)}. Scores compare only within one prompt.`));
  }
  const facts = Object.entries(entry.details);
  if (facts.length) {
    node.append(el("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, typeof value === "number" ? figure(value) : String(value))])));
  }
  return node;
}

function sideOf(side, colours, best) {
  const text = el("p", { class: "text", lang: languageOf(side.text) });
  if (side.pieces && colours) {
    for (const [piece, value] of side.pieces) {
      const part = el("span", value === null ? {} : { title: figure(value) }, piece);
      if (value !== null) part.style.backgroundColor = colours.of(value);
      text.append(part);
    }
  } else if (side.text) {
    text.append(document.createTextNode(side.text));
  } else {
    text.append(el("em", {}, "(empty)"));
  }
  const score = side.score === null ? "" : figure(side.score);
  return el("div", { class: best ? "side best" : "side" }, el("h4", {}, side.label, el("b", {}, score)), text);
}

/** Colours for values of tokens: of both sides together, since only differences within a prompt mean anything. */
function colouring(entry) {
  const values = entry.sides.flatMap((side) => (side.pieces || []).map((piece) => piece[1])).filter((v) => v !== null);
  if (!values.length) return null;
  const middle = values.reduce((sum, value) => sum + value, 0) / values.length;
  const far = values.map((value) => Math.abs(value - middle)).sort((a, b) => a - b);
  const reach = far[Math.floor(0.95 * (far.length - 1))] || 1;
  const of = (value) => {
    const share = Math.max(-1, Math.min(1, (value - middle) / reach));
    const [r, g, b] = share > 0 ? [33, 122, 214] : [226, 106, 22];
    return `rgba(${r}, ${g}, ${b}, ${(0.55 * Math.abs(share)).toFixed(2)})`;
  };
  return { of, middle, reach };
}

function colourLegend(colours) {
  const node = el("p", { class: "help scale" }, `value of each token, ${figure(colours.middle - colours.reach)} `);
  for (let i = -4; i <= 4; i++) {
    const patch = el("span", { class: "patch" }, "\u00a0\u00a0");
    patch.style.backgroundColor = colours.of(colours.middle + (i / 4) * colours.reach);
    node.append(patch);
  }
  node.append(document.createTextNode(` ${figure(colours.middle + colours.reach)}; with mean pooling a score is the mean of its tokens' values`));
  return node;
}
