// Find galaxies by a combination of features, and those that stand out.

import { galaxyCard } from "./cutouts.js";
import { atlas, columnOf, featurePage, galaxies, tableIndex, titleOf, wall } from "./data.js";
import { announce, count, h, href, number, saveCsv } from "./dom.js";

const BATCH = 48;

/** A list of galaxies that grows on demand. */
function gallery(all, file, note) {
  const list = h("ul", { class: "galaxies" });
  const more = h("button", { type: "button", class: "more" });
  const found = h("p", { class: "found", "aria-live": "polite" });
  const save = h("button", { type: "button" }, "Download CSV");
  let entries = [];
  let drawn = 0;
  const extend = () => {
    list.append(...entries.slice(drawn, drawn + BATCH).map(({ row, value }) => h("li", {}, galaxyCard(row, all.ids[row], number(value)))));
    drawn = Math.min(entries.length, drawn + BATCH);
    more.hidden = drawn === entries.length;
    more.textContent = `Show more of ${count(entries.length)}`;
  };
  more.addEventListener("click", extend);
  save.addEventListener("click", () => saveCsv(file(), ["id_str", "split", "value"], entries.map(({ row, value }) => [all.ids[row], atlas.about.splits[all.split[row]], value])));
  const show = (next) => {
    entries = next;
    drawn = 0;
    list.replaceChildren();
    extend();
    found.textContent = `${count(entries.length)} galaxies${note()}`;
    announce(found.textContent);
  };
  return { show, nodes: [h("div", { class: "tools" }, found, save), list, more] };
}

function splitChoice(onchange) {
  const { splits } = atlas.about;
  return h("select", { "aria-label": "Part of the split", onchange }, ["all", ...splits].map((name) => h("option", { value: splits.indexOf(name), selected: name === "all" }, name)));
}

/** "f=17:0.3,20:0": features and the least share of their largest activation; 0 means not active. */
function wanted(query) {
  const text = new URLSearchParams(query).get("f") ?? "";
  return text.split(",").map((part) => part.split(":").map(Number)).filter(([feature, share]) => Number.isInteger(feature) && share >= 0 && share <= 1);
}

export async function showQuery(main, name, query) {
  const usable = atlas.about.tables.map((table, i) => ({ table, i })).filter(({ table }) => table.is_sparse);
  if (usable.length === 0) {
    main.replaceChildren(h("p", {}, "No table of this experiment is sparse."));
    return {};
  }
  const index = name === undefined ? usable[0].i : tableIndex(name);
  if (index < 0 || !atlas.about.tables[index].is_sparse) throw new Error(`there is no sparse feature table ${name}`);
  const [cards, all] = await Promise.all([wall(index), galaxies()]);
  const conditions = [];
  const list = h("ul", { class: "sliders" });
  const result = gallery(all, () => `query-${cards.table.name}`, () => ", the strongest in all chosen features first");
  const split = splitChoice(() => draw());

  const remember = () => {
    const text = conditions.map(({ feature, share }) => `${feature}:${share}`).join(",");
    history.replaceState(null, "", `${href("query", cards.table.name)}${text ? `?f=${text}` : ""}`);
  };
  function draw() {
    const chosen = Number(split.value);
    const scores = new Float32Array(all.ids.length);
    const met = new Uint8Array(all.ids.length);
    for (const { column, share, most } of conditions) {
      if (share === 0) {
        for (let i = 0; i < met.length; i += 1) met[i] += 1;
        column.rows.forEach((row) => { met[row] -= 1; });
      } else {
        column.rows.forEach((row, i) => {
          const strength = column.values[i] / most;
          if (strength >= share) { met[row] += 1; scores[row] += strength; }
        });
      }
    }
    const entries = [];
    if (conditions.length > 0) {
      for (let row = 0; row < met.length; row += 1) {
        if (met[row] === conditions.length && (chosen < 0 || all.split[row] === chosen)) entries.push({ row, value: scores[row] });
      }
    }
    result.show(entries.sort((a, b) => b.value - a.value || a.row - b.row));
  }
  const describe = (share) => (share === 0 ? "not active" : `at least ${Math.round(100 * share)} % of its largest`);
  async function add(feature, share) {
    const place = cards.place.get(feature);
    if (place === undefined || conditions.some((each) => each.feature === feature)) return;
    const column = columnOf(await featurePage(cards, place));
    const condition = { feature, share, column, most: column.values.reduce((a, b) => Math.max(a, b), 0) || 1 };
    conditions.push(condition);
    const output = h("output", {}, describe(share));
    const label = `${cards.names[place]} ${titleOf(cards, place)}`;
    const item = h("li", {},
      h("a", { href: href("feature", cards.table.name, feature) }, label),
      h("input", { type: "range", min: 0, max: 1, step: 0.05, value: share, "aria-label": `Least activation of ${label}`, oninput: (event) => {
        condition.share = Number(event.target.value);
        output.textContent = describe(condition.share);
        draw();
      }, onchange: remember }),
      output,
      h("button", { type: "button", "aria-label": `Remove ${label}`, onclick: () => { conditions.splice(conditions.indexOf(condition), 1); item.remove(); remember(); draw(); } }, "×"));
    list.append(item);
  }
  const options = h("datalist", { id: "features-to-add" }, Array.from(cards.features, (feature, place) => h("option", { value: cards.names[place] }, titleOf(cards, place))));
  const picker = h("input", { type: "search", id: "search", class: "wide", list: "features-to-add", placeholder: "Add a feature: its name or number", "aria-label": "Add a feature", autocomplete: "off" });
  const form = h("form", { class: "tools", onsubmit: async (event) => {
    event.preventDefault();
    const text = picker.value.trim();
    const place = cards.names.indexOf(text);
    const feature = place >= 0 ? cards.features[place] : Number(text.replace(/^\D+/, ""));
    if (text === "" || !cards.place.has(feature)) { announce(`no feature ${text}`); picker.setAttribute("aria-invalid", "true"); return; }
    picker.removeAttribute("aria-invalid");
    picker.value = "";
    await add(feature, 0.3);
    remember();
    draw();
  } }, picker, options, h("button", {}, "Add"));
  main.replaceChildren(h("h1", {}, "Query"),
    h("nav", { class: "tabs", "aria-label": "Feature tables" }, usable.map(({ table, i }) => h("a", { href: href("query", table.name), "aria-current": i === index ? "page" : undefined }, table.name))),
    h("p", { class: "about" }, "Galaxies that have all of these features, each at least as strong as its slider says; a slider at zero asks for galaxies without it."),
    form, list, h("div", { class: "tools" }, h("label", {}, "part of the split ", split)), ...result.nodes);
  const start = wanted(query);
  for (const [feature, share] of start.length > 0 ? start : Array.from(cards.features.slice(0, 1), (feature) => [feature, 0.3])) await add(feature, share);
  draw();
  return { title: "Query", keys: { "/": () => picker.focus() } };
}

export async function showOutliers(main, which) {
  const all = await galaxies();
  if (all.oddities.length === 0) {
    main.replaceChildren(h("h1", {}, "Outliers"), h("p", {}, "This experiment has neither a network with a head nor a sparse table."));
    return {};
  }
  const at = Math.max(0, all.oddities.findIndex(({ name }) => name === which));
  const odd = all.oddities[at];
  const result = gallery(all, () => odd.name.replace(/\W+/g, "-"), () => `, largest first${odd.unit ? ` [${odd.unit}]` : ""}`);
  const split = splitChoice(() => draw());
  function draw() {
    const chosen = Number(split.value);
    const entries = [];
    odd.values.forEach((value, row) => { if (!Number.isNaN(value) && (chosen < 0 || all.split[row] === chosen)) entries.push({ row, value }); });
    result.show(entries.sort((a, b) => b.value - a.value));
  }
  main.replaceChildren(h("h1", {}, "Outliers"),
    h("nav", { class: "tabs", "aria-label": "What stands out" }, all.oddities.map(({ name }, i) => h("a", { href: href("outliers", name), "aria-current": i === at ? "page" : undefined }, name))),
    h("p", { class: "about" }, odd.explanation), h("div", { class: "tools" }, h("label", {}, "part of the split ", split)), ...result.nodes);
  draw();
  return { title: "Outliers" };
}

