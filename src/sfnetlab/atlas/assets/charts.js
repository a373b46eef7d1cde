// Charts: drawn as SVG where there are few marks, on a canvas where there are thousands.

import { activationColour, variable } from "./colour.js";
import { h, number, s } from "./dom.js";

/** Round numbers that span low to high, about n of them. */
export function ticks(low, high, n = 5) {
  const span = high - low || 1;
  const raw = span / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((each) => each >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function axes(frame, { x, y, width, height, left, top, xTicks, yTicks, xLabel, yLabel, xText = number, yText = number }) {
  const bottom = top + height;
  for (const value of yTicks) {
    frame.append(
      s("line", { class: "grid", x1: left, x2: left + width, y1: y(value), y2: y(value) }),
      s("text", { class: "tick", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, yText(value)),
    );
  }
  for (const value of xTicks) {
    frame.append(
      s("line", { class: "grid", x1: x(value), x2: x(value), y1: top, y2: bottom }),
      s("text", { class: "tick", x: x(value), y: bottom + 16, "text-anchor": "middle" }, xText(value)),
    );
  }
  frame.append(
    s("path", { class: "axis", d: `M${left} ${top}V${bottom}H${left + width}` }),
    s("text", { class: "label", x: left + width / 2, y: bottom + 34, "text-anchor": "middle" }, xLabel),
    s("text", { class: "label", transform: `translate(13 ${top + height / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel),
  );
}

const MARKERS = {
  circle: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
  square: "M-3.6 -3.6h7.2v7.2h-7.2z",
  triangle: "M0 -4.8l4.6 8h-9.2z",
  diamond: "M0 -5.2l4.4 5.2l-4.4 5.2l-4.4 -5.2z",
};

/** How many times the largest level an error may be; what is larger is drawn there. */
export const WORST = 1.6;

/** Curves with intervals over a logarithmic axis. `curves`: [{ name, colour, dash, marker, points: [{ x, y, low, high, title }] }]. */
export function budgetChart({ curves, levels, xLabel, yLabel, title }) {
  const [width, height, left, top] = [640, 320, 62, 12];
  const all = curves.flatMap((curve) => curve.points);
  if (all.length === 0) return h("p", { class: "about" }, "Nothing to draw.");
  const xs = all.map((point) => point.x);
  const bounds = [...all.flatMap((point) => [point.low ?? point.y, point.high ?? point.y]), ...levels.map((level) => level.y)];
  // what is far worse than knowing nothing would press all else flat: it stands at the upper edge
  const limit = levels.length ? WORST * Math.max(...levels.map((level) => level.y)) : Infinity;
  const [low, high] = [Math.min(...bounds), Math.min(limit, Math.max(...bounds))];
  const pad = 0.06 * (high - low || 1);
  const [minX, maxX] = [Math.min(...xs) / 1.25, Math.max(...xs) * 1.25];
  const x = (value) => left + (width * Math.log(value / minX)) / Math.log(maxX / minX);
  const y = (value) => top + height * (1 - (Math.min(value, limit) - low + pad) / (high - low + 2 * pad));
  const powers = Array.from({ length: 24 }, (_, i) => 2 ** i).filter((p) => p >= minX && p <= maxX);
  const frame = s("svg", { class: "chart", viewBox: `0 0 ${width + left + 14} ${height + top + 42}`, role: "img", "aria-label": title });
  axes(frame, { x, y, width, height, left, top, xTicks: powers, yTicks: ticks(low - pad, high + pad), xLabel, yLabel });
  for (const level of levels) {
    frame.append(
      s("line", { class: "level", x1: left, x2: left + width, y1: y(level.y), y2: y(level.y) }),
      s("text", { class: "tick", x: left + width - 4, y: y(level.y) - 5, "text-anchor": "end" }, level.name),
    );
  }
  const groups = [];
  curves.forEach((curve, i) => {
    const shift = Math.min(3, 18 / curves.length) * (i - (curves.length - 1) / 2);
    const points = [...curve.points].sort((a, b) => a.x - b.x);
    const line = points.map((point, j) => `${j ? "L" : "M"}${x(point.x) + shift} ${y(point.y)}`).join("");
    const group = s("g", { style: { color: curve.colour } }, s("path", { class: "curve", d: line, "stroke-dasharray": curve.dash }));
    for (const point of points) {
      const at = x(point.x) + shift;
      if (point.low !== null) group.append(s("line", { class: "interval", x1: at, x2: at, y1: y(point.low), y2: y(point.high) }));
      group.append(s("path", { class: "marker", d: MARKERS[curve.marker], transform: `translate(${at} ${y(point.y)})` }, s("title", {}, point.title)));
    }
    frame.append(group);
    groups.push(group);
  });
  const legend = h("ul", { class: "legend", "aria-label": "Curves shown" }, curves.map((curve, i) => h("li", {},
    h("button", { type: "button", "aria-pressed": "true", onclick: (event) => {
      const shown = groups[i].toggleAttribute("hidden");
      event.currentTarget.setAttribute("aria-pressed", !shown);
    } }, s("svg", { class: "swatch", viewBox: "-12 -6 24 12", style: { color: curve.colour }, "aria-hidden": "true" },
      s("path", { class: "curve", d: "M-12 0H12", "stroke-dasharray": curve.dash }), s("path", { class: "marker", d: MARKERS[curve.marker] })), curve.name))));
  return h("figure", {}, frame, legend);
}

/** Counts of activations, on a logarithmic axis. */
export function histogram({ counts, low, high, title }) {
  const [width, height, left, top] = [420, 170, 46, 10];
  const most = Math.max(...counts, 1);
  const x = (value) => left + (width * (value - low)) / (high - low || 1);
  const y = (n) => top + height * (1 - Math.log10(1 + n) / Math.log10(1 + most));
  const powers = [0, 1, 10, 100, 1000, 10000].filter((n) => n <= most);
  const frame = s("svg", { class: "chart", viewBox: `0 0 ${width + left + 14} ${height + top + 42}`, role: "img", "aria-label": title });
  axes(frame, { x, y, width, height, left, top, xTicks: ticks(low, high), yTicks: powers, xLabel: "activation", yLabel: "test galaxies" });
  const step = (high - low) / counts.length;
  counts.forEach((n, i) => {
    if (n === 0) return;
    const [from, to] = [x(low + i * step), x(low + (i + 1) * step)];
    const share = Math.max(0, (low + (i + 0.5) * step) / high);
    frame.append(s("rect", { x: from + 0.5, width: Math.max(1, to - from - 1), y: y(n), height: top + height - y(n), fill: activationColour(0.25 + 0.75 * share), tabindex: -1 },
      s("title", {}, `${number(low + i * step)} to ${number(low + (i + 1) * step)}: ${n} galaxies`)));
  });
  return frame;
}

/** A row of a table of intervals: correlation between -1 and 1, with the band that no relation would fall in. */
export function intervalRow({ value, low, high, band, extremes = 1 }) {
  const x = (r) => 100 + (96 * Math.max(-extremes, Math.min(extremes, r))) / extremes;
  return s("svg", { class: "interval-row", viewBox: "0 0 200 18", "aria-hidden": "true" },
    band && s("rect", { class: "band", x: x(-band), width: x(band) - x(-band), y: 2, height: 14 }),
    s("line", { class: "axis", x1: 100, x2: 100, y1: 0, y2: 18 }),
    low !== undefined && !Number.isNaN(low) && s("line", { class: "interval", x1: x(low), x2: x(high), y1: 9, y2: 9 }),
    !Number.isNaN(value) && s("circle", { class: value < 0 ? "negative" : "positive", cx: x(value), cy: 9, r: 4 }));
}

/** From the bias step by step to the prediction. `steps`: [{ name, value, href?, title? }]. */
export function waterfall({ start, steps, end, startName, endName, unit, truth }) {
  let at = start;
  const rows = steps.map((step) => {
    const from = at;
    at += step.value;
    return { ...step, from, to: at };
  });
  const values = [start, end, ...rows.map((row) => row.to), ...(Number.isFinite(truth) ? [truth] : [])];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = 0.05 * (high - low || 1);
  const x = (value) => `${(100 * (value - low + pad)) / (high - low + 2 * pad)}%`;
  const bar = (from, to, kind) => {
    const [a, b] = [Math.min(from, to), Math.max(from, to)];
    const width = (100 * (b - a)) / (high - low + 2 * pad);
    return h("span", { class: "track" },
      Number.isFinite(truth) && h("span", { class: "truth", style: { left: x(truth) } }),
      h("span", { class: `step ${kind}`, style: { left: x(a), width: `max(2px, ${width}%)` } }));
  };
  const line = (name, value, mark) => h("li", {}, h("span", { class: "name" }, name), mark, h("span", { class: "value" }, value));
  const plus = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toPrecision(3)}`;
  return h("ol", { class: "waterfall" },
    line(startName, start.toFixed(4), bar(start, start, "total")),
    rows.map((row) => line(
      row.href ? h("a", { href: row.href, title: row.title }, row.name) : row.name,
      plus(row.value), bar(row.from, row.to, row.value < 0 ? "negative" : "positive"))),
    line(h("strong", {}, endName), h("strong", {}, end.toFixed(4) + (unit ? ` ${unit}` : "")), bar(end, end, "total")));
}

/**
 * Points on a plane, coloured by activation; hovering names the nearest galaxy, a click opens it.
 * `strength`: Float32Array between 0 and 1 for each galaxy, 0 where the feature is not active; `shown`: which to draw.
 */
export function scatter({ plane, strength, shown, describe, open, preview, colourOf = activationColour, mark = -1 }) {
  const canvas = h("canvas", { class: "scatter", role: "img", tabindex: 0, "aria-label": `${plane.name}: ${plane.y} against ${plane.x}; darker or brighter points have a stronger activation. The strongest galaxies are listed above.` });
  const tip = h("div", { class: "tip", hidden: true });
  const figure = h("figure", { class: "plane" }, h("figcaption", {}, plane.name), h("div", { class: "plot" }, canvas, tip));
  const rows = [];
  for (let i = 0; i < plane.xs.length; i += 1) {
    if (shown[i] && Number.isFinite(plane.xs[i]) && Number.isFinite(plane.ys[i])) rows.push(i);
  }
  rows.sort((a, b) => strength[a] - strength[b]);
  const range = (values) => {
    const sorted = rows.map((i) => values[i]).sort((a, b) => a - b);
    if (sorted.length === 0) return [0, 1];
    const q = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    const [a, b] = [q(0.002), q(0.998)];
    const pad = 0.06 * (b - a || 1);
    return [a - pad, b + pad];
  };
  const [xRange, yRange] = [range(plane.xs), range(plane.ys)];
  let place = null;
  let near = -1;

  const draw = () => {
    const width = canvas.clientWidth;
    if (!width) return;
    const height = Math.round(0.8 * width);
    const ratio = devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.setProperty("height", `${height}px`);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const [left, right, top, bottom] = [46, width - 8, 8, height - 38];
    const x = (value) => left + ((right - left) * (value - xRange[0])) / (xRange[1] - xRange[0]);
    const y = (value) => bottom - ((bottom - top) * (value - yRange[0])) / (yRange[1] - yRange[0]);
    place = { x, y };
    context.font = `12px ${variable("--font")}`;
    context.fillStyle = variable("--quiet");
    context.strokeStyle = variable("--grid");
    context.textAlign = "center";
    for (const value of ticks(...xRange, width < 300 ? 3 : 5)) {
      context.beginPath(); context.moveTo(x(value), top); context.lineTo(x(value), bottom); context.stroke();
      context.fillText(number(value), x(value), bottom + 15);
    }
    context.fillText(plane.x, (left + right) / 2, bottom + 32);
    context.textAlign = "right";
    for (const value of ticks(...yRange)) {
      context.beginPath(); context.moveTo(left, y(value)); context.lineTo(right, y(value)); context.stroke();
      context.fillText(number(value), left - 5, y(value) + 4);
    }
    context.save();
    context.translate(11, (top + bottom) / 2); context.rotate(-Math.PI / 2); context.textAlign = "center";
    context.fillText(plane.y, 0, 0);
    context.restore();
    context.save();
    context.beginPath(); context.rect(left, top, right - left, bottom - top); context.clip();
    const radius = rows.length > 5000 ? 1.5 : rows.length > 1200 ? 2 : 2.8;
    const shades = Array.from({ length: 33 }, (_, i) => colourOf(i / 32));
    for (const row of rows) {
      context.fillStyle = shades[Math.round(32 * Math.max(0, Math.min(1, strength[row])))];
      const size = strength[row] > 0 ? radius * 1.25 : radius;
      context.beginPath(); context.arc(x(plane.xs[row]), y(plane.ys[row]), size, 0, 7); context.fill();
    }
    context.lineWidth = 1.5;
    plane.curves.forEach((curve, i) => {
      context.strokeStyle = variable("--text");
      context.setLineDash(i ? [6, 4] : []);
      context.beginPath();
      curve.x.forEach((value, j) => (j ? context.lineTo(x(value), y(curve.y[j])) : context.moveTo(x(value), y(curve.y[j]))));
      context.stroke();
      context.setLineDash([]);
    });
    for (const row of [mark, near]) {
      if (row < 0 || !Number.isFinite(plane.xs[row])) continue;
      context.strokeStyle = variable("--accent");
      context.lineWidth = 2.5;
      context.beginPath(); context.arc(x(plane.xs[row]), y(plane.ys[row]), 7, 0, 7); context.stroke();
    }
    context.restore();
  };

  const nearest = (event) => {
    const box = canvas.getBoundingClientRect();
    const [atX, atY] = [event.clientX - box.left, event.clientY - box.top];
    let [best, least] = [-1, 18 ** 2];
    for (let i = rows.length - 1; i >= 0; i -= 1) {
      const distance = (place.x(plane.xs[rows[i]]) - atX) ** 2 + (place.y(plane.ys[rows[i]]) - atY) ** 2;
      if (distance < least) [best, least] = [rows[i], distance];
    }
    return best;
  };
  canvas.addEventListener("pointermove", (event) => {
    if (!place) return;
    const found = nearest(event);
    if (found === near) return;
    near = found;
    draw();
    tip.hidden = near < 0;
    if (near >= 0) {
      tip.replaceChildren(preview(near), h("span", {}, describe(near)));
      const right = place.x(plane.xs[near]) > canvas.clientWidth / 2;
      tip.style.setProperty("left", right ? "auto" : `${place.x(plane.xs[near]) + 12}px`);
      tip.style.setProperty("right", right ? `${canvas.clientWidth - place.x(plane.xs[near]) + 12}px` : "auto");
      tip.style.setProperty("top", `${Math.max(0, place.y(plane.ys[near]) - 60)}px`);
    }
  });
  canvas.addEventListener("pointerleave", () => {
    near = -1;
    tip.hidden = true;
    draw();
  });
  canvas.addEventListener("click", (event) => {
    const found = nearest(event);
    if (found >= 0) open(found);
  });
  new ResizeObserver(draw).observe(canvas);
  if (plane.curves.length) {
    figure.append(h("p", { class: "about" }, plane.curves.map((curve, i) => `${i ? "dashed" : "solid"}: ${curve.name}`).join(", ")));
  }
  return figure;
}
