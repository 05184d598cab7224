// Take a seat: choose a game and who else plays, then play it.

import { Gone, NO_TOKEN, get, hasToken, job, onceBack, tellError, whichServer } from "./api.js";
import { drawBoard } from "./board.js";
import { choice, field, h, put, say } from "./dom.js";
import { episodePath } from "./route.js";
import { store } from "./store.js";
import { number, shown, signed, visible } from "./text.js";
import { tellProgress } from "./whatif.js";

const KEY = "marl-llm-table";
const EXAMPLES = 12;

/** Show it in `main`. */
export function open(main, route) {
  const setup = h("form", { id: "play-form", class: "setup" });
  const place = h("div", { id: "table" });
  const state = h("div", { id: "play-state", "aria-live": "polite" });
  let left = false;
  let busy = false;

  put(main, h("h1", {}, "Play"), setup, state, place);
  store.table ??= remembered();

  async function load() {
    if (!hasToken()) put(state, h("p", { class: "note", id: "play-token" }, NO_TOKEN));
    try {
      store.players ??= await get("/api/players");
    } catch (error) {
      if (error instanceof Gone) onceBack(() => !left && load());
      tellError(state, error);
      return;
    }
    if (left) return;
    const { asked } = store.table ?? {};
    drawSetup(route.query.game ?? asked?.game, route.query.seat ?? asked?.seat);
    if (store.table) drawTable();
  }

  /** Games by what the request calls them: the run's own first. */
  function games() {
    const own = Object.entries(store.run.games).map(([label, game]) => ({
      value: label,
      text: label === game.name ? label : `${label} (${game.name})`,
      agents: game.agents,
      rules: game.rules,
      own: true,
    }));
    const taken = new Set(own.map((game) => game.value));
    const others = Object.entries(store.players.games)
      .filter(([name]) => !taken.has(name))
      .map(([name, game]) => ({ value: name, text: name, agents: game.agents, rules: game.rules, own: false }));
    return [...own, ...others];
  }

  function drawSetup(wantedGame, wantedSeat) {
    const all = games();
    const option = (game) => h("option", { value: game.value }, visible(game.text));
    const gameSelect = h(
      "select",
      { id: "play-game", on: { change: seats } },
      h("optgroup", { label: "this run's" }, all.filter((game) => game.own).map(option)),
      h("optgroup", { label: "all games" }, all.filter((game) => !game.own).map(option)),
    );
    if (all.some((game) => game.value === wantedGame)) gameSelect.value = wantedGame;
    const seatPlace = h("div", {});
    const against = h("div", { class: "against" });
    const cannot = h("div", { class: "cannot" });
    const seed = h("input", { id: "play-seed", type: "number", value: 0, step: 1 });

    function seats() {
      const { agents, rules } = all.find((game) => game.value === gameSelect.value);
      put(cannot, agents.length ? null : h("p", { class: "note" }, shown(rules)));
      put(
        seatPlace,
        choice(
          "play-seat",
          "Your seat",
          agents.map((agent) => [agent, visible(agent)]),
          agents.includes(wantedSeat) ? wantedSeat : agents[0],
          others,
        ),
      );
      others();
    }
    function others() {
      const mine = seatPlace.querySelector("select").value;
      const { agents } = all.find((game) => game.value === gameSelect.value);
      const players = store.players.players.map((name) => [name, visible(name)]);
      put(
        against,
        agents
          .filter((agent) => agent !== mine)
          .map((agent, index) => {
            const one = choice(`play-against-${index}`, `${visible(agent)} is`, players, players[0]?.[0]);
            one.querySelector("select").dataset.against = agent;
            return one;
          }),
      );
    }
    seats();
    put(
      setup,
      field("play-game", "Game", gameSelect),
      seatPlace,
      against,
      field("play-seed", "Seed of the deal", seed),
      h("button", { type: "submit", class: "primary", id: "play-start", disabled: !hasToken() }, "Start"),
      cannot,
    );
    setup.onsubmit = (event) => {
      event.preventDefault();
      start({
        game: gameSelect.value,
        settings: {},
        seat: seatPlace.querySelector("select").value,
        against: Object.fromEntries(
          [...against.querySelectorAll("select")].map((one) => [one.dataset.against, one.value]),
        ),
        seed: Math.trunc(Number(seed.value)) || 0,
      });
    };
  }

  function again() {
    const asked = { ...store.table.asked, seed: store.table.asked.seed + 1 };
    setup.querySelector("#play-seed").value = asked.seed;
    return start(asked);
  }

  function start(asked) {
    return act("/api/play", asked, (table) => {
      store.table = { ...table, asked };
    });
  }

  function move(reply) {
    const { table, asked } = store.table;
    return act("/api/move", { table, reply }, (next) => {
      store.table = { ...next, asked };
    });
  }

  async function act(path, body, take) {
    if (busy || !hasToken()) return;
    busy = true;
    const was = focused();
    place.setAttribute("aria-busy", "true");
    for (const control of place.querySelectorAll("button, textarea")) control.disabled = true;
    setup.querySelector("#play-start").disabled = true;
    const before = store.table;
    try {
      const found = await job(
        path,
        body,
        (told) => tellProgress(state, told),
        () => left,
      );
      if (found) take(found);
      put(state);
    } catch (error) {
      if (error instanceof Gone) put(state);
      else tellError(state, error);
    } finally {
      busy = false;
      place.removeAttribute("aria-busy");
      setup.querySelector("#play-start").disabled = false;
    }
    remember(store.table);
    if (left) return;
    if (store.table) drawTable(was, store.table !== before && !store.table.refused);
  }

  function focused() {
    const now = document.activeElement;
    if (now?.id === "play-reply") return "reply";
    return now?.closest(".board") ? "board" : "moves";
  }

  function drawTable(was = null, clear = true) {
    const table = store.table;
    const { board, legal_actions: legal, over } = table;
    const draft = clear ? "" : (document.getElementById("play-reply")?.value ?? "");
    const talks = !over && (legal === null || gameTalks(table.game) || gameTalks(table.asked?.game));
    const can = hasToken();
    const onBoard = !over && board && can ? (action) => move(action) : null;
    put(
      place,
      h(
        "section",
        { class: "now", "aria-labelledby": "table-title" },
        h(
          "h2",
          { id: "table-title", tabIndex: -1 },
          over ? "It is over" : "Your move",
          " ",
          h("span", { class: "muted" }, shown(table.game), ", ", shown(table.seat)),
        ),
        h(
          "details",
          { class: "quiet", id: "play-rules" },
          h("summary", {}, "Rules"),
          h("div", { class: "observation" }, shown(table.rules)),
        ),
        table.refused ? h("p", { class: "error", role: "alert", id: "play-refused" }, shown(table.refused)) : null,
        over ? ending(table) : null,
        h(
          "div",
          { class: board ? "seen with-board" : "seen" },
          board ? drawBoard(board, { act: onBoard }) : null,
          h("div", { class: "observation", id: "play-observation" }, shown(table.observation)),
        ),
        over || legal === null ? null : moves(legal, can),
        talks ? writing(table, draft, can) : null,
      ),
      history(table),
    );
    if (was === null) return;
    const next =
      (was === "reply" && place.querySelector("#play-reply")) ||
      (was === "board" && place.querySelector(".board button")) ||
      place.querySelector(".move, #play-reply, #play-again") ||
      place.querySelector("#table-title");
    next.focus({ preventScroll: true });
    say(
      table.refused
        ? visible(table.refused)
        : over
          ? result(table)
          : `Your move. ${visible(table.observation).slice(-300)}`,
    );
  }

  function gameTalks(name) {
    return Boolean(store.run.games[name]?.talks ?? store.players?.games[name]?.talks);
  }

  function moves(legal, can) {
    return h(
      "div",
      { class: "actions", id: "play-moves", role: "group", "aria-label": "Legal moves" },
      legal.map((action, index) =>
        h(
          "button",
          { type: "button", class: "move", data: { action }, disabled: !can, on: { click: () => move(action) } },
          index < 9 ? [h("kbd", {}, index + 1), " "] : null,
          shown(action),
        ),
      ),
    );
  }

  function writing(table, draft, can) {
    const text = h("textarea", {
      id: "play-reply",
      rows: 4,
      value: draft,
      disabled: !can,
      on: {
        keydown: (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            send();
          }
        },
      },
    });
    const send = () => text.value.trim() && move(text.value);
    return h(
      "div",
      { class: "writing" },
      field("play-reply", "What you say", text),
      table.examples?.length
        ? h(
            "p",
            { class: "actions" },
            h("span", { class: "muted" }, "for example "),
            table.examples.slice(0, EXAMPLES).map((example) =>
              h(
                "button",
                {
                  type: "button",
                  class: "move",
                  data: { fill: example },
                  disabled: !can,
                  on: {
                    click: () => {
                      text.value = example;
                      text.focus();
                    },
                  },
                },
                shown(example),
              ),
            ),
          )
        : null,
      h("button", { type: "button", class: "primary", id: "play-send", disabled: !can, on: { click: send } }, "Send"),
      h("span", { class: "muted" }, " Ctrl+Enter sends"),
    );
  }

  function ending(table) {
    return h(
      "div",
      { class: "ending", id: "play-over" },
      h("p", { class: "result" }, result(table)),
      table.note ? h("p", { class: "note" }, shown(table.note)) : null,
      table.returns
        ? h(
            "ul",
            { class: "returns" },
            Object.entries(table.returns).map(([agent, value]) =>
              h(
                "li",
                { data: { agent } },
                shown(agent),
                agent === table.seat ? h("span", { class: "muted" }, " you") : null,
                " ",
                h("b", {}, signed(value)),
              ),
            ),
          )
        : null,
      h(
        "p",
        { class: "actions" },
        h(
          "button",
          {
            type: "button",
            class: "primary",
            id: "play-again",
            disabled: !hasToken(),
            on: { click: again },
          },
          "Again, on another deal",
        ),
        table.episode
          ? h("a", { class: "button", id: "play-episode", href: episodePath(table.episode) }, "Look at the episode")
          : null,
      ),
    );
  }

  function history(table) {
    if (!table.history.length) return null;
    return h(
      "section",
      { class: "past", "aria-labelledby": "past-title" },
      h("h2", { id: "past-title" }, "What you saw and said"),
      h(
        "ol",
        { id: "play-history" },
        table.history.map((one) =>
          h(
            "li",
            {},
            h("div", { class: "observation" }, shown(one.observation)),
            h("div", { class: "reply" }, shown(one.reply)),
          ),
        ),
      ),
    );
  }

  const digit = (event) => {
    const button = place.querySelectorAll("#play-moves .move")[Number(event.key) - 1];
    if (!button || button.disabled) return false;
    button.click();
    return true;
  };
  load();
  return {
    title: "Play",
    leave() {
      left = true;
    },
    keys: Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((key) => [key, digit])),
  };
}

/** How it ended, for the person. */
function result({ returns, seat, status }) {
  if (!returns) return status === "fault" ? "It ended by a fault." : "It is over.";
  const values = Object.values(returns);
  const most = Math.max(...values);
  const best = Object.keys(returns).filter((agent) => returns[agent] === most);
  if (best.length === values.length)
    return values.length === 1 ? `You got ${signed(most)}.` : `Nobody got more than another: ${number(most)} each.`;
  if (best.includes(seat)) return best.length === 1 ? "You won." : "You are among the best.";
  return `${best.map(visible).join(" and ")} won.`;
}

/** The table outlives a reload of the page, though not the server. */
function remember(table) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify({ server: whichServer(), table }));
  } catch {
    // Then it does not.
  }
}

function remembered() {
  try {
    const { server, table } = JSON.parse(sessionStorage.getItem(KEY));
    return server === whichServer() ? table : null;
  } catch {
    return null;
  }
}
