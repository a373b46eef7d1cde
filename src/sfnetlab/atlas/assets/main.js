// Which page is shown, keys that work everywhere, light and dark.

import { atlas, galaxies, load } from "./data.js";
import { h, href } from "./dom.js";
import { showFeature } from "./feature.js";
import { showGalaxy } from "./galaxy.js";
import { showOverview } from "./overview.js";
import { showOutliers, showQuery } from "./query.js";
import { showWall } from "./wall.js";

const PAGES = {
  "": { part: "overview", show: showOverview },
  features: { part: "features", show: showWall },
  feature: { part: "features", show: showFeature },
  galaxy: { part: "galaxy", show: showGalaxy },
  query: { part: "query", show: (main, name, query) => showQuery(main, name, query) },
  outliers: { part: "outliers", show: showOutliers },
};

const main = document.getElementById("main");
let current = {};
let turn = 0;

function parsed() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  let pieces;
  try {
    pieces = path.split("/").map(decodeURIComponent);
  } catch {
    pieces = [path];
  }
  return { name: pieces[0], pieces: pieces.slice(1), query };
}

async function show() {
  const { name, pieces, query } = parsed();
  const page = Object.hasOwn(PAGES, name) ? PAGES[name] : null;
  turn += 1;
  const own = turn;
  current.leave?.();
  current = {};
  document.querySelectorAll("[data-part]").forEach((link) => {
    if (link.dataset.part === page?.part) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  const started = performance.now();
  // Into a frame of its own: a page that is slow to load must not draw over the one after it.
  const frame = h("div", { class: `page page-${page?.part ?? "none"}` });
  try {
    if (!page) throw new Error(`there is no page ${name}`);
    const shown = (await page.show(frame, ...(page.part === "query" ? [pieces[0], query] : pieces))) ?? {};
    if (own !== turn) { shown.leave?.(); return; }
    current = shown;
  } catch (error) {
    if (own !== turn) return;
    frame.replaceChildren(h("h1", {}, "Not found"), h("p", {}, error.message), h("p", {}, h("a", { href: "#/" }, "Back to the overview")));
  }
  main.replaceChildren(frame);
  document.title = current.title ? `${current.title} · ${atlas.about.experiment}` : `${atlas.about.experiment}: feature atlas`;
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
  current.restore?.();
  main.dataset.shown = location.hash;
  main.dataset.ms = Math.round(performance.now() - started);
}

// --- keys ---

let went = false;
const GO = { o: "#/", f: "#/features", q: "#/query", u: "#/outliers" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  const typing = target.closest?.("input, select, textarea, dialog");
  if (typing) {
    if (event.key === "Escape" && target.matches("input[type=search]")) target.blur();
    return;
  }
  const scrolls = target.closest?.(".scroll, pre") && event.key.startsWith("Arrow");
  if (scrolls) return;
  if (went && GO[event.key]) {
    location.hash = GO[event.key];
    went = false;
    event.preventDefault();
    return;
  }
  went = event.key === "g";
  if (event.key === "?") document.getElementById("help").showModal();
  else if (current.keys?.[event.key]) current.keys[event.key]();
  else if (event.key === "/") document.querySelector(".find input").focus();
  else return;
  event.preventDefault();
});
document.getElementById("keys").addEventListener("click", () => document.getElementById("help").showModal());

document.querySelector(".find").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = event.target.elements.id;
  const text = input.value.trim();
  const { place, ids } = await galaxies();
  const id = place.has(text) ? text : ids.find((each) => text !== "" && each.includes(text));
  if (id === undefined) input.setAttribute("aria-invalid", "true");
  else {
    input.removeAttribute("aria-invalid");
    input.value = "";
    location.hash = href("galaxy", id);
  }
});

// --- light and dark ---

const THEMES = { "": ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };
const button = document.getElementById("theme");

function stored() {
  try {
    return localStorage.getItem("atlas-theme") ?? "";
  } catch {
    return ""; // a page from disk may have no storage
  }
}

function setTheme(theme) {
  const [sign, text] = THEMES[theme];
  document.documentElement.dataset.theme = theme;
  button.textContent = sign;
  button.setAttribute("aria-label", `Colours: ${text}`);
  button.title = `Colours: ${text}`;
}

setTheme(Object.hasOwn(THEMES, stored()) ? stored() : "");
button.addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
  try {
    localStorage.setItem("atlas-theme", next);
  } catch {
    // kept for this page alone
  }
  setTheme(next);
  show();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show());

// --- start ---

load("overview").then((about) => {
  atlas.about = about;
  addEventListener("hashchange", show);
  return show();
}).catch((error) => main.replaceChildren(h("p", {}, error.message)));
