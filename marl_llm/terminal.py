"""Texts of somebody else's in a terminal."""

from rich.markup import escape

LONGEST = 200
"""Characters of a text of somebody else's that are shown."""


def shown(text: str, longest: int | None = LONGEST) -> str:
    """A text for the terminal: no markup, no control characters, no more than `longest`."""
    return escape(plain(text, longest))


def plain(text: str, longest: int | None) -> str:
    """Whatever a terminal would obey, or would show as nothing or the other way round, as its escape in Python."""
    short = text if longest is None or len(text) <= longest else f"{text[:longest]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
