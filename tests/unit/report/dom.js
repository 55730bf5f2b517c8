// Runs the script of a report in Node, on a stand-in for the few parts of the DOM that it uses.
// Usage: node dom.js PAGE.html; prints what became of the page as JSON.

const { readFileSync } = require("node:fs");

const page = readFileSync(process.argv[2], "utf-8");

class Node {
  constructor(tag, text) {
    Object.assign(this, { tag, own: text || "", children: [], attributes: {}, listeners: {}, style: {}, parent: null });
    // What a browser lays out has no size here.
    Object.assign(this, { value: "", disabled: false, clientWidth: 0, clientHeight: 0, scrollTop: 0, offsetTop: 0, offsetHeight: 0 });
  }
  setAttribute(name, value) { this.attributes[name] = value; if (name === "value") this.value = value; }
  append(...nodes) {
    for (const node of nodes) {
      if (!(node instanceof Node)) throw new TypeError(`append takes nodes, not ${typeof node}`);
      node.parent = this;
      this.children.push(node);
    }
  }
  remove() { if (this.parent) this.parent.children = this.parent.children.filter((child) => child !== this); }
  replaceChildren(...nodes) { this.children = []; this.append(...nodes); }
  addEventListener(kind, listener) { (this.listeners[kind] ||= []).push(listener); }
  emit(kind, more) {
    const event = { preventDefault() {}, ...more };
    (this.listeners[kind] || []).forEach((listener) => listener(event));
  }
  get textContent() { return this.own + this.children.map((child) => child.textContent).join(""); }
  set textContent(text) { this.own = text; this.children = []; }
  get innerHTML() { throw new Error("no markup is read"); }
  set innerHTML(_) { throw new Error("no markup is made"); }
  getBoundingClientRect() { return { left: 0, top: 0, width: 560, height: 210 }; }
  all(test) { return [...(test(this) ? [this] : []), ...this.children.flatMap((child) => child.all(test))]; }
  ofClass(name) { return this.all((node) => (node.attributes.class || "").split(" ").includes(name)); }
  ofTag(tag) { return this.all((node) => node.tag === tag); }
}

const root = new Node("html");
const byId = {};
for (const [, id] of page.matchAll(/\sid="([^"]+)"/g)) {
  byId[id] = new Node("div");
  byId[id].attributes.id = id;
  root.append(byId[id]);
}
byId.data.textContent = page.match(/id="data">([\s\S]*?)<\/script>/)[1];
if (byId.smoothing) byId.smoothing.value = "1";

global.window = new Node("window");
global.document = {
  documentElement: root,
  createElement: (tag) => new Node(tag),
  createElementNS: (_, tag) => new Node(tag),
  createTextNode: (text) => new Node("#text", text),
  getElementById: (id) => byId[id] || null,
};
global.getComputedStyle = () => ({ getPropertyValue: () => "0" });

// eslint-disable-next-line no-eval
(0, eval)(page.match(/<script>([\s\S]*?)<\/script>/)[1]);

const figures = root.ofClass("chart");
const summary = figures.map((figure) => ({
  title: figure.ofTag("h3")[0].textContent,
  lines: figure.ofClass("line").map((line) => line.attributes.d),
  areas: figure.ofClass("area").map((area) => area.attributes.d),
  bands: figure.ofClass("band").filter((band) => band.tag === "rect").length,
  borders: figure.ofClass("border").length,
  marks: figure.ofClass("mark").map((mark) => mark.textContent),
  lost: figure.ofClass("lost").map((cross) => cross.textContent),
  dots: figure.ofClass("spot").length,
  bars: figure.ofClass("bar").length,
  legend: figure.ofClass("legend")[0].textContent,
}));
const result = { charts: summary };

const first = figures.find((figure) => figure.listeners.keydown);
if (first) {
  first.emit("keydown", { key: "ArrowRight" });
  first.emit("keydown", { key: "ArrowRight" });
  result.cursor = { says: first.ofClass("readout")[0].textContent, legend: first.ofClass("legend")[0].textContent, shown: first.ofClass("cursor").length };
  first.emit("blur");
  result.cursor.after = first.ofClass("cursor").length;
  const plot = first.ofClass("plot")[0];
  plot.emit("mousemove", { clientX: 560 });
  result.mouse = first.ofClass("readout")[0].textContent;
  plot.emit("mouseleave");
}
const button = figures.flatMap((figure) => figure.ofTag("button"))[0];
if (button) {
  const path = () => button.parent.parent.ofClass("line").map((line) => line.attributes.d);
  const before = path();
  button.emit("click");
  result.log = { before, after: path(), pressed: button.attributes["aria-pressed"] };
}
if (byId.smoothing) {
  byId.smoothing.value = "5";
  byId.smoothing.emit("change");
}
result.raw = root.ofClass("raw").length;
byId.theme.emit("click");
result.theme = root.attributes["data-theme"];

if (byId.browser) {
  const browser = byId.browser;
  const [search] = browser.ofTag("input");
  const [source, order] = browser.ofTag("select");
  const [back, on] = browser.ofTag("button");
  const [list] = browser.ofClass("list");
  const look = () => ({
    position: browser.ofClass("position")[0].textContent,
    rows: browser.ofClass("row").length,
    chosen: browser.ofClass("row").findIndex((row) => row.attributes["aria-selected"] === "true"),
    detail: browser.ofClass("detail")[0].textContent,
    texts: browser.ofClass("side").map((side) => side.ofClass("text")[0].textContent),
    languages: browser.ofClass("text").map((text) => text.attributes.lang || ""),
    colours: browser.ofClass("side").map((side) => side.ofTag("span").map((span) => span.style.backgroundColor || "")),
    back: !back.disabled, on: !on.disabled,
  });
  const steps = { start: look() };
  on.emit("click");
  steps.next = look();
  list.emit("keydown", { key: "End" });
  steps.end = look();
  list.emit("keydown", { key: "Home" });
  source.value = "held-out";
  source.emit("change");
  steps.heldOut = look();
  source.value = "all";
  source.emit("change");
  order.value = "largest gap first";
  order.emit("change");
  steps.byGap = look();
  order.value = "with token values first";
  order.emit("change");
  steps.coloured = look();
  search.value = "天空为什么";
  search.emit("input");
  steps.chinese = look();
  search.value = "nothing has this";
  search.emit("input");
  steps.none = look();
  result.browser = steps;
}
process.stdout.write(JSON.stringify(result));
