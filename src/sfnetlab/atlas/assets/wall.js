// The wall: a card for each feature of a table; sort, search, move by keys.

import { mosaic } from "./cutouts.js";
import { atlas, readable, rhoOf, tableIndex, titleOf, wall } from "./data.js";
import { announce, count, h, href, number, percent, saveCsv, signed } from "./dom.js";

const BATCH = 48;

/** The order and search of each wall, kept while the atlas is open: a feature's page steps through it. */
const states = new Map();

export function stateOf(index) {
  if (!states.has(index)) states.set(index, { sort: "frequency", falling: true, words: "", warned: "all", order: null, at: 0 });
  return states.get(index);
}

function valuesOf(cards, key) {
  if (key.startsWith("rho:")) {
    const label = Number(key.slice(4));
    return Float32Array.from(cards.features, (_, place) => rhoOf(cards, place, label));
  }
  if (key === "|rho|") return Float32Array.from(cards.features, (_, place) => Math.abs(rhoOf(cards, place, cards.best[place])));
  if (key === "warning") return Float32Array.from(cards.warnings, (text) => Number(text !== ""));
  if (key === "feature") return Float32Array.from(cards.features);
  return cards.numbers.find((each) => each.key === key)?.values;
}

/** Places of the cards that are shown, in order. */
export function orderOf(cards) {
  const state = stateOf(cards.index);
  const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
  const values = valuesOf(cards, state.sort) ?? valuesOf(cards, "feature");
  const kept = [];
  for (let place = 0; place < cards.features.length; place += 1) {
    if (state.warned === "with" && !cards.warnings[place]) continue;
    if (state.warned === "without" && cards.warnings[place]) continue;
    if (words.length > 0) {
      const given = cards.givenNames.get(cards.features[place]);
      const best = atlas.about.labels[cards.best[place]] ?? "";
      const text = `${cards.names[place]} ${cards.features[place]} ${cards.suggested[place]} ${best} ${readable(best)} ${given?.name ?? ""} ${given?.note ?? ""} ${cards.warnings[place]}`.toLowerCase();
      if (!words.every((word) => text.includes(word))) continue;
    }
    kept.push(place);
  }
  const sign = state.falling ? -1 : 1;
  const size = state.sort.startsWith("rho:") ? Math.abs : (value) => value;
  kept.sort((a, b) => {
    const [x, y] = [values[a], values[b]];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y)) || a - b;
    return sign * (size(x) - size(y)) || a - b;
  });
  state.order = kept;
  return kept;
}

function card(cards, place, shownNumber) {
  const feature = cards.features[place];
  const given = cards.givenNames.get(feature);
  const best = cards.best[place];
  const value = valuesOf(cards, shownNumber.key)?.[place];
  return h("li", {},
    h("a", { class: "card", href: href("feature", cards.table.name, feature), tabindex: -1, "data-place": place },
      mosaic(cards, place),
      h("span", { class: "card-name" }, h("b", {}, cards.names[place]), " ", h("span", { class: given?.name ? "own" : "suggested" }, titleOf(cards, place))),
      h("span", { class: "card-facts" },
        best >= 0 && h("span", { title: `Spearman's rho with ${atlas.about.labels[best]}` }, `ρ ${signed(rhoOf(cards, place, best))}`),
        shownNumber.key.startsWith("rho:")
          ? h("span", { class: "chosen" }, `${readable(atlas.about.labels[Number(shownNumber.key.slice(4))])} ${signed(value)}`)
          : ["|rho|", "feature", "warning"].includes(shownNumber.key) ? null
            : h("span", { class: "chosen" }, `${shownNumber.title} ${shownNumber.key === "frequency" ? percent(value) : number(value)}`)),
      cards.warnings[place] && h("span", { class: "warning", title: cards.warnings[place] }, "⚠ ", cards.warnings[place])));
}

function download(cards) {
  const order = orderOf(cards);
  const columns = ["feature", "name", "suggested", "own_name", "note", "best_label", "rho", "warning", ...cards.numbers.map((each) => each.key)];
  saveCsv(cards.table.name, columns, order.map((place) => {
    const given = cards.givenNames.get(cards.features[place]);
    const best = cards.best[place];
    return [cards.features[place], cards.names[place], cards.suggested[place], given?.name ?? "", given?.note ?? "",
      atlas.about.labels[best] ?? "", best >= 0 ? rhoOf(cards, place, best) : NaN, cards.warnings[place], ...cards.numbers.map((each) => each.values[place])];
  }));
}

export async function showWall(main, name) {
  const { tables, labels } = atlas.about;
  if (tables.length === 0) {
    main.replaceChildren(h("p", {}, "This experiment has no feature tables to show."));
    return {};
  }
  const index = name === undefined ? 0 : tableIndex(name);
  if (index < 0) throw new Error(`there is no feature table ${name}`);
  const cards = await wall(index);
  const state = stateOf(index);

  const choices = [
    ...cards.numbers.map(({ key, title }) => ({ key, title })),
    { key: "|rho|", title: "correlation with its best label" },
    { key: "warning", title: "warning" },
    { key: "feature", title: "number" },
    ...labels.map((label, i) => ({ key: `rho:${i}`, title: label, group: "correlation with" })),
  ];
  const option = (choice) => h("option", { value: choice.key, selected: choice.key === state.sort }, choice.title);
  const select = h("select", { id: "sort", onchange: () => { state.sort = select.value; state.falling = state.sort !== "feature" && state.sort !== "p_corrected"; redraw(); } },
    choices.filter((choice) => !choice.group).map(option),
    h("optgroup", { label: "correlation with" }, choices.filter((choice) => choice.group).map(option)));
  const turn = h("button", { type: "button", class: "turn", onclick: () => { state.falling = !state.falling; redraw(); } });
  const search = h("input", { type: "search", id: "search", placeholder: "Search names and labels", "aria-label": "Search features by name or label", value: state.words, oninput: () => { state.words = search.value; redraw(); } });
  const warned = h("select", { "aria-label": "Warnings", onchange: () => { state.warned = warned.value; redraw(); } },
    [["all", "all"], ["without", "without a warning"], ["with", "with a warning"]].map(([value, text]) => h("option", { value, selected: state.warned === value }, text)));
  const found = h("span", { class: "found" });
  const list = h("ul", { class: "wall" });
  const end = h("div", { class: "end" });
  const tabs = h("nav", { class: "tabs", "aria-label": "Feature tables" }, tables.map((table, i) =>
    h("a", { href: href("features", table.name), "aria-current": i === index ? "page" : undefined }, table.name)));
  const about = tables[index];
  main.replaceChildren(
    h("h1", {}, "Features"), tabs,
    h("p", { class: "about" }, `${count(about.n_features)} of ${count(about.n_all)} features are active in at least one of ${count(about.n_described)} test galaxies${about.columns.length ? ` with ${about.columns.join(", ")}` : ""}. Each card shows the strongest of these.`),
    h("div", { class: "tools" }, search, h("label", {}, "sort by ", select), turn, h("label", {}, "show ", warned), found,
      h("button", { type: "button", onclick: () => download(cards) }, "Download CSV")),
    list, end);

  let order = [];
  let drawn = 0;
  const shownNumber = () => choices.find((choice) => choice.key === state.sort) ?? choices[0];
  const extend = (upTo = drawn + BATCH) => {
    const next = order.slice(drawn, upTo);
    list.append(...next.map((place) => card(cards, place, shownNumber())));
    drawn += next.length;
    end.hidden = drawn >= order.length;
  };
  const roving = (at) => {
    list.querySelector('.card[tabindex="0"]')?.setAttribute("tabindex", -1);
    list.children[at]?.firstElementChild.setAttribute("tabindex", 0);
    state.at = at;
  };
  function redraw(at = 0) {
    order = orderOf(cards);
    drawn = 0;
    list.replaceChildren();
    extend(Math.max(BATCH, at + BATCH / 2));
    roving(at);
    turn.textContent = state.falling ? "↓ falling" : "↑ rising";
    turn.setAttribute("aria-label", `Order: ${state.falling ? "falling" : "rising"}`);
    found.textContent = `${count(order.length)} features`;
    announce(`${order.length} features, sorted by ${shownNumber().title}`);
  }
  redraw(state.order ? Math.min(state.at, Math.max(0, cards.features.length - 1)) : 0);
  const watcher = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) extend(); }, { rootMargin: "800px" });
  watcher.observe(end);

  const move = (step) => {
    const at = Math.max(0, Math.min(order.length - 1, state.at + step));
    if (at >= drawn) extend(at + BATCH);
    roving(at);
    const link = list.children[at]?.firstElementChild;
    link?.focus();
    link?.scrollIntoView({ block: "nearest" });
  };
  list.addEventListener("focusin", (event) => {
    const at = [...list.children].indexOf(event.target.closest("li"));
    if (at >= 0) roving(at);
  });
  const across = () => {
    const tops = [...list.children].slice(0, 24).map((item) => item.offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  };
  const back = list.children[state.at]?.firstElementChild;
  return {
    title: `Features of ${about.name}`,
    restore: () => { if (state.at > 0) { back?.focus({ preventScroll: true }); back?.scrollIntoView({ block: "center" }); } },
    keys: {
      ArrowRight: () => move(1), ArrowLeft: () => move(-1), ArrowDown: () => move(across()), ArrowUp: () => move(-across()),
      Home: () => move(-Infinity), "/": () => search.focus(),
    },
    leave: () => watcher.disconnect(),
  };
}
