// Text that a model or a user wrote, made safe to look at. It is only ever put in as text, never as HTML.

// Control and format characters (bidi controls and zero-width characters among them), lone surrogates, odd line ends,
// and letters and selectors that have no width.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u034F\u115F\u1160\u17B4\u17B5\u3164\uFFA0\u{E0100}-\u{E01EF}]/gu;
const MANY_MARKS = 2000;

function mark(character) {
  const code = character.codePointAt(0);
  if (character === "\n" || character === "\t") return character;
  return `\u27E8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27E9`;
}

/** The text with everything shown that would not be seen, or would change how the rest is seen. */
export function visible(text) {
  return String(text ?? "").replace(HIDDEN, mark);
}

/** The same as an element of its own direction, with the marks set apart from what was really written. */
export function shown(text, tag = "bdi") {
  const whole = String(text ?? "");
  const element = document.createElement(tag);
  element.classList.add("text");
  element.dir = "auto";
  const found = [...whole.matchAll(HIDDEN)].filter(([character]) => mark(character) !== character);
  if (found.length > MANY_MARKS) {
    element.textContent = visible(whole);
    return element;
  }
  let from = 0;
  for (const match of found) {
    element.append(whole.slice(from, match.index));
    const symbol = document.createElement("span");
    symbol.className = "mark";
    symbol.textContent = mark(match[0]);
    symbol.title = `U+${match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    element.append(symbol);
    from = match.index + match[0].length;
  }
  element.append(whole.slice(from));
  return element;
}

/** A number in few digits; null is unknown. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "?";
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
}

/** The same with its sign. */
export function signed(value) {
  return value > 0 ? `+${number(value)}` : number(value);
}

/** "1 turn", "3 turns", "12,000 turns". */
export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/** A length of text in words. */
export function size(characters) {
  if (characters >= 1e6) return `${(characters / 1048576).toFixed(1)} MB`;
  return characters >= 1000 ? `${Math.round(characters / 1000)} kB` : counted(characters, "character");
}
