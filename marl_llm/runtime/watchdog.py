"""Who does not answer: named in words, by whoever has the time to look."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What a worker shows of itself, from whatever thread one looks."""

    polls: int = 0
    """How often its thread has come round."""
    doing: str = ""
    """What this thread is in; empty: in nothing of ours."""
    waiting: tuple[str, float] | None = None
    """Of all who were asked and have not answered the one that was asked first, and the seconds since."""


class Watchdog:
    """Tells, once for each, of what has not answered for long. It decides nothing."""

    def __init__(self, hung_s: float, tell: Callable[[str], None]) -> None:
        """`hung_s`: seconds that are long."""
        self._hung_s = hung_s
        self._tell = tell
        self._since: dict[str, tuple[int, str, float]] = {}
        self._told: set[str] = set()

    def see(self, who: str, signs: Signs, now: float | None = None) -> None:
        """Look at the signs of a worker, at a time in seconds (default: the present)."""
        now = monotonic() if now is None else now
        polls, doing, since = self._since.get(who, (-1, "", now))
        if (polls, doing) != (signs.polls, signs.doing):
            self._since[who] = (signs.polls, signs.doing, now)
        elif doing and now - since >= self._hung_s:
            self._say(f"{who}, poll {polls}: {doing} does not return", now - since)
        if signs.waiting is not None and signs.waiting[1] >= self._hung_s:
            self._say(f"{who}: {signs.waiting[0]}", signs.waiting[1])

    def _say(self, what: str, seconds: float) -> None:
        if what not in self._told:
            self._told.add(what)
            self._tell(f"{what}, for {seconds:.0f} s now")


@contextmanager
def watched(who: str, signs: Callable[[], Signs], hung_s: float, tell: Callable[[str], None]) -> Iterator[None]:
    """Look at a worker of this process from a thread, for as long as the context lasts."""
    over, watchdog = Event(), Watchdog(hung_s, tell)

    def look() -> None:
        while not over.wait(hung_s / 4):
            watchdog.see(who, signs())

    thread = Thread(target=look, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
