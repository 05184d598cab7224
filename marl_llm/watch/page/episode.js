// One episode: as everybody or as one seat saw it, with what its turns are worth and what else might have happened.

import { Gone, NO_TOKEN, get, hasToken, job, onceBack, tellError } from "./api.js";
import { drawCredit } from "./audit.js";
import { COLOURINGS, legend, scale } from "./colours.js";
import { choice, h, put, segments } from "./dom.js";
import { choose, episodeId, episodePath } from "./route.js";
import { store } from "./store.js";
import { counted, number, shown, signed, visible } from "./text.js";
import { agentName, agentsOf, drawTurns } from "./turns.js";
import { drawWhatIf, tellProgress } from "./whatif.js";

const WIDE = matchMedia("(min-width: 70rem)");
const MEMBERS = 64;
const READING_MS = 1000;
// A new episode is found by the server when it next looks at the run directory: how often it is asked for.
const TRIES = 6;
const KINDS = { branch: "what if", played: "played here" };

/** Show it in `main`. */
export function open(main, route) {
  const id = episodeId(route.path);
  const head = h("div", { id: "episode-head" });
  const tools = h("div", { class: "tools", id: "tools" });
  const scalePlace = h("div", { id: "colour-state", "aria-live": "polite" });
  const turnsPlace = h("div", { id: "turns" });
  const family = h("div", { id: "family" });
  const creditPlace = h("div", {});
  const askPlace = h("div", {});
  const panelTitle = h("h2", { id: "audit-title", tabIndex: -1 });
  const panel = h(
    "aside",
    { class: "audit", id: "audit", "aria-labelledby": "audit-title" },
    h(
      "header",
      {},
      panelTitle,
      h(
        "button",
        { type: "button", class: "quiet", id: "audit-close", "aria-label": "Close", on: { click: close } },
        "\u00d7",
      ),
    ),
    creditPlace,
    askPlace,
  );
  const layout = h(
    "div",
    { class: "episode" },
    h("div", { class: "story" }, h("h2", { class: "unseen" }, "Turns"), scalePlace, turnsPlace, family),
  );
  let query = route.query;
  let episode = null;
  let colours = null;
  let coloured = "";
  let drawn = "";
  let audited = "";
  let askedTurn = null;
  let left = false;
  let goTo = "";

  put(main, head, tools, layout);

  async function load(tries = TRIES) {
    try {
      episode = await get("/api/episode", { id });
    } catch (error) {
      if (left) return;
      if (error instanceof Gone) onceBack(() => !left && load());
      else if (error.status === 404 && tries > 1) setTimeout(() => !left && load(tries - 1), READING_MS);
      put(head, h("p", {}, h("a", { href: "#/" }, "All episodes")), h("h1", {}, shown(id)));
      tellError(turnsPlace, error);
      return;
    }
    if (left) return;
    drawHead(head, episode);
    drawFamily(family, episode);
    await draw();
    const turn = chosen();
    if (turn !== null) article(turn)?.scrollIntoView({ block: "center" });
  }

  function chosen() {
    const index = Number.parseInt(query.turn, 10);
    return episode.turns.some((turn) => turn.index === index) ? index : null;
  }

  function seat() {
    return agentsOf(episode).includes(query.seat) ? query.seat : null;
  }

  function form() {
    const known = layouts().map(([name]) => name);
    if (known.includes(query.layout)) return query.layout;
    if (episode.has_calls) return "tree";
    return known.includes(episode.form) ? episode.form : "list";
  }

  function layouts() {
    return [
      ["list", "List"],
      agentsOf(episode).length > 1 ? ["columns", "Columns"] : null,
      episode.has_calls ? ["tree", "Tree"] : null,
      episode.final_board || episode.turns.some((turn) => turn.board) ? ["board", "Boards"] : null,
    ].filter(Boolean);
  }

  function drawTools() {
    const by = query.colour ?? "";
    const own = store.run.recipe;
    const recipes = [...new Set([own, ...store.run.recipes])].filter(Boolean);
    const ways = layouts();
    put(
      tools,
      segments(
        "seat",
        "Seen by",
        [["", "all seats"], ...agentsOf(episode).map((agent) => [agent, visible(agent)])],
        seat() ?? "",
        (value) => choose({ seat: value }),
      ),
      ways.length > 1 ? segments("layout", "Shown as", ways, form(), (value) => choose({ layout: value })) : null,
      choice(
        "colour",
        "Coloured by",
        [["", "nothing"], ...episode.colours.map((name) => [name, COLOURINGS[name] ?? visible(name)])],
        by,
        (value) => choose({ colour: value }),
      ),
      by === "advantage"
        ? choice(
            "colour-recipe",
            "of recipe",
            recipes.map((name) => [name, name === own ? `${visible(name)} (this run)` : visible(name)]),
            query.recipe ?? own,
            (value) => choose({ recipe: value === own ? null : value }, { replace: true }),
          )
        : null,
    );
  }

  /** Draw what has changed. */
  async function draw() {
    const focus = document.activeElement;
    const control = tools.contains(focus) ? [focus.id, focus.name, focus.value] : null;
    drawTools();
    if (control) refocus(control);
    await fetchColours();
    if (left) return;
    const now = JSON.stringify([seat(), form(), coloured, colours !== null]);
    if (now !== drawn) {
      drawn = now;
      panel.remove();
      put(
        turnsPlace,
        drawTurns({
          episode,
          seat: seat(),
          layout: form(),
          colours,
          chosen: chosen(),
          audit: openTurn,
          ask: (index) => openTurn(index, "ask"),
        }),
      );
    }
    await drawPanel();
  }

  function refocus([controlId, name, value]) {
    const found = controlId
      ? document.getElementById(controlId)
      : [...tools.querySelectorAll("input")].find((input) => input.name === name && input.value === value);
    found?.focus();
  }

  async function fetchColours() {
    const by = query.colour ?? "";
    const wanted = by ? JSON.stringify([by, by === "advantage" ? query.recipe : null, query.step]) : "";
    if (wanted === coloured) return;
    coloured = wanted;
    colours = null;
    put(scalePlace);
    if (!by) return;
    try {
      const found = await get("/api/colours", {
        id,
        by,
        recipe: by === "advantage" ? (query.recipe ?? store.run.recipe) : null,
        step: query.step,
      });
      if (wanted !== coloured || left) return;
      colours = { found, scale: scale(found) };
      put(scalePlace, legend(found, colours.scale));
    } catch (error) {
      if (wanted !== coloured || left) return;
      if (error.body?.ask) offerScore(error.message);
      else if (error.body?.reading) tellReading(error);
      else {
        if (error instanceof Gone)
          onceBack(() => {
            coloured = "";
            draw();
          });
        tellError(scalePlace, error);
      }
    }
  }

  /** A recipe that remembers earlier steps has to read them first. */
  function tellReading({ message, body }) {
    const { done, of } = body.reading;
    put(
      scalePlace,
      h("p", { class: "note" }, visible(message)),
      h("p", { class: "progress" }, h("progress", { value: done, max: of }), ` ${done} of ${of}`),
    );
    const wanted = coloured;
    setTimeout(() => {
      if (left || coloured !== wanted) return;
      coloured = "";
      draw();
    }, READING_MS);
  }

  /** What the log does not have, a checkpoint can tell. */
  function offerScore(why) {
    const steps = store.run.checkpoints;
    const best = steps.filter((step) => step <= episode.step).at(-1) ?? steps[0];
    const state = h("div", {});
    const pick = choice(
      "score-step",
      "Checkpoint",
      steps.map((step) => [String(step), `step ${step}`]),
      String(best),
      (value) => {
        button.textContent = `Compute with checkpoint ${value}`;
      },
    );
    const button = h(
      "button",
      {
        type: "button",
        class: "primary",
        id: "score-run",
        disabled: !hasToken() || !steps.length,
        on: { click: compute },
      },
      `Compute with checkpoint ${best}`,
    );
    async function compute() {
      button.disabled = true;
      try {
        const step = Number(pick.querySelector("select").value);
        await job(
          "/api/score",
          { id, step },
          (told) => tellProgress(state, told),
          () => left,
        );
        if (left) return;
        coloured = "";
        choose({ step }, { replace: true });
        await draw();
      } catch (error) {
        button.disabled = false;
        tellError(state, error);
      }
    }
    put(
      scalePlace,
      h(
        "div",
        { class: "offer" },
        h("p", {}, visible(why)),
        steps.length ? pick : null,
        button,
        hasToken() ? null : h("p", { class: "note" }, NO_TOKEN),
        state,
      ),
    );
  }

  async function drawPanel() {
    const turn = chosen();
    for (const one of turnsPlace.querySelectorAll("article.turn")) {
      if (Number(one.dataset.turn) === turn) one.setAttribute("aria-current", "true");
      else one.removeAttribute("aria-current");
    }
    layout.classList.toggle("with-audit", turn !== null);
    if (turn === null) {
      panel.remove();
      audited = "";
      askedTurn = null;
      return;
    }
    place();
    const about = episode.turns.find((one) => one.index === turn);
    if (askedTurn !== turn) {
      askedTurn = turn;
      panel.scrollTop = 0;
      put(panelTitle, `Turn ${turn} `, agentName(episode, about.agent));
      drawWhatIf(askPlace, episode, about, refresh);
    }
    focusPanel();
    const now = JSON.stringify([turn, query.recipe, query.with]);
    if (now === audited) return;
    audited = now;
    const focus = document.activeElement?.id;
    const drawing = drawCredit(creditPlace, { id, turn, recipe: query.recipe ?? null, other: query.with ?? null });
    if (focus === "audit-recipe" || focus === "audit-with") document.getElementById(focus)?.focus();
    await drawing;
  }

  /** Open a turn's panel; `to`: "title" or "ask", where the focus goes, or null where it stays. Afterwards: empty. */
  function openTurn(turn, to = null) {
    goTo = to;
    if (chosen() === turn) drawPanel();
    else choose({ turn });
  }

  function focusPanel() {
    if (!WIDE.matches && goTo !== "") panel.scrollIntoView({ block: "nearest" });
    if (goTo === "title") panelTitle.focus({ preventScroll: WIDE.matches });
    if (goTo === "ask") (askPlace.querySelector("input:enabled") ?? askPlace.querySelector("h3")).focus();
    goTo = "";
  }

  /** The panel stands beside the turns where there is room, and below its turn where there is none. */
  function place() {
    const beside = WIDE.matches;
    panel.classList.toggle("beside", beside);
    const focus = panel.contains(document.activeElement) ? document.activeElement : null;
    if (beside) {
      if (panel.parentNode !== layout) layout.append(panel);
    } else {
      const turn = article(chosen());
      if (turn && turn.nextElementSibling !== panel) turn.after(panel);
    }
    focus?.focus({ preventScroll: true });
  }

  function article(turn) {
    return turnsPlace.querySelector(`article[data-turn="${turn}"]`);
  }

  function close() {
    const turn = chosen();
    choose({ turn: null });
    if (turn !== null) article(turn)?.focus({ preventScroll: true });
  }

  /** List the branches `ids`, which have just been played, with the others. */
  async function refresh(ids, tries = TRIES) {
    if (left) return;
    try {
      const again = await get("/api/episode", { id });
      if (left) return;
      episode.branches = again.branches;
      episode.earlier_branches = again.earlier_branches;
      drawFamily(family, episode);
      const listed = new Set(again.branches.map((branch) => branch.id));
      if (tries > 1 && ids.some((one) => !listed.has(one))) setTimeout(() => refresh(ids, tries - 1), READING_MS);
    } catch {
      // The branches are kept all the same, and stand here when the page is loaded again.
    }
  }

  function move(by) {
    const all = [...turnsPlace.querySelectorAll("article.turn")];
    if (!all.length) return false;
    const at = all.indexOf(document.activeElement?.closest?.("article.turn"));
    const from = at < 0 ? all.indexOf(article(chosen())) : at;
    const next = all[from < 0 ? 0 : Math.min(all.length - 1, Math.max(0, from + by))];
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
    return true;
  }

  const replace = () => episode && chosen() !== null && place();
  WIDE.addEventListener("change", replace);
  load();
  return {
    title: visible(id),
    update(changed) {
      query = changed.query;
      if (episode) draw();
    },
    leave() {
      left = true;
      WIDE.removeEventListener("change", replace);
    },
    keys: {
      j: () => move(1),
      k: () => move(-1),
      Enter(event) {
        const turn = event.target.matches?.("article.turn:not(.unseen-turn)")
          ? Number(event.target.dataset.turn)
          : null;
        if (turn === null) return false;
        openTurn(turn, "title");
        return true;
      },
      Escape() {
        if (!episode || chosen() === null) return false;
        close();
        return true;
      },
    },
  };
}

function drawHead(place, episode) {
  const { original, status, note } = episode;
  const facts = [
    shown(episode.game),
    episode.step === null ? null : `step ${number(episode.step)}`,
    counted(episode.turns.length, "turn"),
    h(
      "span",
      { class: status === "done" ? "" : "tag bad", id: "status" },
      visible(status === "fault" ? "at fault" : status),
    ),
    KINDS[episode.kind] ? h("span", { class: "tag" }, KINDS[episode.kind]) : null,
  ].filter(Boolean);
  const policies = (agent) => [
    ...new Set(episode.turns.filter((turn) => turn.agent === agent).map((turn) => turn.policy)),
  ];
  put(
    place,
    h("p", { class: "back" }, h("a", { href: "#/", on: { click: back } }, "\u2190 Episodes")),
    h("h1", {}, shown(episode.id)),
    h(
      "p",
      { class: "facts" },
      facts.map((fact) => h("span", {}, fact)),
    ),
    note ? h("p", { class: "note", id: "note" }, shown(note)) : null,
    original
      ? h(
          "p",
          { id: "original" },
          `Branches off in turn ${original.turn} from `,
          h("a", { href: episodePath(original.id, { turn: original.turn }) }, shown(original.id)),
        )
      : null,
    h(
      "ul",
      { class: "returns", id: "returns" },
      agentsOf(episode).map((agent) =>
        h(
          "li",
          { data: { agent } },
          agentName(episode, agent),
          " ",
          h(
            "span",
            { class: "muted" },
            policies(agent).map((name, index) => [index ? ", " : "", shown(name)]),
          ),
          " ",
          h("b", {}, agent in episode.returns ? signed(episode.returns[agent]) : ""),
        ),
      ),
    ),
    more(episode),
  );
}

/** Back to the list as it was, if the person came from there. */
function back(event) {
  if (store.list) {
    event.preventDefault();
    location.hash = store.list;
  }
}

function more(episode) {
  const rows = [
    [
      "seats",
      Object.entries(episode.seats)
        .map(([pattern, policy]) => `${pattern}: ${policy}`)
        .join(", "),
    ],
    ["seed", String(episode.seed)],
    ["group", `${episode.group}, member ${episode.member}`],
    ...Object.entries(episode.hidden).map(([name, value]) => [
      name,
      typeof value === "string" ? value : JSON.stringify(value),
    ]),
  ];
  return h(
    "details",
    { class: "quiet more" },
    h("summary", {}, "seats, seed, and what no seat saw"),
    h(
      "dl",
      {},
      rows.map(([name, value]) => h("div", {}, h("dt", {}, shown(name)), h("dd", {}, shown(value)))),
    ),
  );
}

function drawFamily(place, episode) {
  const earlier = episode.earlier_branches + Math.max(0, episode.branches.length - MEMBERS);
  put(
    place,
    episode.members.length > 1
      ? h(
          "section",
          { "aria-labelledby": "members-title" },
          h("h2", { id: "members-title" }, `The group, ${counted(episode.members.length, "episode")} on one deal`),
          returnsTable(episode, episode.members.slice(0, MEMBERS), "members", []),
          episode.members.length > MEMBERS
            ? h("p", { class: "muted" }, `and ${episode.members.length - MEMBERS} more`)
            : null,
        )
      : null,
    episode.branches.length
      ? h(
          "section",
          { "aria-labelledby": "branches-title" },
          h("h2", { id: "branches-title" }, "What if, asked of this episode"),
          returnsTable(episode, episode.branches.slice(-MEMBERS), "branches", [
            ["Turn", (one) => number(one.turn)],
            ["Asked", (one) => shown(one.asked)],
          ]),
          earlier > 0 ? h("p", { class: "muted" }, `and ${counted(earlier, "earlier one")}`) : null,
        )
      : null,
  );
}

function returnsTable(episode, rows, name, columns) {
  const agents = [...new Set(rows.flatMap((row) => Object.keys(row.returns)))];
  return h(
    "div",
    { class: "wide-table", tabIndex: 0, role: "region", "aria-label": name },
    h(
      "table",
      { id: name, class: "family" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "Episode"),
          columns.map(([title]) => h("th", { scope: "col" }, title)),
          agents.map((agent) => h("th", { scope: "col", class: "number" }, agentName(episode, agent))),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            { data: { id: row.id }, class: row.id === episode.id ? "self" : null },
            h(
              "th",
              { scope: "row" },
              row.id === episode.id
                ? [shown(row.id), h("span", { class: "tag" }, "this one")]
                : h("a", { href: episodePath(row.id) }, shown(row.id)),
            ),
            columns.map(([, value]) => h("td", {}, value(row))),
            agents.map((agent) => h("td", { class: "number" }, signed(row.returns[agent]))),
          ),
        ),
      ),
    ),
  );
}
