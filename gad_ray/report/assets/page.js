// Puts the pictures and the sample browser into the page.

/** A figure: heading, picture, legend with values, and a cursor that the mouse and the arrow keys move. */
function chart(spec, runs) {
  const state = { log: false, step: null, drawn: null };
  const plot = el("div", { class: "plot" });
  const says = el("p", { class: "readout" });
  const legend = legendOf(spec, runs);
  const head = el("div", { class: "head" }, el("h3", {}, spec.title));
  const draw = () => {
    const width = Math.max(280, Math.round(plot.clientWidth || 560));
    const drawing = {
      curves: drawCurves, bars: drawBars, dots: drawDots, histogram: drawHistogram, gaps: drawGaps,
    }[spec.kind];
    state.drawn = drawing(spec, runs, width, state.log);
    state.width = width;
    plot.replaceChildren(state.drawn.picture);
    show(state.step);
  };
  const show = (step) => {
    state.step = step;
    const { picture, x, y, values, top } = state.drawn;
    if (state.cursor) state.cursor.remove();
    const given = step === null ? null : values(step);
    legend.tell(given);
    says.textContent = step === null ? "" : told(step, runs, spec);
    if (step === null) return;
    const at = x(step);
    state.cursor = svg("g", { class: "cursor" });
    state.cursor.append(svg("line", { x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    top(step).forEach((value, i) => {
      if (value === null || value === undefined || (y.log && value <= 0)) return;
      const colour = spec.lines[i].colour % NUM_COLOURS;
      state.cursor.append(svg("circle", { class: `dot k${colour}`, cx: at, cy: y(value), r: 3.5 }));
    });
    picture.append(state.cursor);
  };
  const parts = [head, plot];
  const attributes = { class: "chart" };
  const hasSteps = spec.kind === "curves" || spec.kind === "bars";
  if (hasSteps) {
    attributes.tabindex = "0";
    attributes["aria-label"] = `${spec.title}; arrow keys move along the steps`;
    head.append(says);
  }
  const node = el("figure", attributes, ...parts, legend.node);
  if (spec.kind === "curves" && spec.log && rangeOf(spec, true)) head.append(logButton(state, draw));
  if (hasSteps) follow(node, plot, state, show);
  return { node, draw };
}

function logButton(state, draw) {
  const button = el("button", { type: "button", "aria-pressed": "false" }, "log");
  button.addEventListener("click", () => {
    state.log = !state.log;
    button.setAttribute("aria-pressed", String(state.log));
    draw();
  });
  return button;
}

/** Lets mouse and keys move the cursor. */
function follow(node, plot, state, show) {
  plot.addEventListener("mousemove", (event) => {
    const { steps, x } = state.drawn;
    const box = plot.getBoundingClientRect();
    const share = (((event.clientX - box.left) / box.width) * state.width - MARGIN.left)
      / (state.width - MARGIN.left - MARGIN.right);
    const i = nearest(steps, x.low + share * (x.high - x.low));
    show(i < 0 ? null : steps[i]);
  });
  plot.addEventListener("mouseleave", () => show(null));
  node.addEventListener("blur", () => show(null));
  node.addEventListener("keydown", (event) => {
    const { steps } = state.drawn;
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way || !steps.length) return;
    event.preventDefault();
    const from = state.step === null ? (way > 0 ? -1 : steps.length) : nearest(steps, state.step);
    show(steps[Math.min(steps.length - 1, Math.max(0, from + way))]);
  });
}

/** What is said of a step: its number, its stage, and what happened in it. */
function told(step, runs, spec) {
  if (spec.kind === "bars") {
    const i = nearest(spec.first.map((first, k) => (first + spec.last[k]) / 2), step);
    const [first, last] = [spec.first[i], spec.last[i]];
    return first === last ? `step ${first}` : `mean of steps ${first}–${last}`;
  }
  const parts = [`step ${step}`];
  if (runs.length === 1) {
    const stage = runs[0].stages.find((one) => one.first <= step && step <= one.last);
    if (stage) parts.push(stage.name);
    runs[0].events.filter((event) => event.step === step).forEach((event) => parts.push(event.label));
  }
  return parts.join(" · ");
}

/** The legend: a colour, a name, a value and a meaning for each curve. */
function legendOf(spec, runs) {
  const cells = [];
  const entry = (mark, name, help, value) => {
    const cell = el("b", {}, value === undefined ? "" : figure(value));
    cells.push([cell, value]);
    const item = el("li", {}, mark, el("span", { class: "name" }, name), cell);
    if (help) item.append(el("span", { class: "help" }, help));
    return item;
  };
  const node = el("ul", { class: "legend" });
  if (spec.kind === "curves") {
    spec.lines.forEach((line) => {
      const mark = el("i", { class: `swatch k${line.colour % NUM_COLOURS}` });
      node.append(entry(mark, runs.length > 1 ? runs[line.run].label : line.name, runs.length > 1 ? "" : line.help, line.last));
    });
    if (runs.length > 1 && spec.lines.length) node.append(el("li", { class: "help" }, spec.lines[0].help));
    spec.bands.forEach((band, order) => {
      node.append(el("li", {}, el("i", { class: order ? "swatch band second" : "swatch band" }), el("span", { class: "help" }, band.label)));
    });
    // Ranges of quantiles are told above the charts.
    const shaded = new Set(spec.areas.map((area) => area.label).filter((label) => !/%$/.test(label)));
    shaded.forEach((label) => node.append(el("li", { class: "help" }, `shaded: ${label}`)));
  } else if (spec.kind === "bars") {
    spec.parts.forEach((part, i) => {
      node.append(entry(el("i", { class: `swatch k${partColour(spec.parts, i)}` }), part, "", undefined));
    });
  } else {
    node.append(el("li", { class: "help" }, spec.caption));
    if (spec.kind === "dots") node.append(ageLegend(spec));
    for (const { name, colour } of spec.series || []) node.append(entry(el("i", { class: `swatch k${colour}` }), name, "", undefined));
  }
  const tell = (values) => cells.forEach(([cell, last], i) => {
    const value = values ? values[i] : last;
    cell.textContent = value === undefined ? "" : value === null ? "not finite" : figure(value);
  });
  return { node, tell };
}

function ageLegend(spec) {
  const item = el("li", { class: "help" });
  for (let age = 0; age < 5; age++) item.append(el("i", { class: `swatch age${age}` }));
  const [first, last] = [Math.min(...spec.t), Math.max(...spec.t)];
  const cut = spec.hollow.some((one) => one) ? "; hollow: cut at the token limit" : "";
  item.append(document.createTextNode(` step ${first} to ${last}${cut}`));
  return item;
}

/** Draws all charts, and again when the page gets another width or another smoothing. */
function drawPage() {
  const data = JSON.parse(byId("data").textContent);
  const charts = [];
  const put = (id, specs) => {
    const host = byId(id);
    if (!host) return;
    for (const spec of specs || []) {
      const made = chart(spec, data.runs);
      host.append(made.node);
      charts.push(made);
    }
  };
  data.sections.forEach((section) => put(`charts-${section.id}`, section.charts));
  put("charts-scores", data.scores);
  put("charts-dots", data.dots);
  put("charts-timing", data.timing);
  const redraw = () => charts.forEach((one) => one.draw());
  redraw();
  const smoothing = byId("smoothing");
  if (smoothing) {
    smoothing.addEventListener("change", () => {
      view.smoothing = Number(smoothing.value);
      redraw();
    });
  }
  let width = document.documentElement.clientWidth;
  window.addEventListener("resize", () => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    redraw();
  });
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = getComputedStyle(root).getPropertyValue("--is-dark").trim() === "1";
    root.setAttribute("data-theme", dark ? "light" : "dark");
  });
  const browser = byId("browser");
  if (browser) sampleBrowser(browser, data.samples);
}

drawPage();
