// The page of a feature: its galaxies, where in them it looks, and all the evidence of what it means.

import { histogram, intervalRow, scatter } from "./charts.js";
import { galaxyCard, overlay, picture } from "./cutouts.js";
import { atlas, columnOf, featurePage, galaxies, readable, rhoOf, tableIndex, titleOf, unpack, unpackMaps, wall } from "./data.js";
import { announce, h, help, href, number, percent, section, signed } from "./dom.js";
import { sortableTable } from "./sortable.js";
import { orderOf, stateOf } from "./wall.js";

const EXPLAINED = {
  exact: "The map before the last average, weighted as the feature weighs it. Its mean over the network’s own cells is the activation: those are all cells, or, where the network’s own map is coarser, every second or fourth row and column of them.",
  gradient: "The size of gradient times pixel through the encoder: a hint, no sum.",
};

function numbersOf(cards, place) {
  return h("dl", { class: "numbers" }, cards.numbers.filter((each) => !Number.isNaN(each.values[place])).map((each) => h("div", {},
    h("dt", {}, each.title, " ", help(each.help)),
    h("dd", {}, each.key === "frequency" ? percent(each.values[place]) : number(each.values[place])))));
}

function groupsOf(page, cards, ids, strength) {
  const maps = page.maps && { ...unpackMaps(page.maps), rows: unpack(page.maps.rows) };
  const mapOf = new Map(maps ? Array.from(maps.rows, (row, i) => [row, maps.maps[i]]) : []);
  const scale = maps ? Math.max(...maps.maps.map((map) => map.reduce((most, value) => Math.max(most, Math.abs(value)), 0))) : 1;
  const figures = [];
  const groups = page.groups.map((group) => ({ title: group.title, rows: unpack(group.rows) })).filter((group) => group.rows.length > 0);
  const parts = groups.map((group) => h("div", { class: "group" }, h("h3", {}, group.title),
    h("ul", { class: "galaxies" }, Array.from(group.rows, (row) => {
      const link = galaxyCard(row, ids[row], number(strength.get(row) ?? 0), { withMarks: true });
      if (mapOf.has(row)) figures.push({ frame: link.querySelector(".cutout"), cells: mapOf.get(row) });
      return h("li", {}, link);
    }))));
  if (!maps || !atlas.about.has_images) return { parts, toggle: null };
  let shown = false;
  const button = h("button", { type: "button", class: "maps", "aria-pressed": "false" }, "Show where it comes from");
  const toggle = () => {
    shown = !shown;
    for (const { frame, cells } of figures) {
      frame.querySelector(".overlay")?.remove();
      if (shown) frame.insertBefore(overlay(cells, maps.h, maps.w, scale, page.maps.how), frame.querySelector(".marks"));
    }
    button.setAttribute("aria-pressed", shown);
    announce(shown ? "activation maps shown" : "activation maps hidden");
  };
  button.addEventListener("click", toggle);
  const note = h("p", { class: "about" }, `${EXPLAINED[page.maps.how] ?? ""} ${maps.h} × ${maps.w} cells, interpolated; one scale for all cutouts.`);
  return { parts, toggle, bar: h("div", { class: "tools" }, button, note) };
}

function associations(page, cards, place) {
  const { labels, associations: names } = atlas.about;
  if (!page.associations) return null;
  const all = unpack(page.associations);
  const width = names.length;
  const rows = labels.map((label, i) => Object.fromEntries([["label", label], ...names.map((name, j) => [name, all[i * width + j]])]))
    .filter((row) => !Number.isNaN(row.spearman)).map((row) => ({ ...row, size: Math.abs(row.spearman) }));
  if (rows.length === 0) return null;
  const aligned = page.alignment[0];
  const extremes = Math.max(0.3, ...rows.map((row) => row.size + 0.02));
  const about = ["Spearman's rank correlation over test galaxies with its 95 % interval; the band is where 95 % of unrelated features would fall; q is corrected for all features and labels (Benjamini-Hochberg)."];
  if (aligned?.p_corrected !== null && aligned?.p_corrected !== undefined) {
    about.push(` Of the morphology labels it follows ${readable(aligned.best_label)} best: ρ ${signed(aligned.rho)}; by chance the best of them reaches ${number(aligned.null_mean, 2)}, in one of twenty permutations ${number(aligned.null_q95, 2)} (p ${number(aligned.p_corrected, 2)}).`);
  }
  return section("What it goes with", about.join(""), sortableTable({
    caption: "Associations with labels", file: `${cards.table.name}-${page.feature}-associations`, sortBy: "size", falling: true, shown: 14,
    rows,
    columns: [
      { key: "label", title: "label" },
      { key: "size", title: "ρ", numeric: true, help: "Spearman's rho; sorted by its size", draw: (row) => signed(row.spearman) },
      { key: "spearman", title: "interval", numeric: true, draw: (row) => h("span", { title: `${signed(row.spearman_low)} to ${signed(row.spearman_high)}` }, intervalRow({ value: row.spearman, low: row.spearman_low, high: row.spearman_high, band: 1.96 / Math.sqrt(Math.max(2, row.n - 1)), extremes })) },
      { key: "pearson", title: "Pearson r", numeric: true, draw: (row) => signed(row.pearson) },
      { key: "q", title: "q", numeric: true, draw: (row) => number(row.q, 2) },
      { key: "n", title: "n", numeric: true },
    ],
  }));
}

function partners(page) {
  if (page.partners.length === 0) return null;
  return section("The same feature in other tables", "Features are matched one to one by correlation on train galaxies; r is on test galaxies. p: how often permuted galaxies match as well.",
    h("ul", { class: "partners" }, page.partners.map((each) => {
      const known = tableIndex(each.table) >= 0;
      const name = `${each.table} ${each.partner}`;
      return h("li", {}, known ? h("a", { href: href("feature", each.table, each.partner) }, name) : name,
        intervalRow({ value: each.correlation_test ?? NaN }), h("span", {}, `r ${signed(each.correlation_test)}`), h("span", { class: "quiet" }, `p ${number(each.p, 2)}`));
    })));
}

function equations(page, cards, place) {
  if (page.laws.length === 0) return null;
  const name = cards.names[place];
  return section("Its term in equations", "The scale is the 99th percentile of its activation on train galaxies, so that Â runs from 0 to about 1.",
    h("ul", { class: "laws" }, page.laws.map((law) => {
      const interval = law.low === null ? "" : ` [${number(law.low * law.scale)}, ${number(law.high * law.scale)}]`;
      return h("li", {},
        h("p", { class: "equation" }, `${law.property} = ${number(law.intercept, 4)} + … `, h("b", {}, `${signed(law.coefficient * law.scale, 4)} Â(${name})`), ` … `),
        h("p", { class: "quiet" }, `${law.origin === "head" ? "the network's own head" : "least squares on the best features"}; term ${law.rank + 1} of ${law.n_terms}${interval}${law.share === null ? "" : `, ${percent(law.share)} of the prediction's variance`}; test R² ${number(law.r2_test)}, RMSE ${number(law.rmse_test)}, n = ${law.n_test}`));
    })));
}

function warnings(page, cards, place) {
  const strong = page.nuisances.filter((row) => row.rho !== null).sort((a, b) => Math.abs(b.rho) - Math.abs(a.rho));
  const changes = page.changes.filter((row) => row.change !== null);
  const partial = page.partial.filter((row) => row.rho !== null);
  if (strong.length + changes.length + partial.length === 0) return null;
  const text = cards.warnings[place];
  return section("What else may explain it", null,
    h("p", { class: text ? "warning" : "fine" }, text ? `⚠ ${text}` : "No warning: it neither follows a nuisance nor changes when the cutout is turned."),
    h("div", { class: "columns" },
      strong.length > 0 && h("div", {}, h("h3", {}, "Nuisances"), h("ul", { class: "bars" }, strong.slice(0, 8).map((row) =>
        h("li", {}, h("span", {}, readable(row.nuisance)), intervalRow({ value: row.rho, low: row.low, high: row.high, band: 1.96 / Math.sqrt(Math.max(2, row.n - 1)) }), h("span", {}, signed(row.rho)))))),
      partial.length > 0 && h("div", {}, h("h3", {}, "Mass and colour held fixed"), h("ul", { class: "bars" }, partial.map((row) =>
        h("li", {}, h("span", {}, readable(row.target)), intervalRow({ value: row.partial_rho ?? NaN, low: row.partial_low, high: row.partial_high, band: 1.96 / Math.sqrt(Math.max(2, row.n - 1)) }), h("span", {}, `${signed(row.rho)} → ${signed(row.partial_rho)}`))))),
      changes.length > 0 && h("div", {}, h("h3", {}, "Change when the cutout is …"), h("ul", { class: "bars" }, changes.map((row) =>
        h("li", {}, h("span", {}, row.label), h("span", { class: "meter" }, h("span", { style: { width: `${Math.min(100, 100 * row.change)}%` } })), h("span", {}, percent(row.change))))))));
}

function factors(page, cards, place) {
  const known = atlas.about.labels.map((label, i) => ({ label, rho: rhoOf(cards, place, i) }))
    .filter(({ label, rho }) => label.startsWith("factor_") && !Number.isNaN(rho)).sort((a, b) => Math.abs(b.rho) - Math.abs(a.rho)).slice(0, 6);
  if (known.length === 0 && page.recovery.length + page.localisation.length === 0) return null;
  const parts = [h("ul", { class: "bars" }, known.map(({ label, rho }) => h("li", {}, h("span", {}, readable(label)), intervalRow({ value: rho }), h("span", {}, signed(rho)))))];
  const alone = page.recovery.filter((row) => row.value > 0.02).sort((a, b) => b.value - a.value);
  if (alone.length > 0) {
    parts.push(h("h3", {}, "Of all features it alone predicts best (test R²)"), h("ul", { class: "bars" }, alone.map((row) =>
      h("li", { title: `${number(row.low)} to ${number(row.high)}` }, h("span", {}, row.factor), h("span", { class: "meter" }, h("span", { style: { width: `${100 * row.value}%` } })), h("span", {}, number(row.value))))));
  }
  const places = Map.groupBy ? Map.groupBy(page.localisation, (row) => row.component) : page.localisation.reduce((map, row) => map.set(row.component, [...(map.get(row.component) ?? []), row]), new Map());
  for (const [component, rows] of places) {
    const by = Object.fromEntries(rows.map((row) => [row.metric, row]));
    parts.push(h("p", {}, `Its map has ${percent(by.inside.value)} of its weight on the ${component}, which cover ${percent(by.area.value)} of the cutout (difference [${number(by.inside_minus_area.low, 2)}, ${number(by.inside_minus_area.high, 2)}], n = ${by.inside.n}).`));
  }
  return section("Match with the known factors", "Of a mock galaxy it is known what made it; ρ over test galaxies.", parts);
}

export async function showFeature(main, name, featureText) {
  const index = tableIndex(name);
  if (index < 0) throw new Error(`there is no feature table ${name}`);
  const [cards, all] = await Promise.all([wall(index), galaxies()]);
  const place = cards.place.get(Number(featureText));
  if (place === undefined) throw new Error(`feature ${featureText} of ${name} is not active in any test galaxy, or is no feature`);
  const page = await featurePage(cards, place);
  const column = columnOf(page);
  const given = cards.givenNames.get(page.feature);

  const order = stateOf(index).order ?? orderOf(cards);
  const at = order.indexOf(place);
  const neighbour = (step) => (at < 0 ? undefined : order[at + step]);
  const leading = (step, text, label) => {
    const other = neighbour(step);
    return other === undefined ? h("span", { class: "step-link", "aria-hidden": "true" }, text)
      : h("a", { class: "step-link", href: href("feature", name, cards.features[other]), "aria-label": `${label}: ${cards.names[other]}` }, text);
  };

  const strength = new Map(Array.from(column.rows, (row, i) => [row, column.values[i]]));
  const { parts, toggle, bar } = groupsOf(page, cards, all.ids, strength);
  const most = column.values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
  const shares = new Float32Array(all.ids.length);
  column.rows.forEach((row, i) => { shares[row] = Math.max(0, column.values[i]) / most; });
  const test = atlas.about.splits.indexOf("test");
  const shown = Array.from(all.split, (split) => split === test);
  const { histogram: counts } = page;
  const active = counts.counts.reduce((a, b) => a + b, 0);

  main.replaceChildren(...[
    h("nav", { class: "crumbs", "aria-label": "Where this is" }, h("a", { href: href("features", name) }, `← ${name}`), leading(-1, "‹ previous", "Previous feature"), leading(1, "next ›", "Next feature")),
    h("header", { class: "title" },
      h("h1", {}, cards.names[place], " ", h("span", { class: given?.name ? "own" : "suggested" }, titleOf(cards, place))),
      given?.name && h("p", { class: "quiet" }, `suggested: ${cards.suggested[place]}`),
      given?.note && h("p", { class: "note" }, given.note),
      given?.old && h("p", { class: "warning" }, "⚠ This name was given to another training of the table; its features may mean something else now.")),
    numbersOf(cards, place),
    h("section", { class: "part" }, bar, parts),
    h("div", { class: "columns" },
      section("Activation", `Active in ${active} of ${counts.n_shown} test galaxies.`, histogram({ ...counts, title: `Histogram of the activation of feature ${page.feature}` })),
      factors(page, cards, place)),
    associations(page, cards, place),
    all.planes.length > 0 && section("Its place", "All test galaxies, coloured by activation; inactive ones faint. Point at one to see it, click to open it.",
      h("div", { class: "planes" }, all.planes.map((plane) => scatter({
        plane, strength: shares, shown,
        describe: (row) => `${all.ids[row]}: ${number(strength.get(row) ?? 0)}`,
        preview: (row) => picture(row, all.ids[row]),
        open: (row) => { location.hash = href("galaxy", all.ids[row]); },
      })))),
    partners(page), equations(page, cards, place), warnings(page, cards, place),
    cards.table.is_sparse && h("p", {}, h("a", { href: `${href("query", name)}?f=${page.feature}:0.3` }, "Find galaxies by this feature and others")),
  ].filter(Boolean));
  stateOf(index).at = Math.max(0, at);
  const go = (step) => { const other = neighbour(step); if (other !== undefined) location.hash = href("feature", name, cards.features[other]); };
  return {
    title: `${cards.names[place]} of ${name}`,
    keys: { ArrowLeft: () => go(-1), ArrowRight: () => go(1), m: toggle ?? (() => {}), Escape: () => { location.hash = href("features", name); } },
  };
}
