// Small curves of the run: one picture a quantity, a line for each role or policy, and in words what is pointed at.

import { h, put, svg } from "./dom.js";
import { number, visible } from "./text.js";

const WIDTH = 240;
const HEIGHT = 72;
const EDGE = 4;
const LINES = 6;

const CHARTS = [
  ["return", "Return", /^play\/return\//],
  ["exploitability", "Exploitability", /(^|\/)exploitability$/],
  ["illegal", "Illegal moves, share", /^play\/(.*\/)?illegal_fraction$/],
  ["entropy", "Entropy, nats", /^learn\/(.*\/)?entropy$/],
  ["length", "Reply length, tokens", /^play\/(.*\/)?reply_tokens$/],
];

/** A figure for each quantity that the run has. `curves`: the answer of /api/curves. */
export function figures({ steps, series }) {
  return CHARTS.map(([id, title, pattern]) => {
    const names = Object.keys(series).filter(
      (name) => pattern.test(name) && series[name].some((value) => value !== null),
    );
    return names.length ? figure(id, title, steps, names.slice(0, LINES), names.length, series) : null;
  }).filter(Boolean);
}

function figure(id, title, steps, names, all, series) {
  const labels = ends(names);
  const values = names.map((name) => series[name]);
  const known = values.flat().filter((value) => value !== null);
  let low = known.reduce((least, value) => Math.min(least, value));
  let high = known.reduce((most, value) => Math.max(most, value));
  const [least, most] = [low, high];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const x = (index) => EDGE + ((WIDTH - 2 * EDGE) * index) / Math.max(1, steps.length - 1);
  const y = (value) => HEIGHT - EDGE - ((HEIGHT - 2 * EDGE) * (value - low)) / (high - low);

  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const dots = names.map((_, line) => svg("path", { class: `dot line-${line}`, visibility: "hidden" }));
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    low < 0 && high > 0 ? svg("line", { class: "zero", x1: 0, x2: WIDTH, y1: y(0), y2: y(0) }) : null,
    values.map((line, number) => lines(line, x, y, `curve line-${number}`)),
    cursor,
    dots,
  );
  const told = h("p", { class: "told" });
  const area = h(
    "div",
    {
      class: "plot",
      tabIndex: 0,
      role: "slider",
      "aria-label": `${title}: value at a step`,
      "aria-valuemin": steps[0],
      "aria-valuemax": steps.at(-1),
      data: { curve: id },
    },
    drawing,
    h("span", { class: "bound high" }, number(most)),
    h("span", { class: "bound low" }, number(least)),
  );
  let at = steps.length - 1;

  function tell(index, seen) {
    at = index;
    const words = names.map(
      (_, line) => `${labels[line] ? `${labels[line]} ` : ""}${number(lately(values[line], index))}`,
    );
    put(
      told,
      h("span", { class: "at" }, `step ${number(steps[index])}`),
      names.map((_, line) =>
        h(
          "span",
          { class: `legend line-${line}` },
          labels[line] ? `${labels[line]} ` : "",
          h("b", {}, number(lately(values[line], index))),
        ),
      ),
      all > names.length ? h("span", { class: "muted" }, `and ${all - names.length} more`) : null,
    );
    area.setAttribute("aria-valuenow", steps[index]);
    area.setAttribute("aria-valuetext", `step ${number(steps[index])}: ${words.join(", ")}`);
    cursor.setAttribute("visibility", seen ? "visible" : "hidden");
    cursor.setAttribute("x1", x(index));
    cursor.setAttribute("x2", x(index));
    dots.forEach((dot, line) => {
      const value = values[line][index];
      dot.setAttribute("visibility", seen && value !== null ? "visible" : "hidden");
      if (value !== null) dot.setAttribute("d", point(x(index), y(value)));
    });
  }
  const rest = () => tell(steps.length - 1, false);
  area.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width) * WIDTH;
    tell(clamp(Math.round(((share - EDGE) / (WIDTH - 2 * EDGE)) * (steps.length - 1)), steps.length), true);
  });
  area.addEventListener("pointerleave", rest);
  area.addEventListener("focus", () => tell(at, true));
  area.addEventListener("blur", rest);
  area.addEventListener("keydown", (event) => {
    const far = Math.max(1, Math.round(steps.length / 10));
    const to = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      ArrowDown: at - 1,
      ArrowUp: at + 1,
      PageDown: at - far,
      PageUp: at + far,
      Home: 0,
      End: steps.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tell(clamp(to, steps.length), true);
  });
  rest();
  return h("figure", { class: "chart" }, h("figcaption", {}, title), area, told);
}

/** The value at the index, or the last one that was measured before it. */
function lately(line, index) {
  for (let back = index; back >= 0; back -= 1) if (line[back] !== null) return line[back];
  return null;
}

/** A line through what is known; what was measured rarely is joined over its gaps. */
function lines(values, x, y, name) {
  const points = values.map((value, index) =>
    value === null ? null : `${x(index).toFixed(1)},${y(value).toFixed(1)}`,
  );
  const known = points.filter(Boolean);
  if (known.length > 1) return svg("polyline", { class: name, points: known.join(" ") });
  return svg("path", { class: `${name} dot`, d: point(...known[0].split(",")) });
}

/** A round dot, however the picture is stretched: a line of no length with round ends. */
function point(x, y) {
  return `M${x} ${y}h0`;
}

/** What tells names apart: common beginnings and ends, by whole parts between slashes, are left out. */
function ends(names) {
  if (names.length === 1) return [""];
  const parts = names.map((name) => name.split("/"));
  const fewest = Math.min(...parts.map((one) => one.length));
  let from = 0;
  while (from < fewest - 1 && parts.every((one) => one[from] === parts[0][from])) from += 1;
  let off = 0;
  while (off < fewest - from - 1 && parts.every((one) => one.at(-1 - off) === parts[0].at(-1 - off))) off += 1;
  return parts.map((one) => visible(one.slice(from, one.length - off).join("/")));
}

function clamp(index, count) {
  return Math.min(count - 1, Math.max(0, index));
}
