// Small helpers: elements whose text is only ever text, numbers as words, files to save.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, v]) => element.style.setProperty(key, v));
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element. Children that are text become text nodes, whatever is in them. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A number with few digits; an en dash where there is none. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  let text;
  if (value === 0) text = "0";
  else if (size >= 1e5 || size < 1e-3) text = value.toExponential(Math.max(0, digits - 1)).replace("e+", "e");
  else text = Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size))))));
  return text.replace(/-/g, "−");
}

export function signed(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

export function percent(value) {
  if (Number.isNaN(value)) return "–";
  const points = 100 * value;
  return `${points >= 10 ? points.toFixed(0) : points >= 1 ? points.toFixed(1) : points.toPrecision(2)} %`;
}

export function count(n) {
  return String(n).replace(/\B(?=(\d{3})+$)/g, " ");
}

/** Let the browser save a table as CSV. */
export function saveCsv(name, columns, rows) {
  const cell = (value) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "";
    let text = String(value);
    // What begins like this a spreadsheet takes for a formula, unless it is a number.
    if (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const text = [columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
  const url = URL.createObjectURL(new Blob([text, "\r\n"], { type: "text/csv" }));
  const link = h("a", { href: url, download: `${name}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Tell screen readers. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}

export function section(title, about, ...children) {
  return h("section", { class: "part" }, h("h2", {}, title), about && h("p", { class: "about" }, about), ...children);
}

/** A link to a part of the atlas; each piece of the path may hold anything. */
export function href(...pieces) {
  return `#/${pieces.map((piece) => encodeURIComponent(piece)).join("/")}`;
}

/** A short note that opens: what a number means. */
export function help(text) {
  return h("span", { class: "hint", tabindex: 0, role: "note", "aria-label": text, "data-hint": text }, "i");
}
