// Small helpers. Whatever comes out of a run enters the page as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a child that is a string becomes text. */
function el(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for a part of a picture. */
function svg(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  for (const child of children) {
    element.append(typeof child === "string" ? document.createTextNode(child) : child);
  }
  return element;
}

const byId = (id) => document.getElementById(id);

/** A number with four digits that count, a true minus sign, and k, M, G above 10,000. */
function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const scales = [[1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]];
  const [, unit, letter] = scales.find(([from]) => size >= from) || [0, 1, ""];
  return short(value / unit) + letter;
}

function short(value) {
  const size = Math.abs(value);
  const text = size !== 0 && size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return text.replaceAll("-", "−");
}

/** The language whose glyphs a text needs: Chinese and Japanese share characters and draw them differently. */
function languageOf(text) {
  if (/[぀-ヿ]/.test(text)) return "ja";
  if (/[가-힯]/.test(text)) return "ko";
  return /[㐀-䶿一-鿿豈-﫿]/.test(text) ? "zh-Hans" : null;
}

/** Index of the value nearest to x in an increasing list; -1 in an empty one. */
function nearest(values, x) {
  let low = 0;
  let high = values.length - 1;
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] < x) low = middle;
    else high = middle;
  }
  return Math.abs(values[low] - x) <= Math.abs(values[high] - x) ? low : high;
}
