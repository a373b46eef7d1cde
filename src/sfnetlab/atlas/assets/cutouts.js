// Cutouts of galaxies: places on sheets, scale bar, north and east, and maps laid over them.

import { atlas } from "./data.js";
import { h, href, s } from "./dom.js";

/** A third of the field at most, in a round number of arcseconds. */
function scaleBar(field) {
  let best = 0.01;
  for (let power = -2; power <= 3; power += 1) {
    for (const m of [1, 2, 5]) if (m * 10 ** power <= field / 3) best = m * 10 ** power;
  }
  return best;
}

/** Scale bar, lower left, and arrows to north (up) and east (left), lower right. */
function marks() {
  const field = atlas.about.galaxies.field_arcsec;
  const drawing = s("svg", { class: "marks", viewBox: "0 0 100 100", "aria-hidden": "true" });
  for (const layer of ["shadow", "ink"]) {
    const group = s("g", { class: layer });
    if (field) {
      const arcsec = scaleBar(field);
      group.append(
        s("path", { d: `M7 93h${(100 * arcsec) / field}` }),
        s("text", { x: 7, y: 89 }, `${arcsec}″`),
      );
    }
    group.append(
      s("path", { d: "M92 92v-15m-2.6 4l2.6 -4l2.6 4M92 92h-15m4 -2.6l-4 2.6l4 2.6" }),
      s("text", { x: 92, y: 74, "text-anchor": "middle" }, "N"),
      s("text", { x: 74.5, y: 95, "text-anchor": "end" }, "E"),
    );
    drawing.append(group);
  }
  return drawing;
}

const inView = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    entry.target.style.setProperty("background-image", `url("${entry.target.dataset.sheet}")`);
    inView.unobserve(entry.target);
  }
}, { rootMargin: "400px" });

function placed(sheet, column, row, across, down) {
  const image = h("span", { class: "image" });
  image.dataset.sheet = sheet;
  image.style.setProperty("background-size", `${100 * across}% ${100 * down}%`);
  const at = (i, n) => (n > 1 ? `${(100 * i) / (n - 1)}%` : "0");
  image.style.setProperty("background-position", `${at(column, across)} ${at(row, down)}`);
  inView.observe(image);
  return image;
}

function missing(id) {
  return h("span", { class: "image without" }, id);
}

/** The picture of the galaxy at a row of the atlas, without anything around it. */
export function picture(row, id, { withMarks = false } = {}) {
  const { sheets, galaxies, has_images: hasImages } = atlas.about;
  const frame = h("span", { class: "cutout", role: "img", "aria-label": `Cutout of galaxy ${id}` });
  if (!hasImages) frame.append(missing(id));
  else {
    const sheet = Math.floor(row / sheets.per_sheet);
    const place = row % sheets.per_sheet;
    const onSheet = Math.min(sheets.per_sheet, galaxies.n - sheet * sheets.per_sheet);
    const down = Math.ceil(onSheet / sheets.across);
    frame.append(placed(`cutouts/${sheet}.webp`, place % sheets.across, Math.floor(place / sheets.across), sheets.across, down));
    if (withMarks) frame.append(marks());
  }
  return frame;
}

/** The strongest galaxies of the card at `place`. */
export function mosaic(cards, place) {
  const { walls, has_images: hasImages } = atlas.about;
  const frame = h("span", { class: "mosaic", "aria-hidden": "true" });
  if (!hasImages) return frame;
  const sheet = Math.floor(place / walls.cards_per_sheet);
  const onSheet = Math.min(walls.cards_per_sheet, cards.features.length - sheet * walls.cards_per_sheet);
  const at = place % walls.cards_per_sheet;
  frame.append(placed(`walls/${cards.index}/${sheet}.webp`, at % walls.across, Math.floor(at / walls.across), walls.across, Math.ceil(onSheet / walls.across)));
  return frame;
}

/** A cutout that leads to its galaxy's page, with a caption. */
export function galaxyCard(row, id, caption, options) {
  const card = h("a", { class: "galaxy", href: href("galaxy", id), title: id }, picture(row, id, options));
  card.dataset.row = row;
  if (caption !== undefined) card.append(h("span", { class: "caption" }, caption));
  return card;
}

const OVERLAY_PX = 64;

/**
 * Linear interpolation between the centres of cells, flat beyond the outermost. A cell of a ResNet's map is centred on
 * the first pixel of its square (as interpret/localisation.py has it), one of a gradient's grid in the `middle` of it.
 */
function weights(nPixels, nCells, middle) {
  return Array.from({ length: nPixels }, (_, pixel) => {
    const at = Math.max(0, Math.min(nCells - 1, ((pixel + 0.5) * nCells) / nPixels - middle));
    const low = Math.min(nCells - 2, Math.floor(at));
    return nCells === 1 ? [0, 0, 0] : [low, low + 1, at - low];
  });
}

/** A canvas of a map, made `how`: warm where it adds, blue where it takes away, clear at zero; `scale`: largest |value|. */
export function overlay(cells, height, width, scale, how) {
  const canvas = h("canvas", { class: "overlay", width: OVERLAY_PX, height: OVERLAY_PX, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(OVERLAY_PX, OVERLAY_PX);
  const middle = how === "gradient" ? 0.5 : 0;
  const [down, right] = [weights(OVERLAY_PX, height, middle), weights(OVERLAY_PX, width, middle)];
  for (let y = 0; y < OVERLAY_PX; y += 1) {
    const [y0, y1, fy] = down[y];
    for (let x = 0; x < OVERLAY_PX; x += 1) {
      const [x0, x1, fx] = right[x];
      const top = cells[y0 * width + x0] * (1 - fx) + cells[y0 * width + x1] * fx;
      const bottom = cells[y1 * width + x0] * (1 - fx) + cells[y1 * width + x1] * fx;
      const share = Math.max(-1, Math.min(1, (top * (1 - fy) + bottom * fy) / (scale || 1)));
      const size = Math.abs(share);
      const colour = share > 0 ? [255, 150 + 90 * size * size, 40] : [70, 150, 255];
      image.data.set([...colour, Math.round(215 * size ** 1.2)], 4 * (y * OVERLAY_PX + x));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
