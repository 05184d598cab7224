// The address after #: a path, and what is chosen there, so that every view can be linked and `back` works.

let listener = () => {};

/** {path: "/episode/s1/g0/m0", query: {turn: "2"}}. */
export function current() {
  const hash = location.hash.startsWith("#/") ? location.hash.slice(1) : "/";
  const cut = hash.indexOf("?");
  return {
    path: cut < 0 ? hash : hash.slice(0, cut),
    query: Object.fromEntries(new URLSearchParams(cut < 0 ? "" : hash.slice(cut + 1))),
  };
}

/** The address of a path; what is empty in `query` is left out. */
export function path(where, query = {}) {
  const told = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(told).toString();
  return `#${where}${text ? `?${text}` : ""}`;
}

/** The address of an episode, whose id may hold anything. */
export function episodePath(id, query = {}) {
  return path(`/episode/${String(id).split("/").map(encodeURIComponent).join("/")}`, query);
}

/** The id in such an address. */
export function episodeId(where) {
  try {
    return where.slice("/episode/".length).split("/").map(decodeURIComponent).join("/");
  } catch {
    return where.slice("/episode/".length);
  }
}

/** Change what is chosen; `replace`: without a new entry in the history. */
export function choose(changes, { replace = false } = {}) {
  const { path: where, query } = current();
  const address = path(where, { ...query, ...changes });
  if (address === location.hash) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  listener(current());
}

/** Call `show(route)` whenever the address changes. */
export function listen(show) {
  listener = show;
  window.addEventListener("hashchange", () => {
    // The address that the server printed, opened once more in this tab.
    if (location.hash.includes("token=") && !location.hash.startsWith("#/")) location.reload();
    if (location.hash.startsWith("#/") || location.hash === "") show(current());
  });
}
