// Turns and tokens coloured by a number. Blue is above the middle and orange below it; what has no middle is violet.

import { h, put } from "./dom.js";
import { number, shown, signed, visible } from "./text.js";

export const COLOURINGS = {
  logprob: "log-probability",
  advantage: "advantage",
  ratio: "ratio",
  entropy: "entropy",
};
const STRONGEST = 0.5;
// Tokens that are drawn at once, in an episode and in a reply; others when they come into view or are asked for.
const AT_ONCE = 3000;
const IN_REPLY = 4000;

/** How numbers become colours. `found`: the answer of /api/colours. */
export function scale(found) {
  const tokens = found.turns.reduce((sum, turn) => sum + (turn.tokens?.length ?? 0), 0);
  return { ...range(found), lazy: tokens > AT_ONCE };
}

function range(found) {
  const values = found.turns.flatMap((turn) => [turn.value, ...(turn.tokens ?? []).map((token) => token.value)]);
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  const far = (measure) => known.reduce((most, value) => Math.max(most, Math.abs(measure(value))), 1e-9);
  const both = found.by !== "logprob" && known.some((value) => value < 0) && known.some((value) => value > 0);
  if (found.by === "advantage" || both) {
    const most = far((value) => value);
    return { share: (value) => value / most, low: -most, middle: 0, high: most };
  }
  if (found.by === "ratio") {
    const log = (value) => Math.log(Math.max(value, 1e-9));
    const most = far(log);
    return { share: (value) => log(value) / most, low: Math.exp(-most), middle: 1, high: Math.exp(most) };
  }
  const most = far((value) => value);
  return {
    share: (value) => Math.abs(value) / most,
    low: 0,
    middle: null,
    high: found.by === "logprob" ? -most : most,
  };
}

/** Colour an element; null is not coloured. */
export function paint(element, value, { share, middle }) {
  if (value === null || !Number.isFinite(value)) return;
  const part = share(value);
  element.classList.add("painted", middle === null ? "strong" : part < 0 ? "below" : "above");
  element.style.setProperty("--share", `${(Math.min(1, Math.abs(part)) * STRONGEST * 100).toFixed(1)}%`);
}

/** What the colours mean. */
export function legend(found, colours) {
  const { low, middle, high } = colours;
  const unit = found.unit ? ` ${visible(found.unit)}` : "";
  const say = colours.middle === 0 ? signed : number;
  return h(
    "div",
    { class: "scale", id: "legend" },
    h("p", {}, shown(found.about)),
    h(
      "div",
      { class: "ramp-line" },
      h("span", {}, `${say(low)}${middle === null ? unit : ""}`),
      h("span", { class: middle === null ? "ramp strong" : "ramp two", "aria-hidden": "true" }),
      middle === null ? null : h("span", { class: "unseen" }, `, ${number(middle)} in the middle, `),
      h("span", {}, `${say(high)}${unit}`),
    ),
  );
}

/** The value of a whole turn, with a bar. */
export function valueBar(value, found, colours) {
  const text = colours.middle === 0 ? signed(value) : number(value);
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  if (value !== null) {
    const part = colours.share(value);
    bar.classList.add(colours.middle === null ? "strong" : part < 0 ? "below" : "above");
    bar.style.setProperty("--length", `${Math.min(1, Math.abs(part)) * 100}%`);
  }
  return h(
    "p",
    { class: "value", data: { value: String(value) } },
    h("span", {}, COLOURINGS[found.by] ?? visible(found.by)),
    h("b", {}, text),
    bar,
  );
}

/**
 * Tokens as text, each with its value. One stop of the tab key; the arrow keys go from token to token, and the value
 * is told in words below.
 */
export function tokenText(tokens, colours, label) {
  const told = h("p", { class: "token-value", "aria-live": "polite" }, "point at a token, or use the arrow keys");
  const block = h("bdi", { class: "text tokens", role: "group", "aria-label": label, dir: "auto" });
  const spans = [];
  const more = h("button", { type: "button", class: "quiet", hidden: true, on: { click: drawMore } });

  function draw(token, index) {
    const span = shown(token.text, "span");
    span.className = "token";
    span.removeAttribute("dir");
    span.dataset.token = index;
    span.dataset.value = String(token.value);
    span.title = number(token.value);
    span.tabIndex = index ? -1 : 0;
    paint(span, token.value, colours);
    return span;
  }

  function drawMore() {
    if (!spans.length) put(block);
    const from = spans.length;
    spans.push(...tokens.slice(from, from + IN_REPLY).map((token, index) => draw(token, from + index)));
    block.append(...spans.slice(from));
    more.hidden = spans.length === tokens.length;
    more.textContent = `${(tokens.length - spans.length).toLocaleString("en")} more tokens`;
  }

  if (colours.lazy) {
    put(
      block,
      visible(
        tokens
          .slice(0, IN_REPLY)
          .map((token) => token.text)
          .join(""),
      ),
    );
    onceSeen(block, drawMore);
  } else drawMore();
  const tell = (span) =>
    put(
      told,
      h("b", {}, number(tokens[span.dataset.token].value)),
      " ",
      visible(JSON.stringify(tokens[span.dataset.token].text)),
    );
  const at = (event) => event.target.closest?.(".token");
  block.addEventListener("pointerover", (event) => at(event) && tell(at(event)));
  block.addEventListener("focusin", (event) => at(event) && tell(at(event)));
  block.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const from = at(event);
    if (!by || !from) return;
    event.preventDefault();
    const next = spans[Number(from.dataset.token) + by];
    if (!next) return;
    from.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  return h("div", { class: "tokens-block" }, block, more, told);
}

/** Call `draw` when the element is about to come into view. */
function onceSeen(element, draw) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      draw();
    },
    { rootMargin: "800px" },
  );
  observer.observe(element);
}

/** Tokens of the thought, and those of what follows it. */
export function parted(tokens) {
  let text = "";
  for (let index = 0; index < tokens.length; index += 1) {
    text += tokens[index].text;
    if (text.includes("</think>")) return [tokens.slice(0, index + 1), tokens.slice(index + 1)];
  }
  return [[], tokens];
}
