// What the page asks of the server. GETs need no token; every POST has one.

import { h, put } from "./dom.js";
import { visible } from "./text.js";

const KEY = "marl-llm-token";
const JOB_MS = 300;
const GONE_MS = 2000;
const GONE = "The server has stopped; start it again with marl-llm watch.";
export const NO_TOKEN =
  "Playing and asking need the token: open the address that marl-llm watch printed when it was started.";

let token = "";
let gone = false;
const whenBack = new Set();

/** What the server said of a request that it refused. */
export class Refused extends Error {
  constructor(status, body) {
    super(body.error || `The server answered ${status}.`);
    this.status = status;
    this.body = body;
  }
}

/** The server does not answer. */
export class Gone extends Error {}

/** Take the token out of the address bar and keep it for this tab. */
export function takeToken() {
  const found = /[#&]token=([^&]+)/.exec(location.hash);
  if (found) {
    token = decodeURIComponent(found[1]);
    keep(token);
    history.replaceState(null, "", `${location.pathname}#/`);
    return;
  }
  try {
    token = sessionStorage.getItem(KEY) ?? "";
  } catch {
    token = "";
  }
}

function keep(value) {
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // Then it is forgotten when the page is loaded again.
  }
}

export function hasToken() {
  return token !== "";
}

/** Another one with every start of the server. */
export function whichServer() {
  return token;
}

/** `parameters`: those that are null or empty are left out; a list is given once for each. */
export function get(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") query.append(name, one);
    }
  }
  const asked = query.toString();
  return ask(asked ? `${path}?${asked}` : path, {});
}

export function post(path, body) {
  return ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Token": token },
    body: JSON.stringify(body),
  });
}

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, { ...options, cache: "no-store" });
  } catch {
    hasGone();
    throw new Gone(GONE);
  }
  isBack();
  const body = await response
    .json()
    .catch(() => ({ error: `The server answered ${response.status}, and not in JSON.` }));
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

/** Start a job, tell how far it is, and return its result. `tell(job)`; `stopped()`: nobody waits for it any more. */
export async function job(path, body, tell, stopped = () => false) {
  const { job: id } = await post(path, body);
  while (!stopped()) {
    const state = await get("/api/job", { id });
    if (state.state === "done") return state.result;
    if (state.state === "failed") throw new Error(state.error || "It failed, and nobody said why.");
    tell(state);
    await new Promise((wake) => setTimeout(wake, JOB_MS));
  }
  return null;
}

/** How far a job is, in words. */
export function progress(state) {
  const done = state.of ? `${state.done} of ${state.of}` : "";
  return [visible(state.doing) || (state.state === "waiting" ? "waiting" : "working"), done]
    .filter(Boolean)
    .join(", ");
}

/** Call this once the server is back. */
export function onceBack(listener) {
  whenBack.add(listener);
}

function hasGone() {
  if (gone) return;
  gone = true;
  notice("gone", GONE);
  const look = async () => {
    if (!gone) return;
    try {
      await fetch("/api/run", { cache: "no-store" });
      isBack();
    } catch {
      setTimeout(look, GONE_MS);
    }
  };
  setTimeout(look, GONE_MS);
}

function isBack() {
  if (!gone) return;
  gone = false;
  unnotice("gone");
  const listeners = [...whenBack];
  whenBack.clear();
  for (const listener of listeners) listener();
}

/** Show an error where it is seen. An error of the same `kind` takes its place. */
export function notice(kind, text, action = null) {
  const place = document.getElementById("notices");
  unnotice(kind);
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Close this message" }, "\u00d7");
  const line = h("div", { class: "notice", data: { notice: kind } }, h("p", {}, visible(text)), action, close);
  close.addEventListener("click", () => line.remove());
  place.append(line);
}

export function unnotice(kind) {
  for (const line of document.querySelectorAll("[data-notice]")) if (line.dataset.notice === kind) line.remove();
}

/** Show why something could not be had; whether the server is there is told elsewhere. */
export function tellError(place, error) {
  if (error instanceof Gone) return;
  put(place, h("p", { class: "error", role: "alert" }, visible(error.message)));
}
