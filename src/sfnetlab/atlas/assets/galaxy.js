// The page of a galaxy: what it is, what is predicted for it and why, and which others are like it.

import { scatter, waterfall } from "./charts.js";
import { galaxyCard, overlay, picture } from "./cutouts.js";
import { atlas, galaxies, load, titleOf, unpack, unpackMaps, wall } from "./data.js";
import { h, href, number, percent, section, signed } from "./dom.js";
import { sortableTable } from "./sortable.js";

const N_STEPS = 14;

/** Active features of the galaxy in one table: [{ feature, value }]. */
function codeOf(stored, at, table) {
  const values = unpack(stored.values);
  if (!stored.ends) {
    return Array.from(values.subarray(at * table.n_all, (at + 1) * table.n_all), (value, feature) => ({ feature, value }));
  }
  const [ends, features] = [unpack(stored.ends), unpack(stored.features)];
  return Array.from({ length: ends[at + 1] - ends[at] }, (_, i) => ({ feature: features[ends[at] + i], value: values[ends[at] + i] }));
}

function links(ra, dec) {
  const place = `ra=${ra.toFixed(6)}&dec=${dec.toFixed(6)}`;
  const to = (text, url) => h("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, text);
  return h("p", { class: "links" },
    to("SkyServer", `https://skyserver.sdss.org/dr18/VisualTools/navi?${place}&scale=0.2`),
    to("Legacy Survey viewer", `https://www.legacysurvey.org/viewer?${place}&layer=ls-dr10&zoom=15`),
    to("SIMBAD", `https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${ra.toFixed(6)}%20${dec.toFixed(6)}&CooFrame=ICRS&Radius=10&Radius.unit=arcsec`));
}

/** Sum by sum: what each active feature adds to the prediction of one column. */
function contributions(cards, code, output) {
  const { head } = cards;
  const d = cards.table.n_all;
  return code.map(({ feature, value }) => ({ feature, value, part: value * head.weights[output * d + feature] }))
    .filter(({ part }) => part !== 0).sort((a, b) => Math.abs(b.part) - Math.abs(a.part));
}

function why({ cards, stored, at, id, row, labels, unit }) {
  const { head, table } = cards;
  const code = codeOf(stored, at, table);
  const predictions = unpack(stored.predictions);
  const isOfInterest = unpack(stored.of_interest)[at] === 1;
  const all = stored.maps && unpackMaps(stored.maps);
  const n = head.columns.length;
  return head.columns.map((column, output) => {
    const parts = contributions(cards, code, output);
    const sum = parts.reduce((total, { part }) => total + part, head.bias[output]);
    const predicted = predictions[at * n + output];
    const truth = isOfInterest ? labels[atlas.about.labels.indexOf(column)] : NaN;
    const steps = parts.slice(0, N_STEPS).map(({ feature, value, part }) => {
      const place = cards.place.get(feature);
      return {
        name: place === undefined ? `feature ${feature}` : `${cards.names[place]} ${titleOf(cards, place)}`,
        href: place === undefined ? undefined : href("feature", table.name, feature),
        title: `activation ${number(value)}`, value: part,
      };
    });
    const rest = parts.slice(N_STEPS);
    if (rest.length > 0) steps.push({ name: `${rest.length} more features`, value: rest.reduce((total, { part }) => total + part, 0) });
    const cells = all?.maps[at * n + output];
    const map = cells && atlas.about.has_images && (() => {
      const frame = picture(row, id, { withMarks: true });
      const scale = cells.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      frame.insertBefore(overlay(cells, all.h, all.w, scale, "exact"), frame.querySelector(".marks"));
      return h("figure", { class: "contribution-map" }, frame, h("figcaption", {}, `Where it comes from: warm parts raise ${column}, blue ones lower it; ${all.h} × ${all.w} cells. The mean over the network’s own cells (all, or every second or fourth row and column of a finer map) plus the bias is the prediction.`));
    })();
    return section(`Why this ${column}?`, `${table.name}: each active feature adds its activation times its weight.`,
      h("div", { class: "why" },
        h("div", {},
          waterfall({ start: head.bias[output], startName: "bias", steps, end: sum, endName: "prediction", unit, truth }),
          h("p", { class: "quiet check" }, `The network itself says ${predicted.toFixed(5)}; the sum is ${Math.abs(sum - predicted).toExponential(1)} off.`),
          Number.isFinite(truth) ? h("p", {}, h("span", { class: "truth-key" }), ` The catalogue says ${number(truth, 4)}: residual ${signed(predicted - truth, 3)}.`)
            : h("p", { class: "quiet" }, "The catalogue has no value of it within the target's cut.")),
        map));
  });
}

export async function showGalaxy(main, id) {
  const { about } = atlas;
  const all = await galaxies();
  const row = all.place.get(id);
  if (row === undefined) throw new Error(`there is no galaxy ${id} in this atlas`);
  const [chunk, ...walls] = await Promise.all([load(`galaxies/${Math.floor(row / about.galaxies.chunk)}`), ...about.tables.map((_, i) => wall(i))]);
  const at = row - chunk.first;
  const labels = unpack(chunk.labels).subarray(at * about.labels.length, (at + 1) * about.labels.length);
  const parts = [];

  const odd = all.oddities.map((each) => {
    const own = each.values[row];
    if (Number.isNaN(own)) return null;
    let [above, known] = [0, 0];
    for (const value of each.values) if (!Number.isNaN(value)) { known += 1; above += Number(value > own); }
    return { ...each, own, share: (above + 1) / known };
  }).filter((each) => each && each.share <= 0.02);
  const facts = [
    ["part of the split", about.splits[all.split[row]]],
    ...(all.ra && Number.isFinite(all.ra[row]) ? [["ra, dec", `${all.ra[row].toFixed(5)}, ${all.dec[row].toFixed(5)}`]] : []),
    ...about.texts.map((name, i) => [name, chunk.texts[at][i]]),
  ];
  parts.push(h("header", { class: "galaxy-head" },
    h("div", { class: "portrait" }, picture(row, id, { withMarks: true })),
    h("div", {}, h("p", { class: "quiet" }, "Galaxy"), h("h1", { class: "id" }, id),
      h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      about.galaxies.is_real && all.ra && Number.isFinite(all.ra[row]) && links(all.ra[row], all.dec[row]),
      all.split[row] !== about.splits.indexOf("test") && h("p", { class: "about" }, "Networks were fitted on galaxies like this one: its prediction is no test."),
      odd.map((each) => h("p", { class: "warning" }, `⚠ ${each.name}: ${number(each.own)}, among the ${percent(each.share)} largest`)))));

  about.tables.forEach((table, i) => {
    if (walls[i].head) parts.push(...why({ cards: walls[i], stored: chunk.tables[i], at, id, row, labels, unit: "" }));
  });

  about.predictions.forEach(({ column, unit, methods }, i) => {
    const [y, values] = [unpack(chunk.predictions[i].y)[at], unpack(chunk.predictions[i].values)];
    const rows = methods.map((method, j) => ({ method, predicted: values[at * methods.length + j] })).filter((each) => !Number.isNaN(each.predicted));
    if (rows.length === 0) return;
    parts.push(h("details", {}, h("summary", {}, `What every method predicts for ${column}`), sortableTable({
      caption: `Predictions of ${column}`, file: `${id}-${column}`, filter: false,
      rows: rows.map((each) => ({ ...each, residual: each.predicted - y })),
      columns: [{ key: "method", title: "method, probe" }, { key: "predicted", title: `${column}${unit ? ` [${unit}]` : ""}`, numeric: true, draw: (each) => number(each.predicted, 4) }, { key: "residual", title: "residual", numeric: true, draw: (each) => signed(each.residual, 3) }],
    })));
  });

  about.tables.forEach((table, i) => {
    const stored = chunk.tables[i];
    const code = codeOf(stored, at, table).sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, 24);
    const near = stored.neighbours;
    const rows = near ? unpack(near.rows).subarray(at * near.n, (at + 1) * near.n) : [];
    const cosines = near ? unpack(near.cosines).subarray(at * near.n, (at + 1) * near.n) : [];
    parts.push(section(table.name, null,
      code.length === 0 && h("p", { class: "quiet" }, "No feature is active."),
      h("ul", { class: "chips" }, code.map(({ feature, value }) => {
        const place = walls[i].place.get(feature);
        const text = [h("b", {}, place === undefined ? feature : walls[i].names[place]), ` ${place === undefined ? "" : titleOf(walls[i], place)} `, h("span", { class: "quiet" }, number(value))];
        return h("li", {}, place === undefined ? h("span", { class: "chip" }, text) : h("a", { class: "chip", href: href("feature", table.name, feature) }, text));
      })),
      near && h("h3", {}, "Nearest by these features"),
      near && h("ul", { class: "galaxies" }, Array.from(rows, (other, j) => (cosines[j] > 0 ? h("li", {}, galaxyCard(other, all.ids[other], `cos ${cosines[j].toFixed(3)}`)) : null)))));
  });

  if (all.planes.length > 0) {
    const nothing = new Float32Array(all.ids.length);
    const shown = new Uint8Array(all.ids.length).fill(1);
    parts.push(section("Its place", "Among all galaxies of the atlas.", h("div", { class: "planes" }, all.planes.map((plane) => scatter({
      plane, strength: nothing, shown, mark: row,
      describe: (other) => all.ids[other], preview: (other) => picture(other, all.ids[other]),
      open: (other) => { location.hash = href("galaxy", all.ids[other]); },
    })))));
  }
  parts.push(section("Labels", null, sortableTable({
    caption: "Labels of this galaxy", file: `${id}-labels`, shown: 80,
    rows: about.labels.map((label, i) => ({ label, value: labels[i] })).filter((each) => !Number.isNaN(each.value)),
    columns: [{ key: "label", title: "label" }, { key: "value", title: "value", numeric: true, draw: (each) => number(each.value, 5) }],
  })));
  main.replaceChildren(...parts);
  return { title: `Galaxy ${id}`, keys: { Escape: () => history.back() } };
}
