// A table that is sorted by its headers, filtered by words, and saved as CSV.

import { announce, h, number, saveCsv } from "./dom.js";

/**
 * `columns`: [{ key, title, numeric?, draw?(row) -> Node | text, help? }]; `rows`: objects by key.
 * `shown`: rows at first; a button shows all.
 */
export function sortableTable({ caption, columns, rows, file, sortBy = null, falling = false, shown = 60, filter = true }) {
  const state = { sortBy, falling, words: "", all: false };
  const body = h("tbody", {});
  const more = h("button", { type: "button", class: "more", onclick: () => { state.all = true; draw(); } });
  const heads = columns.map((column) => {
    const button = h("button", { type: "button", title: column.help, onclick: () => {
      state.falling = state.sortBy === column.key ? !state.falling : Boolean(column.numeric);
      state.sortBy = column.key;
      draw();
      announce(`sorted by ${column.title}, ${state.falling ? "falling" : "rising"}`);
    } }, column.title);
    return h("th", { scope: "col", class: column.numeric ? "numeric" : undefined }, button);
  });
  const known = rows.map((row) => ({
    row,
    text: columns.map((column) => String(row[column.key] ?? "")).join(" ").toLowerCase(),
  }));

  function ordered() {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = known.filter(({ text }) => words.every((word) => text.includes(word))).map(({ row }) => row);
    if (state.sortBy === null) return kept;
    const empty = (value) => value === null || value === undefined || Number.isNaN(value);
    const sign = state.falling ? -1 : 1;
    return kept.sort(({ [state.sortBy]: a }, { [state.sortBy]: b }) => {
      if (empty(a) || empty(b)) return Number(empty(a)) - Number(empty(b));
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    });
  }

  function draw() {
    const found = ordered();
    const visible = state.all ? found : found.slice(0, shown);
    body.replaceChildren(...visible.map((row) => h("tr", {}, columns.map((column, i) => {
      const value = column.draw ? column.draw(row) : column.numeric ? number(row[column.key]) : row[column.key] ?? "–";
      return h(i === 0 ? "th" : "td", { scope: i === 0 ? "row" : undefined, class: column.numeric ? "numeric" : undefined }, value);
    }))));
    more.hidden = visible.length === found.length;
    more.textContent = `Show all ${found.length} rows`;
    heads.forEach((head, i) => {
      const own = state.sortBy === columns[i].key;
      head.setAttribute("aria-sort", own ? (state.falling ? "descending" : "ascending") : "none");
    });
  }

  draw();
  const tools = h("div", { class: "tools" },
    filter && h("input", { type: "search", placeholder: "Filter", "aria-label": `Filter: ${caption}`, oninput: (event) => { state.words = event.target.value; draw(); } }),
    h("button", { type: "button", onclick: () => saveCsv(file, columns.map((column) => column.key), ordered().map((row) => columns.map((column) => row[column.key]))) }, "Download CSV"));
  return h("div", { class: "sortable" }, tools,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
      h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, heads)), body)), more);
}
