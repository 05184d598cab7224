// Turns of an episode: each as an article, and all of them as a list, in columns, as a tree, or beside boards.

import { drawBoard } from "./board.js";
import { paint, parted, tokenText, valueBar } from "./colours.js";
import { h } from "./dom.js";
import { rawText } from "./raw.js";
import { counted, number, shown, signed, visible } from "./text.js";

const SHORT = 700;
const DEEPEST = 6;

/**
 * All turns. `view`: {episode, seat, layout, colours: {found, scale} | null, chosen, audit(index), ask(index)}, where
 * seat is null for all of them.
 */
export function drawTurns(view) {
  const { turns } = view.episode;
  if (!turns.length) return h("p", { class: "empty" }, "Nobody had a turn.");
  return { columns: inColumns, tree: asTree, board: besideBoards, list: asList }[view.layout](view, turns);
}

function asList(view, turns) {
  return h(
    "ol",
    { class: "turns list" },
    turns.map((turn) => h("li", {}, drawTurn(view, turn))),
  );
}

function besideBoards(view, turns) {
  const { final_board: last } = view.episode;
  const item = (turn) =>
    h(
      "li",
      { class: turn.board ? "with-board" : null },
      turn.board && sees(view, turn)
        ? drawBoard(turn.board, { caption: `Board before turn ${turn.index}`, played: turn.action })
        : null,
      drawTurn(view, turn),
    );
  return h(
    "ol",
    { class: "turns boards" },
    turns.map(item),
    last
      ? h(
          "li",
          { class: "with-board final" },
          drawBoard(last, { caption: "The board at the end" }),
          h("p", { class: "muted" }, "The board at the end"),
        )
      : null,
  );
}

function inColumns(view, turns) {
  const agents = agentsOf(view.episode).filter((agent) => turns.some((turn) => turn.agent === agent));
  const rounds = [...new Set(turns.map((turn) => turn.round))].sort((one, other) => one - other);
  const grid = h("div", {
    class: "columns",
    tabIndex: 0,
    role: "region",
    "aria-label": "Turns, a column for each agent",
  });
  grid.style.setProperty("--columns", agents.length);
  grid.append(...agents.map((agent) => h("h3", { class: "column-head" }, agentName(view.episode, agent))));
  for (const round of rounds) {
    grid.append(h("h3", { class: "round" }, `Round ${round + 1}`));
    for (const agent of agents) {
      const mine = turns.filter((turn) => turn.round === round && turn.agent === agent);
      grid.append(
        h(
          "div",
          { class: mine.length ? "cell" : "cell none" },
          mine.map((turn) => drawTurn(view, turn)),
        ),
      );
    }
  }
  return grid;
}

function asTree(view, turns) {
  const known = new Set(turns.map((turn) => turn.index));
  const called = (parent) =>
    turns.filter((turn) =>
      parent === null ? !isCalled(turn, known) : turn.parent === parent && isCalled(turn, known),
    );
  const branch = (parent, depth) => {
    const mine = called(parent);
    if (!mine.length) return null;
    const name = depth === 0 ? "turns tree" : depth < DEEPEST ? "calls" : "calls deep";
    return h(
      "ol",
      { class: name },
      mine.map((turn) => h("li", {}, drawTurn(view, turn), branch(turn.index, depth + 1))),
    );
  };
  return branch(null, 0);
}

/** Whether another turn called this one. Callers stand before those they call, so that a tree has no circles. */
function isCalled(turn, known) {
  return turn.parent !== null && turn.parent < turn.index && known.has(turn.parent);
}

function sees(view, turn) {
  return view.seat === null || view.seat === turn.agent;
}

export function agentsOf(episode) {
  return [...new Set([...episode.turns.map((turn) => turn.agent), ...Object.keys(episode.returns)])];
}

/** An agent's name with the dot of its colour. */
export function agentName(episode, agent) {
  return h("span", { class: `agent agent-${agentsOf(episode).indexOf(agent) % 6}` }, shown(agent));
}

function drawTurn(view, turn) {
  if (!sees(view, turn)) return unseenTurn(view, turn);
  return h(
    "article",
    {
      class: "turn",
      data: { turn: turn.index },
      tabIndex: -1,
      "aria-label": `turn ${turn.index}, ${visible(turn.agent)}`,
      "aria-current": view.chosen === turn.index ? "true" : null,
      on: { click: (event) => isPlainClick(event) && view.audit(turn.index) },
    },
    head(view, turn),
    observation(view, turn),
    said(view, turn),
    outcome(turn),
    foot(view, turn),
  );
}

/** A click that neither works a control nor ends a selection of text. */
function isPlainClick(event) {
  return (
    !event.target.closest("a, button, summary, input, select, textarea, label, pre, .token, .audit") &&
    getSelection().isCollapsed
  );
}

function unseenTurn(view, turn) {
  return h(
    "article",
    {
      class: "turn unseen-turn",
      data: { turn: turn.index, unseen: "" },
      tabIndex: -1,
      "aria-label": `turn ${turn.index}, not seen by this seat`,
    },
    h(
      "p",
      {},
      h("span", { class: "muted" }, `${turn.index} `),
      agentName(view.episode, turn.agent),
      " ",
      turn.action === null ? h("span", { class: "muted" }, "no action") : h("code", {}, shown(short(turn.action))),
      " ",
      h("span", { class: "muted" }, "not seen by this seat"),
    ),
  );
}

function head(view, turn) {
  const more = [
    turn.role === turn.agent ? null : shown(turn.role),
    h("span", { class: "muted" }, shown(turn.policy)),
    turn.index < (view.episode.original?.turn ?? 0) ? h("span", { class: "tag" }, "as in the original") : null,
    turn.weight === 1 ? null : h("span", { class: "muted" }, `weight ${number(turn.weight)}`),
  ].filter(Boolean);
  return h(
    "header",
    {},
    h("h3", {}, h("span", { class: "index" }, turn.index), " ", agentName(view.episode, turn.agent)),
    more,
    turn.parent !== null && view.layout !== "tree"
      ? h("span", { class: "muted" }, `called by turn ${turn.parent}`)
      : null,
  );
}

function observation(view, turn) {
  const text = turn.observation ?? "";
  const inside = [block(text, "observation"), cutOff(view, turn, "observation")];
  if (text.length <= SHORT) return h("div", { class: "observation" }, inside);
  return h(
    "details",
    { class: "observation" },
    h(
      "summary",
      {},
      `saw ${counted(text.length, "character")}: `,
      h("span", { class: "muted" }, visible(text.trim().slice(-90))),
    ),
    inside,
  );
}

/** Thought and reply; coloured token by token where there is a value for each. */
function said(view, turn) {
  const coloured = view.colours?.found.turns.find((one) => one.index === turn.index);
  const parts = [];
  if (coloured && coloured.value !== null)
    parts.push(valueBar(coloured.value, view.colours.found, view.colours.scale));
  const [thoughtTokens, replyTokens] = coloured?.tokens ? parted(coloured.tokens) : [[], null];
  if (turn.thought !== null || thoughtTokens.length) {
    parts.push(
      h(
        "details",
        { class: "thought", data: { thought: turn.index } },
        h(
          "summary",
          {},
          "thought",
          turn.thought === null ? "" : `, ${counted(turn.cut?.thought ?? turn.thought.length, "character")}`,
        ),
        thoughtTokens.length
          ? tokenText(thoughtTokens, view.colours.scale, "thought, by token")
          : block(turn.thought, "thought"),
        cutOff(view, turn, "thought"),
      ),
    );
  }
  parts.push(
    replyTokens?.length ? tokenText(replyTokens, view.colours.scale, "reply, by token") : block(turn.reply, "reply"),
  );
  parts.push(cutOff(view, turn, "reply"));
  const place = h("div", { class: "said" }, parts);
  if (coloured && !replyTokens?.length) paint(place, coloured.value, view.colours.scale);
  return place;
}

function block(text, name) {
  if (!text) return h("p", { class: `${name} muted` }, name === "reply" ? "no reply" : "nothing");
  const long = text.length > SHORT;
  return h(
    "div",
    {
      class: `${name} ${long ? "long" : ""}`,
      tabIndex: long ? 0 : undefined,
      role: long ? "region" : null,
      "aria-label": long ? name : null,
    },
    shown(text),
  );
}

function cutOff(view, turn, field) {
  const length = turn.cut?.[field];
  return length ? rawText(view.episode.id, turn.index, field, length) : null;
}

function outcome(turn) {
  const legal = { true: ["legal", "legal", "\u2713"], false: ["illegal", "illegal", "\u2715"] }[turn.legal] ?? [
    "open",
    "never put to the game",
    "\u2013",
  ];
  return h(
    "p",
    { class: "outcome" },
    turn.action === null
      ? h("span", { class: "muted" }, "no action could be read")
      : h("code", { class: "action" }, shown(short(turn.action))),
    h(
      "span",
      { class: `mark-${legal[0]}`, data: { legal: String(turn.legal) } },
      h("span", { "aria-hidden": "true" }, legal[2]),
      ` ${legal[1]}`,
    ),
    turn.legal_actions?.length
      ? h(
          "span",
          { class: "muted among" },
          "of ",
          turn.legal_actions.slice(0, 20).map((action, index) => [index ? ", " : "", shown(short(action))]),
          turn.legal_actions.length > 20 ? ` and ${turn.legal_actions.length - 20} more` : "",
        )
      : null,
    rewardChips(turn.rewards),
  );
}

/** Parts of a reward, each with its value. */
export function rewardChips(rewards) {
  return Object.entries(rewards).map(([part, value]) =>
    h(
      "span",
      {
        class: `chip ${value > 0 ? "gain" : value < 0 ? "loss" : ""}`,
        data: { reward: part },
        title: value === null ? "could not be measured" : null,
      },
      shown(part),
      " ",
      h("b", {}, signed(value)),
    ),
  );
}

function foot(view, turn) {
  const facts = [
    turn.sampled ? counted(turn.sampled, "token") : null,
    { length: "cut off at the longest reply", context: "cut off, the context was full" }[turn.stop] ?? null,
    turn.versions
      ? `weights ${[...new Set(turn.versions)].join(" to ")}`
      : null,
    ...Object.entries(turn.probes ?? {}).map(([name, value]) => `${visible(name)} ${number(value)}`),
  ].filter(Boolean);
  return h(
    "footer",
    {},
    h("span", { class: "muted" }, facts.join(" \u00b7 ")),
    h(
      "span",
      { class: "acts" },
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          data: { audit: turn.index },
          on: { click: () => view.audit(turn.index, "title") },
        },
        "Credit",
      ),
      h(
        "button",
        { type: "button", class: "quiet", data: { ask: turn.index }, on: { click: () => view.ask(turn.index) } },
        "Ask what if",
      ),
    ),
  );
}

function short(text) {
  return text.length > 200 ? `${text.slice(0, 200)}\u2026` : text;
}
