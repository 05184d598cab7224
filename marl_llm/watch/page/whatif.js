// What if somebody else had decided here, or something else had been said: the form, and what came of it.

import { Gone, NO_TOKEN, get, hasToken, job, progress, tellError } from "./api.js";
import { choice, field, h, put, say, svg } from "./dom.js";
import { episodePath } from "./route.js";
import { store } from "./store.js";
import { number, shown, signed, visible } from "./text.js";

const MOST = 256;
const BUTTONS = 40;

/** The form for one turn. `done(ids)`: called when there are new branches. */
export function drawWhatIf(place, episode, turn, done) {
  let who = "sample";
  const acts = hasToken();
  const progressPlace = h("div", { id: "whatif-progress", "aria-live": "polite" });
  const resultPlace = h("div", { id: "whatif-result" });
  const reply = h("textarea", { id: "whatif-reply", rows: 4, spellcheck: "true" });
  const times = h("input", { id: "whatif-n", type: "number", min: 1, max: MOST, value: 8 });
  const players = h("div", {});
  const written = h(
    "div",
    { hidden: true },
    field("whatif-reply", "What is said", reply),
    h(
      "div",
      { class: "actions" },
      (turn.legal_actions ?? []).slice(0, BUTTONS).map((action) =>
        h(
          "button",
          {
            type: "button",
            class: "move",
            data: { fill: action },
            on: {
              click: () => {
                reply.value = action;
                reply.focus();
              },
            },
          },
          shown(action),
        ),
      ),
    ),
  );
  const checkpoint = choice(
    "whatif-step",
    "Weights of",
    [["", "the latest before this episode"], ...store.run.checkpoints.map((step) => [String(step), `step ${step}`])],
    "",
  );
  const run = h("button", { type: "submit", class: "primary", id: "whatif-run", disabled: !acts }, "Play");

  const way = (value, text) =>
    h(
      "label",
      { class: "way" },
      h("input", {
        type: "radio",
        name: "whatif-who",
        value,
        checked: value === who,
        data: { who: value },
        on: { change: () => pick(value) },
      }),
      " ",
      text,
    );

  function pick(value) {
    who = value;
    players.hidden = value !== "player";
    written.hidden = value !== "reply";
    if (value === "player") offer();
  }

  async function offer() {
    if (players.firstChild) return;
    try {
      store.players ??= await get("/api/players");
      put(
        players,
        choice(
          "whatif-player",
          "Player",
          store.players.players.map((name) => [name, visible(name)]),
        ),
      );
    } catch (error) {
      tellError(players, error);
    }
  }

  async function ask(event) {
    event.preventDefault();
    if (!acts || run.disabled) return;
    const step = checkpoint.querySelector("select").value;
    const body = {
      id: episode.id,
      turn: turn.index,
      policy: who === "player" ? (players.querySelector("select")?.value ?? null) : null,
      reply: who === "reply" ? reply.value : null,
      n: Math.max(1, Math.min(MOST, Math.round(Number(times.value)) || 1)),
      step: step === "" ? null : Number(step),
    };
    run.disabled = true;
    put(resultPlace);
    tellProgress(progressPlace, { state: "waiting", doing: "", done: 0, of: body.n });
    try {
      const result = await job("/api/branch", body, (state) => tellProgress(progressPlace, state));
      put(progressPlace);
      tellResult(resultPlace, result, turn.agent);
      say(`${result.episodes.length} branches were played.`);
      done(result.episodes);
    } catch (error) {
      if (error instanceof Gone) put(progressPlace);
      else tellError(progressPlace, error);
    } finally {
      run.disabled = false;
    }
  }

  const form = h(
    "form",
    {
      id: "whatif",
      on: {
        submit: ask,
        keydown: (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(event);
        },
      },
    },
    h("h3", { tabIndex: -1 }, "What if"),
    acts ? null : h("p", { class: "note", id: "whatif-token" }, NO_TOKEN),
    h(
      "fieldset",
      { class: "ways", disabled: !acts },
      h("legend", {}, `In turn ${turn.index}, instead of what was said`),
      way("sample", "another sample of the same policy"),
      way("player", "another player, from here on"),
      players,
      way("reply", "a reply that I write"),
      written,
    ),
    h(
      "fieldset",
      { class: "pair", disabled: !acts },
      h("legend", { class: "unseen" }, "How"),
      field("whatif-n", "How often", times),
      checkpoint,
    ),
    run,
    progressPlace,
    resultPlace,
  );
  if (!acts) for (const control of form.querySelectorAll("input, textarea, select, button")) control.disabled = true;
  pick(who);
  put(place, form);
}

/** How far a job is. */
export function tellProgress(place, state) {
  put(
    place,
    h(
      "p",
      { class: "progress" },
      h("progress", { "aria-label": "progress", ...(state.of ? { value: state.done, max: state.of } : {}) }),
      " ",
      progress(state),
    ),
  );
}

function tellResult(place, result, agent) {
  const agents = Object.keys(result.returns).sort((one, other) => (other === agent) - (one === agent));
  put(
    place,
    h(
      "table",
      { class: "members" },
      h("caption", {}, "Returns of the branches, beside the original's"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["Agent", "Original", "Mean", "Each"].map((text) => h("th", { scope: "col" }, text)),
        ),
      ),
      h(
        "tbody",
        {},
        agents.map((name) => {
          const values = result.returns[name];
          const original = result.original?.[name] ?? null;
          return h(
            "tr",
            { data: { agent: name } },
            h("th", { scope: "row" }, shown(name)),
            h("td", { class: "number" }, original === null ? "?" : signed(original)),
            h("td", { class: "number" }, h("b", {}, signed(mean(values)))),
            h("td", {}, strip(values, original)),
          );
        }),
      ),
    ),
    h(
      "p",
      { class: "kept" },
      "Kept: ",
      result.episodes.map((id, index) => [index ? ", " : "", h("a", { href: episodePath(id) }, shown(id))]),
    ),
  );
}

function mean(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

/** A dot for each return, those that are equal on top of each other; a line where the original is. */
function strip(values, original) {
  const known = values.filter((value) => value !== null);
  const all = original === null ? known : [...known, original];
  if (!known.length) return null;
  const low = Math.min(...all);
  const high = Math.max(...all);
  const x = (value) => (high === low ? 60 : 6 + (108 * (value - low)) / (high - low));
  const heights = new Map();
  const most = Math.max(...known.map((value) => known.filter((other) => other === value).length));
  const step = Math.min(6, 22 / most);
  const dots = known.map((value) => {
    const height = heights.get(value) ?? 0;
    heights.set(value, height + 1);
    return svg("circle", { class: "line-0", cx: x(value), cy: 25 - height * step, r: 3 });
  });
  const told = [...heights]
    .sort(([one], [other]) => one - other)
    .map(([value, times]) => `${number(value)} ${times} times`);
  return svg(
    "svg",
    { class: "strip", viewBox: "0 0 120 30", role: "img", "aria-label": told.join(", ") },
    svg("title", {}, told.join(", ")),
    original === null ? null : svg("line", { class: "original", x1: x(original), x2: x(original), y1: 0, y2: 30 }),
    dots,
  );
}
