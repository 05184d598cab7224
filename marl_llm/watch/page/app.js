// Routes, keys, and the line at the top that says how the run goes.

import { Gone, get, notice, onceBack, takeToken, unnotice } from "./api.js";
import { h, put } from "./dom.js";
import * as episode from "./episode.js";
import * as episodes from "./episodes.js";
import * as play from "./play.js";
import { current, listen, path } from "./route.js";
import { store } from "./store.js";
import { number, shown, visible } from "./text.js";

const LIVE_MS = 4000;
const ENDED_MS = 15000;

const main = document.getElementById("main");
const help = document.getElementById("help");
/** What is shown: {update(route), leave(), run(), keys: {j, k, ...}}; all of them may be missing. */
let page = null;
let shownPath = null;
let timer = 0;

function pageOf(route) {
  if (route.path.startsWith("/episode/")) return episode;
  return route.path === "/play" ? play : episodes;
}

function show(route) {
  if (store.run === null) return;
  if (route.path === shownPath && page) {
    page.update?.(route);
    return;
  }
  page?.leave?.();
  const first = shownPath === null;
  shownPath = route.path;
  const module = pageOf(route);
  mark("nav-episodes", module === episodes);
  mark("nav-play", module === play);
  window.scrollTo(0, 0);
  page = module.open(main, route);
  document.title = `${page.title ?? "Episodes"} \u2013 marl-llm watch`;
  if (!first) main.focus({ preventScroll: true });
}

function mark(id, here) {
  const link = document.getElementById(id);
  if (here) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    store.run = await get("/api/run");
    unnotice("run");
    top();
    if (page === null) show(current());
    else page.run?.();
  } catch (error) {
    if (!(error instanceof Gone)) notice("run", error.message);
  }
  const busy = store.run === null || store.run.live || store.run.indexed.files < store.run.indexed.of;
  clearTimeout(timer);
  timer = setTimeout(poll, busy ? LIVE_MS : ENDED_MS);
}

function top() {
  const { name, path: where, step, steps, live } = store.run;
  const title = document.getElementById("run-name");
  put(title, shown(name));
  title.title = visible(where);
  put(
    document.getElementById("run-state"),
    h("span", { class: live ? "live on" : "live", id: "live" }, live ? "live" : "ended"),
    ` step ${number(step)} of ${number(steps)} `,
    h("progress", { value: step, max: steps, "aria-label": "steps of the run" }),
  );
}

function typing(target) {
  return target.closest("input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable]");
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (!help.open && page?.keys?.Escape?.()) event.preventDefault();
    return;
  }
  if (help.open || typing(event.target)) return;
  if (event.key === "?") {
    help.showModal();
    event.preventDefault();
  } else if (event.key === "/") {
    event.preventDefault();
    search();
  } else if (page?.keys?.[event.key]?.(event)) {
    event.preventDefault();
  }
}

async function search() {
  if (!document.getElementById("filter-text")) location.hash = path("/");
  for (let tries = 0; tries < 40; tries += 1) {
    const input = document.getElementById("filter-text");
    if (input) {
      input.closest("details")?.setAttribute("open", "");
      input.focus();
      input.select();
      return;
    }
    await new Promise((wake) => setTimeout(wake, 50));
  }
}

takeToken();
document.addEventListener("keydown", key);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
document.getElementById("nav-help").addEventListener("click", () => help.showModal());
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
listen(show);
await poll();
if (store.run === null) {
  put(main, h("p", { class: "muted" }, "Nothing to show yet."));
  onceBack(poll);
}
