// What the page's parts are made of. Whatever comes from files becomes text, never HTML.

export const $ = (id) => document.getElementById(id);

export function make(tag, text = "", name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

export function figure(title, meaning = "") {
  const box = make("figure");
  const told = make("p", meaning, "meaning");
  const chart = make("div", "", "chart");
  box.append(make("h3", title), told, chart);
  return { box, told, chart };
}

export function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const isFar = size !== 0 && (size < 1e-3 || size >= 1e6);
  return (isFar ? value.toExponential(2) : value.toLocaleString("en", { maximumSignificantDigits: digits })).replaceAll("-", "−");
}

export const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// Methods' colours are made for white paper; on a dark one the darkest are lifted.
export function shown(colour, opacity = 1) {
  const hex = /^#[0-9a-f]{6}$/i.test(colour) ? colour : style("--ink");
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const isDim = isDark() && 0.3 * parts[0] + 0.6 * parts[1] + 0.1 * parts[2] < 110;
  return `rgba(${parts.map((part) => (isDim ? Math.round((part + 255) / 2) : part)).join(",")},${opacity})`;
}
