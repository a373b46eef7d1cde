// Colours: of methods (those of the figures), of activations, of maps.

import { atlas } from "./data.js";

const RAMPS = {
  light: [[205, 214, 224], [120, 180, 214], [38, 128, 178], [10, 78, 130], [8, 34, 79]],
  dark: [[58, 66, 80], [40, 100, 150], [56, 155, 205], [135, 212, 230], [238, 250, 205]],
};

/** Whether the page is dark now. */
export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** A colour of the figures as the page shows it: greys are turned round where it is dark, so that black is white. */
function shown(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  if (!isDark() || red !== green || green !== blue) return colour;
  const light = Math.round(255 - 0.6 * red);
  return `rgb(${light} ${light} ${light})`;
}

/** The colour of each method by its name: its kind gives the family, its place among its kind's names the member. */
export function methodColours() {
  const { kinds, tables, comparison } = atlas.about;
  const [kindAt, nameAt] = ["kind", "features"].map((column) => comparison.columns.indexOf(column));
  const named = [...tables.map((table) => [table.kind, table.features]), ...comparison.rows.map((row) => [row[kindAt], row[nameAt]])];
  const colours = new Map();
  for (const [kind, { colours: family }] of Object.entries(kinds)) {
    const names = [...new Set(named.filter(([own]) => own === kind).map(([, name]) => name))].sort();
    names.forEach((name, rank) => colours.set(name, shown(family[rank % family.length])));
  }
  return colours;
}

/** Colour of an activation between 0 and 1. */
export function activationColour(share) {
  const ramp = RAMPS[isDark() ? "dark" : "light"];
  const at = Math.max(0, Math.min(1, share)) * (ramp.length - 1);
  const i = Math.min(ramp.length - 2, Math.floor(at));
  const mixed = ramp[i].map((from, c) => Math.round(from + (ramp[i + 1][c] - from) * (at - i)));
  return `rgb(${mixed.join(" ")})`;
}

export function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
