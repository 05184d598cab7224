"""Text of somebody else's, made safe to look at: what would act on a screen, or hide on it, is shown as a sign.

A model, a user or a file may write control characters, marks that turn the direction of a line, or characters that
nobody sees. Here they become something that can be read. Escaping for HTML is the business of whoever writes HTML.
"""

import unicodedata

_KEPT = "\n\t"
_SHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: controls, formats (bidi marks, zero widths), surrogates, private, unassigned, separators."""


class _Signs(dict[int, str]):
    """Code point to what is shown for it, looked up once."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if char in _KEPT or unicodedata.category(char) not in _SHOWN:
            sign = char
        else:
            sign = f"⟨U+{code:04X}⟩"
        self[code] = sign
        return sign


_SIGNS = _Signs()


def visible(text: str) -> str:
    """The text with every character that is not seen, or that changes how others are seen, as `⟨U+202E⟩`; line breaks
    and tabs stay. What comes back can be encoded as UTF-8."""
    return text if text.isascii() and text.isprintable() else text.translate(_SIGNS)


def cut(text: str, longest: int) -> tuple[str, int]:
    """At most `longest` characters of a text, and how many were left out."""
    return text[:longest], max(0, len(text) - longest)


def shortened(text: str, longest: int) -> str:
    """A visible text on one line, ended by `…` where it is longer than `longest` characters."""
    line = " ".join(text[: 4 * longest + 4].split())
    return visible(line if len(line) <= longest and len(text) <= 4 * longest + 4 else f"{line[: longest - 1]}…")
