// Pictures: curves over steps, dots, stacked bars, histograms, gaps. Each is drawn into a figure with a legend that tells the values.

const HEIGHT = 210;
const MARGIN = { left: 54, right: 10, top: 18, bottom: 26 };
const NUM_COLOURS = 10;
const view = { smoothing: 1 };

/** A linear or logarithmic scale from [low, high] to [from, to]. */
function scale(low, high, from, to, log) {
  const of = log ? Math.log10 : (value) => value;
  const span = of(high) - of(low) || 1;
  const map = (value) => from + ((of(value) - of(low)) / span) * (to - from);
  return Object.assign(map, { low, high, log });
}

/** Round values between two ends, about `count` of them. */
function ticks(low, high, count, log) {
  if (log) {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    const last = Math.floor(Math.log10(high) + 1e-9);
    const every = Math.max(1, Math.ceil((last - first + 1) / count));
    const powers = [];
    for (let power = first; power <= last; power += every) powers.push(10 ** power);
    if (powers.length > 1) return powers;
  }
  const raw = (high - low) / count || 1;
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * magnitude >= raw * 0.999) * magnitude;
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    values.push(Number((i * step).toPrecision(12)));
  }
  return values;
}

/** Exponential moving average over about `window` points; gaps stay gaps. */
function smoothed(values, window) {
  if (window <= 1) return values;
  const share = 2 / (window + 1);
  let level = null;
  return values.map((value) => {
    if (value === null) return null;
    level = level === null ? value : level + share * (value - level);
    return level;
  });
}

/** Smallest and largest of what a chart shows, with some air; null where it shows nothing. */
function rangeOf(spec, log) {
  let low = Infinity;
  let high = -Infinity;
  const take = (value) => {
    if (value === null || (log && value <= 0)) return;
    low = Math.min(low, value);
    high = Math.max(high, value);
  };
  spec.lines.forEach((line) => line.y.forEach(take));
  spec.areas.forEach((area) => {
    area.low.forEach(take);
    area.high.forEach(take);
  });
  if (low > high) return null;
  if (low === high) {
    // A curve that stands still lies in the middle, or on the ground.
    const around = Math.abs(high) * 0.1 || 1;
    [low, high] = [low === 0 || log ? low : low - around, high + around];
  }
  const size = high - low;
  // A band that lies outside comes into the picture where that does not flatten the curves.
  for (const band of spec.bands) {
    if (band.low !== null && band.low > high && band.low - low < 2.5 * size) high = band.low + 0.1 * size;
    if (band.high !== null && band.high < low && high - band.high < 2.5 * size) low = band.high - 0.1 * size;
  }
  if (log) return [low / 1.15, high * 1.15];
  const air = (high - low) * 0.06;
  // Nothing that counts up from zero seems to go below it.
  return [low >= 0 && low - air < 0 ? 0 : low - air, high + air];
}

/** A path through points; a gap where a value is missing. Points without a neighbour come back apart. */
function path(xs, ys, x, y, log) {
  let text = "";
  let pen = false;
  const lone = [];
  const shown = (i) => i >= 0 && i < ys.length && ys[i] !== null && !(log && ys[i] <= 0);
  for (let i = 0; i < ys.length; i++) {
    if (!shown(i)) {
      pen = false;
      continue;
    }
    text += `${pen ? "L" : "M"}${x(xs[i]).toFixed(1)} ${y(ys[i]).toFixed(1)}`;
    pen = true;
    if (!shown(i - 1) && !shown(i + 1)) lone.push(i);
  }
  return { text, lone };
}

/** The frame of a picture: its size, its grid and what its axes say. */
function frame(width, x, y, xLabel, yLabel) {
  const bottom = HEIGHT - MARGIN.bottom;
  const picture = svg("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`, width: "100%", role: "img", "aria-hidden": "true",
  });
  for (const tick of ticks(y.low, y.high, 4, y.log)) {
    const at = y(tick).toFixed(1);
    picture.append(
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }),
      svg("text", { class: "tick", x: MARGIN.left - 6, y: at, "text-anchor": "end", dy: "0.32em" }, figure(tick)),
    );
  }
  const named = x.ticks
    || ticks(x.low, x.high, Math.max(3, Math.round(width / 95)), x.log).map((tick) => [tick, figure(tick)]);
  for (const [tick, name] of named) {
    const at = x(tick).toFixed(1);
    picture.append(svg("line", { class: "grid", x1: at, x2: at, y1: bottom, y2: bottom + 4 }));
    // The axis has its name there.
    if (at > width - MARGIN.right - 7 * xLabel.length - 12) continue;
    picture.append(
      svg("text", { class: "tick", x: at, y: bottom + 15, "text-anchor": "middle" }, name),
    );
  }
  picture.append(
    svg("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }),
  );
  const corner = { class: "tick faint", "text-anchor": "end", x: width - MARGIN.right, y: bottom + 15 };
  picture.append(svg("text", corner, xLabel));
  if (yLabel) picture.append(svg("text", { class: "tick faint", x: 2, y: 10 }, yLabel));
  return picture;
}

function runEnds(runs) {
  const first = Math.min(...runs.map((run) => run.steps[0]));
  const last = Math.max(...runs.map((run) => run.steps[1]));
  return first === last ? [first - 0.5, last + 0.5] : [first, last];
}

/** Where stages border on each other, once each: [step, name of what begins]. */
function borders(runs) {
  const found = new Map();
  for (const run of runs) {
    run.stages.slice(1).forEach((stage) => found.set(stage.first - 0.5, stage.name));
  }
  return [...found];
}

function drawStages(picture, runs, x, width) {
  const bottom = HEIGHT - MARGIN.bottom;
  for (const [step, name] of borders(runs)) {
    const at = x(step);
    const right = at > width - 90;
    picture.append(
      svg("line", { class: "border", x1: at, x2: at, y1: MARGIN.top - 4, y2: bottom }),
    );
    // Runs that are compared may have many borders: then the names would lie on each other.
    if (runs.length > 1) continue;
    const text = { class: "tick", x: right ? at - 4 : at + 4, y: 11, "text-anchor": right ? "end" : "start" };
    picture.append(svg("text", text, name));
  }
  if (runs.length > 1) return;
  for (const event of runs[0].events) {
    const at = x(event.step);
    if (at < MARGIN.left - 1 || at > width) continue;
    const shape = `M${at - 4} ${MARGIN.top - 5}h8l-4 6z`;
    const mark = svg("path", { class: `mark ${event.kind} ${event.severity}`, d: shape });
    mark.append(svg("title", {}, `step ${event.step}: ${event.label}`));
    picture.append(mark);
  }
}

function drawBands(picture, spec, runs, x, y) {
  const ends = (value) => Math.min(Math.max(value, Math.min(y.low, y.high)), y.high);
  spec.bands.forEach((band, order) => {
    const top = y(ends(band.high === null ? y.high : band.high));
    const bottom = y(ends(band.low === null ? y.low : band.low));
    const spans = band.stages.length && runs.length === 1
      ? runs[0].stages.filter((stage) => band.stages.includes(stage.name)).map((s) => [s.first - 0.5, s.last + 0.5])
      : [[x.low, x.high]];
    for (const [first, last] of spans) {
      const from = x(Math.max(first, x.low));
      const to = x(Math.min(last, x.high));
      if (to <= from || bottom - top < 0.5) continue;
      const area = svg("rect", {
        class: order ? "band second" : "band", x: from, width: to - from, y: top, height: bottom - top,
      });
      picture.append(area);
    }
  });
}

function drawAreas(picture, spec, x, y, log) {
  for (const area of spec.areas) {
    let pieces = "";
    let upper = [];
    let lower = [];
    const close = () => {
      if (upper.length > 1) pieces += `M${upper.join("L")}L${lower.reverse().join("L")}Z`;
      // An interval that stands alone is a bar.
      else if (upper.length === 1) pieces += `M${upper[0]}L${lower[0]}`;
      upper = [];
      lower = [];
    };
    area.x.forEach((step, i) => {
      const [low, high] = [area.low[i], area.high[i]];
      if (low === null || high === null || (log && low <= 0)) return close();
      upper.push(`${x(step).toFixed(1)} ${y(high).toFixed(1)}`);
      lower.push(`${x(step).toFixed(1)} ${y(low).toFixed(1)}`);
    });
    close();
    picture.append(svg("path", { class: `area k${area.colour % NUM_COLOURS}`, d: pieces }));
  }
}

function drawLines(picture, spec, x, y, log) {
  for (const line of spec.lines) {
    const colour = `k${line.colour % NUM_COLOURS}${line.colour >= NUM_COLOURS ? " dashed" : ""}`;
    const drawn = smoothed(line.y, view.smoothing);
    if (drawn !== line.y) {
      picture.append(svg("path", { class: `line raw ${colour}`, d: path(line.x, line.y, x, y, log).text }));
    }
    const { text, lone } = path(line.x, drawn, x, y, log);
    picture.append(svg("path", { class: `line ${colour}`, d: text }));
    const dotted = line.x.length <= 30 ? line.x.map((_, i) => i) : lone;
    for (const i of dotted) {
      if (drawn[i] === null || (log && drawn[i] <= 0)) continue;
      picture.append(svg("circle", { class: `dot ${colour}`, cx: x(line.x[i]), cy: y(drawn[i]), r: 2.2 }));
    }
    line.y.forEach((value, i) => {
      if (value !== null) return;
      const at = x(line.x[i]);
      const cross = svg("path", { class: "lost", d: `M${at - 3} ${HEIGHT - MARGIN.bottom - 7}l6 6m0 -6l-6 6` });
      cross.append(svg("title", {}, `step ${line.x[i]}: ${line.name} was not finite`));
      picture.append(cross);
    });
  }
}

/** Draws curves; gives the picture and what the cursor needs. */
function drawCurves(spec, runs, width, log) {
  const range = rangeOf(spec, log) || [0, 1];
  const x = scale(...runEnds(runs), MARGIN.left, width - MARGIN.right, false);
  const y = scale(...range, HEIGHT - MARGIN.bottom, MARGIN.top, log);
  const picture = frame(width, x, y, "step", "");
  drawBands(picture, spec, runs, x, y);
  drawStages(picture, runs, x, width);
  drawAreas(picture, spec, x, y, log);
  drawLines(picture, spec, x, y, log);
  const longest = spec.lines.reduce((best, line) => (line.x.length > best.length ? line.x : best), []);
  const values = (step) => spec.lines.map((line) => {
    const i = nearest(line.x, step);
    return i >= 0 && line.x[i] === step ? line.y[i] : undefined;
  });
  return { picture, x, y, steps: longest, values, top: (step) => values(step) };
}

function drawBars(spec, runs, width) {
  const totals = spec.first.map((_, i) => spec.y.reduce((sum, row) => sum + (row[i] || 0), 0));
  const steps = spec.first.map((first, i) => (first + spec.last[i]) / 2);
  const ends = [spec.first[0] - 0.5, spec.last[spec.last.length - 1] + 0.5];
  const x = scale(...ends, MARGIN.left, width - MARGIN.right, false);
  const y = scale(0, Math.max(...totals) * 1.06 || 1, HEIGHT - MARGIN.bottom, MARGIN.top, false);
  const picture = frame(width, x, y, "step", "s");
  drawStages(picture, runs, x, width);
  spec.first.forEach((first, i) => {
    let base = 0;
    const from = x(first - 0.5);
    const size = Math.max(0.5, (x(spec.last[i] + 0.5) - from) * 0.86);
    spec.y.forEach((row, part) => {
      const value = row[i] || 0;
      const colour = partColour(spec.parts, part);
      const bar = { class: `bar k${colour}`, x: from.toFixed(1), width: size.toFixed(1) };
      picture.append(svg("rect", { ...bar, y: y(base + value).toFixed(2), height: (y(base) - y(base + value)).toFixed(2) }));
      base += value;
    });
  });
  return { picture, x, y, steps, values: (step) => spec.y.map((row) => row[nearest(steps, step)]), top: () => [] };
}

/** The last part, which no name covers, is grey. */
function partColour(parts, part) {
  return part === parts.length - 1 ? "x" : part % NUM_COLOURS;
}

function drawDots(spec, runs, width) {
  const around = (values) => {
    const low = Math.min(...values);
    const high = Math.max(...values);
    const air = (high - low || 1) * 0.05;
    return [low - air, high + air];
  };
  const x = scale(...around(spec.x), MARGIN.left, width - MARGIN.right, false);
  const y = scale(...around(spec.y), HEIGHT - MARGIN.bottom, MARGIN.top, false);
  const picture = frame(width, x, y, spec.x_label, spec.y_label);
  const first = Math.min(...spec.t);
  const span = Math.max(...spec.t) - first || 1;
  spec.x.forEach((at, i) => {
    const age = Math.min(4, Math.floor(((spec.t[i] - first) / span) * 5));
    const dot = svg("circle", {
      class: `spot age${age}${spec.hollow[i] ? " hollow" : ""}`,
      cx: x(at).toFixed(1), cy: y(spec.y[i]).toFixed(1), r: 2.6,
    });
    dot.append(svg("title", {}, `step ${spec.t[i]}: ${figure(at)}, ${figure(spec.y[i])}`));
    picture.append(dot);
  });
  return still(picture, x, y);
}

/** Histograms of shares on one logarithmic axis, laid over each other. */
function drawHistogram(spec, runs, width) {
  const edges = spec.edges;
  const most = Math.max(...spec.series.flatMap((one) => one.shares));
  const x = scale(edges[0], edges[edges.length - 1], MARGIN.left, width - MARGIN.right, true);
  if (spec.ticks.length) x.ticks = spec.ticks;
  const y = scale(0, 100 * most * 1.06 || 1, HEIGHT - MARGIN.bottom, MARGIN.top, false);
  const picture = frame(width, x, y, spec.x_label, "%");
  spec.series.forEach((one) => one.shares.forEach((share, i) => {
    if (!share) return;
    const from = x(edges[i]);
    const bar = svg("rect", {
      class: `bar laid k${one.colour}`, x: from.toFixed(1), width: Math.max(0.5, x(edges[i + 1]) - from - 0.5).toFixed(1),
      y: y(100 * share).toFixed(2), height: (y(0) - y(100 * share)).toFixed(2),
    });
    bar.append(svg("title", {}, `${one.name} ${(100 * share).toFixed(1)} %`));
    picture.append(bar);
  }));
  if (spec.mark !== null) {
    const at = x(spec.mark);
    picture.append(svg("line", { class: "border", x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
  }
  return still(picture, x, y);
}

/** Horizontal bars that begin at a centre, with their names and values. */
function drawGaps(spec, runs, width) {
  const [row, left, right] = [24, 150, 60];
  const values = [spec.centre, ...spec.bars.map((bar) => bar.value)];
  const x = scale(Math.min(...values), Math.max(...values), left, width - right, false);
  const height = row * spec.bars.length + 6;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width: "100%", role: "img", "aria-hidden": "true" });
  spec.bars.forEach((bar, i) => {
    const top = row * i + 4;
    const [from, to] = [x(spec.centre), x(bar.value)].sort((a, b) => a - b);
    picture.append(
      svg("text", { class: "tick", x: left - 8, y: top + 12, "text-anchor": "end" }, bar.name),
      svg("rect", { class: "bar laid k1", x: from, y: top, width: Math.max(1, to - from), height: 15 }),
      svg("text", { class: "tick", x: to + 6, y: top + 12 }, bar.text),
    );
  });
  picture.append(svg("line", { class: "border", x1: x(spec.centre), x2: x(spec.centre), y1: 0, y2: height }));
  return still(picture, x, null);
}

/** A picture without steps, so without a cursor. */
function still(picture, x, y) {
  return { picture, x, y, steps: [], values: () => [], top: () => [] };
}
