// Elements in one line. Strings become text nodes, and nothing ever becomes HTML.

const SVG = "http://www.w3.org/2000/svg";
const AS_PROPERTY = new Set([
  "value",
  "checked",
  "disabled",
  "hidden",
  "open",
  "selected",
  "tabIndex",
  "readOnly",
  "colSpan",
]);

/**
 * h("button", {class: "quiet", data: {turn: 1}, on: {click}}, "Audit"). Children: nodes, strings, numbers, lists of
 * them; null and false are left out, as are attributes that are null or false.
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for what is drawn. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name === "on")
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") for (const [key, text] of Object.entries(value)) element.dataset[key] = text;
    else if (AS_PROPERTY.has(name)) element[name] = value;
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...flat(children));
  return element;
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Put these in place of what is in the element. */
export function put(element, ...children) {
  element.replaceChildren(...flat(children));
  return element;
}

/** A select with its label. `options`: [value, text] each; `chosen`: the value that is selected. */
export function choice(id, label, options, chosen, onchange) {
  const select = h(
    "select",
    { id, name: id, on: { change: () => onchange?.(select.value) } },
    options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)),
  );
  return field(id, label, select);
}

/** A control under its label. */
export function field(id, label, control) {
  return h("div", { class: "field" }, h("label", { for: id }, label), control);
}

/** Radio buttons in a row. */
export function segments(name, label, options, chosen, onchange) {
  return h(
    "fieldset",
    { class: "segments", id: name },
    h("legend", {}, label),
    options.map(([value, text]) =>
      h(
        "label",
        {},
        h("input", {
          type: "radio",
          name,
          value,
          checked: value === chosen,
          data: { [name]: value },
          on: { change: () => onchange(value) },
        }),
        h("span", {}, text),
      ),
    ),
  );
}

/** Say it to those who do not see the page change. */
export function say(text) {
  document.getElementById("said").textContent = text;
}
