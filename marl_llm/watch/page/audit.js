// Where a turn's number comes from: its reward parts, each stage of a recipe, and whom it is compared with there.

import { Gone, get, onceBack, tellError } from "./api.js";
import { choice, h, put, say } from "./dom.js";
import { choose, episodePath } from "./route.js";
import { store } from "./store.js";
import { counted, shown, signed, visible } from "./text.js";
import { rewardChips } from "./turns.js";

const MEMBERS = 50;
const READING_MS = 1000;

/** Fill `place` with the credit of a turn. `recipe`: null is the run's own; `other`: one beside it, or null. */
export async function drawCredit(place, { id, turn, recipe, other }) {
  const own = store.run.recipe;
  const names = [...new Set([own, ...store.run.recipes])].filter(Boolean);
  const chosen = recipe ?? names[0];
  const call = (name) => [name, name === own ? `${visible(name)} (this run)` : visible(name)];
  const found = h("div", { class: "recipes", "aria-busy": "true" }, h("p", { class: "muted" }, "reckoning\u2026"));
  put(
    place,
    h(
      "div",
      { class: "pair" },
      choice("audit-recipe", "Recipe", names.map(call), chosen, (name) =>
        choose({ recipe: name === own ? null : name }, { replace: true }),
      ),
      choice(
        "audit-with",
        "Compare with",
        [["", "nothing"], ...names.filter((name) => name !== chosen).map(call)],
        other ?? "",
        (name) => choose({ with: name }, { replace: true }),
      ),
    ),
    found,
  );

  async function fill() {
    try {
      const told = await get("/api/credit", { id, turn, recipe: [chosen, other] });
      const parts = rewardChips(told.rewards);
      put(
        found,
        h(
          "p",
          { class: "parts" },
          parts.length ? ["Reward parts ", parts] : h("span", { class: "muted" }, "No reward was paid in this turn."),
        ),
        told.recipes.map((one) => drawRecipe(one, id, turn)),
      );
      if (told.recipes.some((one) => one.reading)) {
        setTimeout(() => found.isConnected && fill(), READING_MS);
        return;
      }
      say(
        told.recipes
          .map((one) => (one.error ? one.error : `${one.name}: advantage ${signed(one.advantage)}`))
          .join(", "),
      );
    } catch (error) {
      if (error instanceof Gone) onceBack(() => place.isConnected && drawCredit(place, { id, turn, recipe, other }));
      tellError(found, error);
    } finally {
      found.removeAttribute("aria-busy");
    }
  }
  await fill();
}

function drawRecipe(one, id, turn) {
  if (one.error || one.reading) {
    return h(
      "section",
      { class: "recipe", data: { recipe: one.name } },
      h("h3", {}, shown(one.name)),
      one.error
        ? h("p", { class: "error" }, shown(one.error))
        : [
            h("p", { class: "note" }, shown(one.note || "It remembers earlier steps, which are being read.")),
            h(
              "p",
              { class: "progress" },
              h("progress", { value: one.reading.done, max: one.reading.of }),
              ` ${one.reading.done} of ${one.reading.of}`,
            ),
          ],
    );
  }
  return h(
    "section",
    { class: "recipe", data: { recipe: one.name } },
    h(
      "h3",
      {},
      shown(one.name),
      h("b", { class: "advantage", data: { advantage: String(one.advantage) } }, signed(one.advantage)),
    ),
    h(
      "p",
      { class: "muted" },
      "advantage",
      one.by_token ? ", the mean over the turn's tokens" : "",
      one.about ? [" \u00b7 ", shown(one.about)] : null,
    ),
    one.note ? h("p", { class: "note" }, shown(one.note)) : null,
    h(
      "ol",
      { class: "stages" },
      one.stages.map((stage) => drawStage(stage, id, turn)),
    ),
  );
}

function drawStage(stage, id, turn) {
  return h(
    "li",
    { data: { stage: stage.label } },
    h(
      "p",
      { class: "change" },
      h("span", { class: "label" }, shown(stage.label)),
      h(
        "span",
        { class: "values" },
        stage.before === null ? null : [signed(stage.before), h("span", { class: "arrow" }, " \u2192 ")],
        h("b", {}, stage.after === null ? "unknown" : signed(stage.after)),
      ),
    ),
    stage.key === null || stage.key === undefined ? null : compared(stage, id, turn),
  );
}

function compared(stage, id, turn) {
  const baseline =
    stage.baseline === null || stage.baseline === undefined ? "" : `, baseline ${signed(stage.baseline)}`;
  const count = stage.count ?? stage.members.length;
  const self = `${id}#${turn}`;
  const row = ([name, value]) =>
    h(
      "tr",
      { class: name === self ? "self" : null },
      h(
        "td",
        {},
        name === self ? h("span", {}, shown(name), h("span", { class: "tag" }, "this turn")) : turnLink(name),
      ),
      h("td", { class: "number" }, value === null ? "?" : signed(value)),
    );
  const body = h("tbody", {}, stage.members.slice(0, MEMBERS).map(row));
  const rest = stage.members.length - MEMBERS;
  const more =
    rest <= 0
      ? null
      : h(
          "button",
          {
            type: "button",
            class: "quiet",
            on: {
              click: (event) => {
                body.append(...stage.members.slice(MEMBERS).map(row));
                event.target.remove();
              },
            },
          },
          `${rest} more`,
        );
  return h(
    "details",
    { open: count > 1 && count <= 16 },
    h("summary", {}, `${counted(count, "turn")} together${baseline}`),
    h("p", { class: "key muted" }, "they share ", shown(stage.key)),
    h(
      "table",
      { class: "members" },
      h(
        "thead",
        {},
        h("tr", {}, h("th", { scope: "col" }, "Turn"), h("th", { scope: "col", class: "number" }, "Went in")),
      ),
      body,
    ),
    more,
    count > stage.members.length
      ? h("p", { class: "muted" }, `and ${counted(count - stage.members.length, "turn")} that are not listed`)
      : null,
  );
}

/** A link to `episode#turn`. */
function turnLink(name) {
  const cut = name.lastIndexOf("#");
  return h("a", { href: episodePath(name.slice(0, cut), { turn: name.slice(cut + 1) }) }, shown(name));
}
