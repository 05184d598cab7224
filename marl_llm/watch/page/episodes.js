// The first page: how the run goes, and its episodes, filtered.

import { get, notice, onceBack, tellError, Gone, unnotice } from "./api.js";
import { figures } from "./curves.js";
import { choice, field, h, put, say } from "./dom.js";
import { choose, current, episodePath, path } from "./route.js";
import { store } from "./store.js";
import { counted, number, shown, signed, visible } from "./text.js";

const PAGE = 50;
const SEATS = 6;
const TYPING_MS = 300;
const CURVES_MS = 10000;
// How the page is kept cheap for a run that goes on: times as long as the last answer took, and at least this long.
const REST_TIMES = 100;
const REST_MS = 2000;
const PATIENCE_MS = 10000;
const OUTCOMES = [
  ["won", "won"],
  ["drew", "drew"],
  ["lost", "lost"],
  ["illegal", "with an illegal move"],
  ["truncated", "truncated"],
  ["fault", "at fault"],
  ["right", "right answer"],
  ["wrong", "wrong answer"],
];
const ORDERS = [
  ["newest", "newest first"],
  ["oldest", "oldest first"],
  ["best", "best return first"],
  ["worst", "worst return first"],
  ["longest", "longest first"],
];
const KINDS = [
  ["logged", "played in training"],
  ["branch", "what if"],
  ["played", "played here"],
];
const FILTERS = ["game", "role", "policy", "outcome", "from", "to", "alarm", "text", "kind", "order"];
export const title = "Episodes";

/** Show it in `main`. */
export function open(main, route) {
  const curves = h("div", { class: "charts", id: "curves" });
  const alarms = h("div", { id: "alarms" });
  const problems = h("div", { id: "problems" });
  const form = h("form", { class: "filters", id: "filters", role: "search", "aria-label": "Episodes" });
  const count = h("p", { class: "count", id: "count" });
  const fresh = h("div", { id: "fresh" });
  const results = h("div", { id: "results" });
  const pages = h("nav", { class: "pages", id: "pages", "aria-label": "Pages of episodes" });
  let query = route.query;
  let known = null;
  let asked = 0;
  let drawnAt = -Infinity;
  let drawnStep = null;
  let offered = "";
  let unfolded = false;
  let left = false;
  let restUntil = 0;
  let alarmsTold = "";

  form.addEventListener("submit", (event) => event.preventDefault());
  put(
    main,
    h("h1", { class: "unseen" }, "Episodes"),
    curves,
    alarms,
    problems,
    h("section", { "aria-label": "Episodes" }, form, h("div", { class: "over" }, count, fresh), results, pages),
  );

  function set(changes, replace = false) {
    choose({ ...changes, offset: null }, { replace });
  }

  function filters() {
    const run = store.run;
    const names = (list) => [["", "any"], ...list.map((one) => [one, visible(one)])];
    const games = Object.keys(run.games);
    const telling = JSON.stringify([games, run.roles, run.seen_policies, run.alarms.map((alarm) => alarm.name)]);
    if (telling === offered) return;
    if (form.contains(document.activeElement)) return;
    offered = telling;
    const pick = (name, label, options) => {
      const unknown = query[name] && !options.some(([value]) => value === query[name]);
      const all = unknown ? [...options, [query[name], visible(query[name])]] : options;
      return choice(`filter-${name}`, label, all, query[name] ?? options[0][0], (value) =>
        set({ [name]: value === options[0][0] ? null : value }),
      );
    };
    const typed = (name, label, attributes) => {
      let wait = 0;
      const input = h("input", {
        id: `filter-${name}`,
        name,
        value: query[name] ?? "",
        autocomplete: "off",
        ...attributes,
        on: {
          input: () => {
            clearTimeout(wait);
            wait = setTimeout(() => set({ [name]: input.value }, true), TYPING_MS);
          },
        },
      });
      return field(`filter-${name}`, label, input);
    };
    const rest = h("div", { class: "rest", id: "filter-rest" });
    const more = h(
      "button",
      {
        type: "button",
        class: "quiet more-filters",
        "aria-controls": "filter-rest",
        on: {
          click: () => {
            unfolded = !unfolded;
            unfold();
          },
        },
      },
      "All filters",
    );
    const unfold = () => {
      more.setAttribute("aria-expanded", String(unfolded));
      rest.classList.toggle("open", unfolded);
    };
    unfolded ||= FILTERS.some((name) => name !== "text" && query[name]);
    unfold();
    put(
      form,
      typed("text", "Text", { type: "search", placeholder: "in what was seen or said", class: "wide" }),
      more,
      rest,
    );
    put(
      rest,
      pick("game", "Game", names(games)),
      pick("role", "Role", names(run.roles)),
      pick("policy", "Policy", names(run.seen_policies)),
      pick("outcome", "Outcome", [["", "any"], ...OUTCOMES]),
      typed("from", "From step", { inputmode: "numeric", size: 6 }),
      typed("to", "To step", { inputmode: "numeric", size: 6 }),
      pick("alarm", "Alarm", names(run.alarms.map((alarm) => alarm.name))),
      pick("kind", "Kind", [["", "any"], ...KINDS]),
      pick("order", "Order", ORDERS),
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          id: "filter-clear",
          on: { click: () => set(Object.fromEntries(FILTERS.map((name) => [name, null]))) },
        },
        "Clear",
      ),
    );
  }

  /** Put what the address says into the form, but not under the fingers of who is typing. */
  function follow() {
    for (const name of FILTERS) {
      const control = form.querySelector(`#filter-${name}`);
      if (control && control !== document.activeElement)
        control.value = query[name] ?? (name === "order" ? "newest" : "");
    }
    const clear = form.querySelector("#filter-clear");
    if (clear) clear.hidden = !FILTERS.some((name) => query[name]);
  }

  async function load() {
    const mine = (asked += 1);
    store.list = location.hash;
    results.setAttribute("aria-busy", "true");
    const wanted = Object.fromEntries(FILTERS.map((name) => [name, query[name]]));
    const offset = Number(query.offset) || 0;
    const before = store.run?.indexed.episodes ?? 0;
    const begun = performance.now();
    try {
      const found = await get("/api/episodes", { ...wanted, offset, limit: PAGE });
      if (mine !== asked || left) return;
      known = before;
      put(fresh);
      told(found, offset);
      table(results, found.rows);
      turnPages(pages, found.total, offset);
    } catch (error) {
      if (mine !== asked || left) return;
      if (error instanceof Gone) onceBack(() => !left && load());
      else {
        put(count);
        put(pages);
        tellError(results, error);
      }
    } finally {
      const now = performance.now();
      restUntil = now + Math.max(REST_MS, REST_TIMES * (now - begun));
      if (mine === asked) results.removeAttribute("aria-busy");
    }
  }

  function told(found, offset) {
    const last = Math.min(offset + PAGE, found.total);
    const range =
      found.total > PAGE ? `, ${(offset + 1).toLocaleString("en")} to ${last.toLocaleString("en")} shown` : "";
    const text = `${counted(found.total, "episode")}${range}`;
    put(count, h("b", { id: "total" }, text), " ", h("span", { id: "indexing", class: "muted" }, indexing()));
    say(text);
  }

  function indexing() {
    const { files, of } = store.run.indexed;
    return files < of ? `indexed ${files.toLocaleString("en")} of ${of.toLocaleString("en")} files` : "";
  }

  async function draw() {
    const { step, live } = store.run;
    if (step === drawnStep || (live && performance.now() - drawnAt < CURVES_MS)) return;
    if (curves.contains(document.activeElement)) return;
    drawnAt = performance.now();
    drawnStep = step;
    try {
      const found = await get("/api/curves");
      if (!left) put(curves, found.steps.length ? figures(found) : null);
      unnotice("curves");
    } catch (error) {
      drawnStep = null;
      if (!(error instanceof Gone)) notice("curves", error.message);
    }
  }

  function run() {
    filters();
    follow();
    const telling = JSON.stringify([store.run.alarms, store.run.problems, query.alarm]);
    if (telling !== alarmsTold && !alarms.contains(document.activeElement)) {
      alarmsTold = telling;
      tellAlarms(alarms, store.run.alarms, query.alarm);
      tellProblems(problems, store.run.problems);
    }
    draw();
    const waiting = count.querySelector("#indexing");
    if (waiting) put(waiting, indexing());
    const more = store.run.indexed.episodes - (known ?? store.run.indexed.episodes);
    if (more <= 0) return;
    const newest = !query.offset && (!query.order || query.order === "newest");
    const wait = restUntil - performance.now();
    if (newest && wait < PATIENCE_MS && !results.contains(document.activeElement)) {
      if (wait <= 0) load();
    } else if (fresh.dataset.more !== String(more) || !fresh.firstChild) {
      fresh.dataset.more = more;
      put(
        fresh,
        h(
          "button",
          {
            type: "button",
            id: "show-new",
            on: { click: () => (newest ? load() : choose({ offset: null, order: null })) },
          },
          counted(more, "new episode"),
        ),
      );
    }
  }

  function move(by) {
    const rows = [...results.querySelectorAll("a.row-link")];
    if (!rows.length) return false;
    const at = rows.indexOf(document.activeElement?.closest("tr")?.querySelector("a.row-link"));
    const next = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + by))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
    return true;
  }

  run();
  load();
  return {
    title,
    run,
    update(changed) {
      query = changed.query;
      alarmsTold = "";
      run();
      load();
    },
    leave() {
      left = true;
    },
    keys: {
      j: () => move(1),
      k: () => move(-1),
      Escape() {
        if (!main.contains(document.activeElement) || document.activeElement === main) return false;
        document.activeElement.blur();
        return true;
      },
    },
  };
}

function tellAlarms(place, alarms, chosen) {
  if (!alarms.length) return void put(place);
  const item = (alarm) => {
    const when = alarm.on
      ? `on since step ${number(alarm.first)}`
      : `on in ${counted(alarm.steps, "step")}, ${number(alarm.first)} to ${number(alarm.last)}`;
    const filter = chosen === alarm.name;
    return h(
      "li",
      { class: alarm.on ? "alarm on" : "alarm", data: { alarm: alarm.name } },
      h(
        "a",
        {
          href: path("/", { ...current().query, alarm: filter ? null : alarm.name, offset: null }),
          "aria-current": filter ? "true" : null,
          title: filter ? "show all episodes" : "show the episodes of these steps",
        },
        shown(alarm.name),
      ),
      h("span", { class: "when" }, when),
      h("p", { class: "meaning" }, visible(alarm.meaning)),
    );
  };
  const on = alarms.filter((alarm) => alarm.on);
  const off = alarms.filter((alarm) => !alarm.on);
  put(
    place,
    on.length ? h("ul", { class: "alarms", "aria-label": "Alarms that are on" }, on.map(item)) : null,
    off.length
      ? h(
          "details",
          { class: "quiet", open: off.some((alarm) => alarm.name === chosen) },
          h(
            "summary",
            {},
            `${counted(off.length, "earlier alarm")}: `,
            off.map((alarm) => visible(alarm.name)).join(", "),
          ),
          h("ul", { class: "alarms" }, off.map(item)),
        )
      : null,
  );
}

function tellProblems(place, problems) {
  if (!problems.length) return void put(place);
  put(
    place,
    h(
      "details",
      { class: "quiet problems", open: problems.length < 3 },
      h("summary", {}, `${counted(problems.length, "problem")} with the run's files`),
      h(
        "ul",
        {},
        problems.map((problem) => h("li", {}, shown(problem))),
      ),
    ),
  );
}

function table(place, rows) {
  const focused = document.activeElement?.closest?.("tr[data-id]")?.dataset.id;
  if (!rows.length) return void put(place, h("p", { class: "empty", id: "empty" }, "No episode is like that."));
  const head = ["Episode", "Game", "Who, and how it ended", "Turns", "Last reply"];
  put(
    place,
    h(
      "table",
      { class: "results", role: "table" },
      h(
        "thead",
        { role: "rowgroup" },
        h(
          "tr",
          { role: "row" },
          head.map((text) => h("th", { scope: "col", role: "columnheader" }, text)),
        ),
      ),
      h("tbody", { role: "rowgroup" }, rows.map(line)),
    ),
  );
  if (focused)
    for (const row of place.querySelectorAll("tr[data-id]"))
      if (row.dataset.id === focused) row.querySelector("a").focus();
}

function line(row) {
  const address = episodePath(row.id);
  return h(
    "tr",
    {
      data: { id: row.id },
      role: "row",
      on: {
        click: (event) => {
          if (!event.target.closest("a") && getSelection().isCollapsed) location.hash = address;
        },
      },
    },
    h(
      "th",
      { scope: "row", role: "rowheader" },
      h("a", { class: "row-link", href: address }, shown(row.id)),
      row.kind === "logged" ? null : h("span", { class: "tag" }, row.kind === "branch" ? "what if" : "played here"),
    ),
    h("td", { role: "cell", class: "game" }, shown(row.game)),
    h(
      "td",
      { role: "cell" },
      h(
        "ul",
        { class: "seats" },
        row.seats.slice(0, SEATS).map(seat),
        row.seats.length > SEATS ? h("li", { class: "muted" }, `and ${row.seats.length - SEATS} more`) : null,
      ),
    ),
    h(
      "td",
      { role: "cell", class: "turns" },
      h("span", { class: "only-narrow" }, "turns "),
      number(row.turns),
      row.illegal ? h("span", { class: "tag bad" }, `${row.illegal} illegal`) : null,
      row.status === "done"
        ? null
        : h("span", { class: "tag bad" }, visible(row.status === "fault" ? "at fault" : row.status)),
    ),
    h("td", { role: "cell", class: "preview" }, shown(row.preview)),
  );
}

function seat(one) {
  return h(
    "li",
    { class: one.outcome ?? "" },
    shown(one.agent === one.role ? one.agent : `${one.agent} (${one.role})`),
    " ",
    h("span", { class: "muted" }, shown(one.policy)),
    " ",
    h("b", {}, signed(one.return)),
    one.outcome ? ` ${one.outcome}` : "",
  );
}

function turnPages(place, total, offset) {
  const to = (where, text, rel, id) =>
    where === null
      ? h("span", { class: "muted" }, text)
      : h("a", { href: path("/", { ...current().query, offset: where || null }), rel, id }, text);
  put(
    place,
    total > PAGE
      ? [
          to(offset > 0 ? Math.max(0, offset - PAGE) : null, "Previous", "prev", "page-previous"),
          h("span", {}, `page ${Math.floor(offset / PAGE) + 1} of ${Math.ceil(total / PAGE)}`),
          to(offset + PAGE < total ? offset + PAGE : null, "Next", "next", "page-next"),
        ]
      : null,
  );
}
