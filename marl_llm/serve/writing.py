"""A reply as text while its tokens arrive."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from marl_llm.types import Tokens

Decode = Callable[[Sequence[int]], str]
BROKEN = "\ufffd"
"""What the bytes of half a character are shown as."""


class Writing:
    """What may be shown of a reply already, and where a stop text ends it, however its tokens come in."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._tokens: Tokens = ()
        self._window = self._read = 0
        """Text of all tokens before `_read` is in `text`; those from `_window` on are decoded again with the next."""
        self._shown = 0
        self.text = ""
        """All of it so far, without what is no whole character yet; where it was stopped, up to there."""
        self.stopped = False
        """Whether a stop text came."""

    def add(self, tokens: Tokens, *, last: bool = False) -> None:
        """All tokens so far, without the one that ends a reply. `last`: there will be no more."""
        if self.stopped:
            return
        self._tokens = tokens
        old = self._decode(tokens[self._window : self._read])
        new = self._decode(tokens[self._window :])
        if new.endswith(BROKEN) and not last:
            return
        self._window, self._read = self._read, len(tokens)
        self.say(new[len(old) :])

    def say(self, more: str) -> None:
        """Text that comes without tokens."""
        before = len(self.text)
        self.text += more
        found = _first(self.text, self._stops, max(0, before - self._longest + 1))
        if found is not None:
            self.text, self.stopped = self.text[:found], True

    def news(self) -> str:
        """What can be shown and was not; the beginning of what may become a stop text waits."""
        end = len(self.text) - (0 if self.stopped else self._held())
        new, self._shown = self.text[self._shown : end], max(self._shown, end)
        return new

    def rest(self) -> str:
        """What was not shown, when nothing more comes."""
        new, self._shown = self.text[self._shown :], len(self.text)
        return new

    @property
    def used(self) -> int:
        """How many tokens the text takes, those of the stop text included."""
        if not self.stopped:
            return len(self._tokens)

        def stopped(count: int) -> bool:
            return _first(self._decode(self._tokens[:count]), self._stops, 0) is not None

        return bisect_left(range(len(self._tokens)), True, key=stopped)

    def _held(self) -> int:
        for length in range(min(self._longest - 1, len(self.text)), 0, -1):
            if any(stop.startswith(self.text[-length:]) for stop in self._stops):
                return length
        return 0


def _first(text: str, stops: Sequence[str], start: int) -> int | None:
    """Where the stop text begins that ends first, from `start` on; of several the longest. None: there is none."""
    found = [(place + len(stop), place) for stop in stops if (place := text.find(stop, start)) >= 0]
    return min(found)[1] if found else None
