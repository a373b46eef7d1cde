// Colours: of methods (those of the figures), of activations, of maps.

const METHODS = {
  sfnet: ["#0072B2", "#56B4E9", "#004c78"],
  sae: ["#D55E00", "#E69F00", "#CC79A7"],
  null_sae: ["#8a8a8a", "#b0b0b0", "#666666"],
  pca: ["#009E73", "#66c2a5", "#006b4e"],
  pls: ["#CC79A7", "#a8447f", "#e3a9c9"],
  vae: ["#b8860b", "#d9a441", "#7a5a00"],
  encoder: ["#808080", "#a9a9a9", "#5c5c5c"],
  external: ["#808080", "#a9a9a9", "#5c5c5c"],
  photometry: ["#7b5ea7", "#a890cc", "#543a80"],
  mean: ["#999999", "#bbbbbb", "#777777"],
  noise_floor: ["#999999", "#bbbbbb", "#777777"],
};

export function methodColour(kind, rank = 0) {
  const family = METHODS[kind] ?? METHODS.mean;
  return family[rank % family.length];
}

const RAMPS = {
  light: [[205, 214, 224], [120, 180, 214], [38, 128, 178], [10, 78, 130], [8, 34, 79]],
  dark: [[58, 66, 80], [40, 100, 150], [56, 155, 205], [135, 212, 230], [238, 250, 205]],
};

/** Whether the page is dark now. */
export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
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
