// The first page: the experiment, the comparison, methods side by side at equal sparsity, claims.

import { budgetChart, WORST } from "./charts.js";
import { methodColours } from "./colour.js";
import { atlas } from "./data.js";
import { count, h, href, number, section } from "./dom.js";
import { sortableTable } from "./sortable.js";

function records({ columns, rows }) {
  return rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i]])));
}

const MARKERS = ["circle", "square", "triangle", "diamond"];

function overTheBudget(rows, probe) {
  const colour = methodColours();
  const ks = new Map();
  for (const { features, k } of rows) if (k !== null) ks.set(features, [...new Set([...(ks.get(features) ?? []), k])].sort((a, b) => a - b));
  const groups = new Map();
  for (const row of rows) {
    if (row.probe !== probe || row.n_features_used < 1) continue;
    const name = row.k === null ? row.features : `${row.features} k=${row.k}`;
    if (!groups.has(name)) groups.set(name, { name, colour: colour.get(row.features), marker: MARKERS[Math.max(0, (ks.get(row.features) ?? []).indexOf(row.k)) % MARKERS.length], dash: row.supervised ? undefined : "6 3", points: [] });
    groups.get(name).points.push({
      x: row.n_features_used, y: row.rmse, low: row.low, high: row.high,
      title: `${name}, ${row.n_features_used} features in all: ${number(row.rmse, 4)} ${row.low === null ? "(one run: no interval)" : `[${number(row.low, 4)}, ${number(row.high, 4)}]`}`,
    });
  }
  const levels = atlas.about.levels.filter((level) => level.target === rows[0].target && level.column === rows[0].column)
    .map(({ name, rmse }) => ({ name, y: rmse }));
  return budgetChart({
    curves: [...groups.values()], levels,
    xLabel: "features used in all", yLabel: `test RMSE of ${rows[0].column}`,
    title: `Test RMSE of ${rows[0].column} against the number of features used, for each method`,
  });
}

/** Every method that uses as many features, ordered by its error. */
function atEqualSparsity(rows) {
  const largest = new Map();
  const run = (row) => `${row.features}/${row.k}`;
  for (const row of rows) largest.set(run(row), Math.max(largest.get(run(row)) ?? 0, row.n_features_used));
  const marked = rows.map((row) => ({ ...row, isWhole: row.n_features_used === largest.get(run(row)) }));
  const wholes = [
    ...[...new Set(marked.map((row) => row.k).filter((k) => k !== null))].sort((a, b) => a - b)
      .map((k) => ({ name: `${k} active features a galaxy (L0), all features in use`, keep: (row) => row.k === k && row.isWhole })),
    ...[...new Set(marked.filter((row) => !row.isWhole && row.n_features_used > 0).map((row) => row.n_features_used))].sort((a, b) => a - b)
      .map((n) => ({ name: `${n} features in all`, keep: (row) => row.n_features_used === n && !row.isWhole })),
  ];
  if (wholes.length === 0) return null;
  const colour = methodColours();
  const list = h("ol", { class: "ladder" });
  const draw = (choice) => {
    const best = new Map();
    for (const row of marked.filter(choice.keep)) {
      const name = `${row.features}${row.k === null ? "" : ` k=${row.k}`}`;
      if (!best.has(name) || row.rmse < best.get(name).rmse) best.set(name, row);
    }
    const chosen = [...best.entries()].sort(([, a], [, b]) => a.rmse - b.rmse);
    const [low, high] = [Math.min(...chosen.map(([, row]) => row.low ?? row.rmse)), Math.max(...chosen.map(([, row]) => row.high ?? row.rmse))];
    const x = (value) => `${(100 * (value - low)) / (high - low || 1)}%`;
    list.replaceChildren(...chosen.map(([name, row]) => h("li", {},
      h("span", { class: "name" }, name, row.supervised && h("abbr", { title: "its features were trained on a label" }, " *")),
      h("span", { class: "track" },
        row.low !== null && h("span", { class: "range", style: { left: x(row.low), width: `${(100 * (row.high - row.low)) / (high - low || 1)}%`, "background-color": colour.get(row.features) } }),
        h("span", { class: "dot", style: { left: x(row.rmse), "background-color": colour.get(row.features) } })),
      h("span", { class: "value" }, `${number(row.rmse, 4)} (${row.probe})`))));
  };
  const select = h("select", { "aria-label": "Sparsity", onchange: () => draw(wholes[select.selectedIndex]) }, wholes.map(({ name }) => h("option", {}, name)));
  draw(wholes[0]);
  return section("Side by side at equal sparsity",
    "Test RMSE with its 95 % interval over galaxies and runs, by the best probe of each method; * features that were trained on a label.", select, list);
}

function tableCards() {
  const colour = methodColours();
  return h("ul", { class: "tables" }, atlas.about.tables.map((table) => h("li", {},
    h("a", { href: href("features", table.name), style: { "border-color": colour.get(table.features) } },
      h("strong", {}, table.name),
      h("span", {}, `${count(table.n_features)} features of ${count(table.n_all)} are active${table.k ? `, at most ${table.k} a galaxy` : ""}`),
      table.best.length > 0 && h("span", {}, `most follow ${table.best.join(", ")}`)))));
}

function claims() {
  const { claims: all } = atlas.about;
  if (all.length === 0) return null;
  return section("Claims of the papers", "What each claim says, and what this survey says of it by a rule written beforehand.",
    sortableTable({
      caption: "Claims", file: "claims", filter: false,
      columns: [
        { key: "statement", title: "claim" }, { key: "source", title: "whose" },
        { key: "verdict", title: "here", draw: (row) => h("span", { class: `verdict ${row.verdict.replace(/ /g, "-")}` }, row.verdict) },
      ],
      rows: all,
    }));
}

export function showOverview(main) {
  const { about } = atlas;
  const rows = records(about.comparison);
  const groups = [...new Set(rows.map((row) => `${row.target}\n${row.column}`))];
  const { galaxies } = about;
  const parts = [h("header", { class: "title" }, h("h1", {}, about.experiment),
    h("p", {}, `${count(galaxies.n)} galaxies${galaxies.n < galaxies.n_survey ? ` of ${count(galaxies.n_survey)}` : ""}, of which ${count(galaxies.n_test)} are test galaxies: what is said of features is told by these alone, which nothing was fitted on.`))];
  parts.push(section("Features", null, tableCards()));
  for (const group of groups) {
    const own = rows.filter((row) => `${row.target}\n${row.column}` === group);
    const probes = [...new Set(own.filter((row) => row.probe && row.probe !== "none" && row.n_features_used > 0).map((row) => row.probe))];
    const chart = h("div", {});
    const draw = (probe) => chart.replaceChildren(overTheBudget(own, probe));
    // the probe that is fitted to budgets too has the most scores, and most to show over them
    const nScores = (probe) => own.filter((row) => row.probe === probe).length;
    const first = probes.reduce((best, probe) => (nScores(probe) > nScores(best) ? probe : best), probes[0]);
    const select = h("select", { "aria-label": "Probe", onchange: (event) => draw(event.target.value) }, probes.map((probe) => h("option", { selected: probe === first }, probe)));
    draw(first);
    const title = groups.length > 1 ? `Comparison: ${own[0].column} (${own[0].target})` : `Comparison: ${own[0].column}`;
    parts.push(section(title, `Test error against the number of features in use in all; dashed: features that never saw a label. Errors above ${WORST} times that of the mean stand at the upper edge.`,
      h("label", { class: "choice" }, "probe ", select), chart));
    const side = atEqualSparsity(own);
    if (side) parts.push(side);
    parts.push(h("details", {}, h("summary", {}, `All ${own.length} scores of ${own[0].column}`), sortableTable({
      caption: `Scores of ${own[0].column}`, file: `comparison-${own[0].target}-${own[0].column}`, sortBy: "rmse", rows: own.filter((row) => row.features),
      columns: [
        { key: "features", title: "features" }, { key: "kind", title: "kind", draw: (row) => about.kinds[row.kind]?.label ?? "" },
        { key: "k", title: "L0", numeric: true, help: "features active for each galaxy" },
        { key: "n_features_used", title: "in all", numeric: true, help: "features used for the whole sample" },
        { key: "probe", title: "probe" }, { key: "rmse", title: "RMSE", numeric: true, draw: (row) => number(row.rmse, 4) },
        { key: "low", title: "low", numeric: true, draw: (row) => number(row.low, 4) }, { key: "high", title: "high", numeric: true, draw: (row) => number(row.high, 4) },
        { key: "n_seeds", title: "seeds", numeric: true }, { key: "seed_sd", title: "sd over seeds", numeric: true }, { key: "galaxy_sd", title: "sd over galaxies", numeric: true },
      ],
    })));
  }
  const classes = records(about.classes);
  if (classes.length > 0) {
    parts.push(section("Classes", "Test scores of classifiers.", sortableTable({
      caption: "Scores of classes", file: "classes", sortBy: "auc", falling: true, rows: classes,
      columns: [
        { key: "target", title: "classes" }, { key: "features", title: "features" }, { key: "k", title: "L0", numeric: true },
        { key: "n_features_used", title: "in all", numeric: true }, { key: "probe", title: "classifier" },
        { key: "auc", title: "AUC", numeric: true }, { key: "auc_low", title: "low", numeric: true }, { key: "auc_high", title: "high", numeric: true },
        { key: "f1", title: "F1", numeric: true }, { key: "accuracy", title: "accuracy", numeric: true },
      ],
    })));
  }
  parts.push(claims());
  if (about.config) parts.push(h("details", {}, h("summary", {}, "Settings"), h("pre", { tabindex: 0 }, about.config)));
  main.replaceChildren(...parts.filter(Boolean));
}
