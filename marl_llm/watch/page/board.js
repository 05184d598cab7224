// A board as a table; in a game that is going on, its cells are buttons.

import { h } from "./dom.js";
import { shown, visible } from "./text.js";

// A mark such as X or 10 is drawn large; a board of longer texts is a table of words.
const MARK = 2;

/** `played`: the action to point out; `act(action)`: what a click does, null where nothing is to be done. */
export function drawBoard(board, { caption = "Board", played = null, act = null } = {}) {
  return h(
    "table",
    {
      class: board.rows.some((row) => row.some((cell) => cell.text.length > MARK)) ? "board words" : "board",
      "aria-label": caption,
    },
    h(
      "tbody",
      {},
      board.rows.map((row) =>
        h(
          "tr",
          {},
          row.map((cell) => drawCell(cell, played, act)),
        ),
      ),
    ),
  );
}

function drawCell(cell, played, act) {
  const here = played !== null && cell.action === played;
  const content = shown(cell.text);
  if (act && cell.action !== null) {
    const name = visible(cell.text ? `${cell.text} (${cell.action})` : cell.action);
    return h(
      "td",
      {},
      h(
        "button",
        {
          type: "button",
          data: { action: cell.action },
          "aria-label": name,
          title: visible(cell.action),
          on: { click: () => act(cell.action) },
        },
        cell.text ? content : h("span", { class: "hinted" }, visible(cell.action)),
      ),
    );
  }
  return h(
    "td",
    { class: here ? "played" : null, title: cell.action === null ? null : visible(cell.action) },
    content,
    here ? h("span", { class: "unseen" }, " played here") : null,
  );
}
