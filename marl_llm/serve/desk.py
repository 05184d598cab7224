"""One thread that has all engines: others hand it work from any thread, and it tells them what comes of it.

What is asked at the same time is sampled in one batch by the engine. The thread sleeps while there is nothing to do.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

from marl_llm.engines.base import Engine, Request
from marl_llm.engines.checks import check_pairs
from marl_llm.engines.share import Share
from marl_llm.play import Hall
from marl_llm.policies.llm import LLMPolicy
from marl_llm.types import Match, Tokens

PACE_S = 0.04
"""Whoever watches is told at most this often: telling of every token would cost the engine more than sampling it."""
SCORED_AT_ONCE = 4096
"""Tokens that are scored before those in flight get their next ones."""


class Place:
    """A policy at the desk: its engine has several who ask, each with a view of its own."""

    def __init__(self, policy: LLMPolicy) -> None:
        self.policy = policy
        self.view: Share[Engine] = Share(policy.engine, policy.name, called="desk", steps=False)

    def seat(self, number: int, *, temperature: float | None, max_tokens: int | None) -> LLMPolicy:
        """The policy for one match, with a view of its own."""
        mine = self.policy
        return mine.beside(
            Share(mine.engine, mine.name, beside=self.view, called=number, steps=False),
            temperature=mine.temperature if temperature is None else temperature,
            max_reply_tokens=min(mine.max_reply_tokens, max_tokens or mine.max_reply_tokens),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """A completion is asked for; what comes is a `Completion`."""

    place: Place
    """Whose."""
    prompt: Tokens
    """At least one token, and room for one more."""
    max_tokens: int
    """At least 1."""
    temperature: float
    """0 or more."""
    seed: int
    """0 <= seed < 2**63."""
    watch: bool = False
    """Whether what was sampled so far is told, now and then, as `Tokens`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """Tokens are to be scored, all but the first; what comes is `Scores`."""

    place: Place
    """Whose probabilities."""
    tokens: Tokens
    """At least one, and no more than the context."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Of every token but the first, given those before it."""

    logprobs: tuple[float, ...]
    """Log-probabilities in nats, at temperature 1."""
    best: tuple[tuple[int, float], ...]
    """The most probable token in its place, with its log-probability."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Playing:
    """A match is to be played; what comes is an `Episode`."""

    match: Match
    """Its seats name places."""
    places: Mapping[str, Place]
    """Who may have a seat."""
    max_turns: int
    """After which it is truncated."""
    temperature: float | None = None
    """Of all who play; None: each its own."""
    max_tokens: int | None = None
    """Most tokens of a reply; None: as each has it."""


Work = Sampling | Scoring | Playing
Tell = Callable[[Any], None]
"""Is given what comes of a work (see there), or the exception that ended it."""


@dataclass(slots=True)
class _Open:
    """A work that is not done."""

    work: Work
    tell: Tell
    due: float = 0.0
    """When it may be told of again, if it is watched."""
    told: int = 0
    """Tokens that were told of."""
    hall: Hall | None = None
    seated: dict[str, LLMPolicy] = field(default_factory=dict)
    stir: int = 2
    """How often the hall is still looked at though no engine brought anything: a prompt without room answers itself."""

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(self.work.places.values()) if isinstance(self.work, Playing) else (self.work.place,)


class Desk:
    """Takes work from any thread; `close` ends it."""

    def __init__(self, notify: Callable[[Callable[[], None]], Any]) -> None:
        """`notify`: has a function called where whoever asked wants to be told, as `loop.call_soon_threadsafe` does."""
        self._notify = notify
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._numbers = itertools.count()
        self._open: dict[int, _Open] = {}
        self._scoring: dict[int, _Open] = {}
        self._at: Counter[Place] = Counter()
        """How much is in flight at each place."""
        self._news: list[tuple[Tell, Any]] = []
        self._closing = False
        self.broken: BaseException | None = None
        """Why nothing is done any more; None: all is well."""
        self._thread = Thread(target=self._run, name="desk", daemon=True)
        self._thread.start()

    def submit(self, work: Work, tell: Tell) -> int:
        """Hand in a work; `tell` is called with what comes of it. Returns the number by which it can be cancelled."""
        number = next(self._numbers)
        self._inbox.put(lambda: self._begin(number, _Open(work, tell)))
        return number

    def cancel(self, number: int) -> None:
        """Drop a work, if it is not done; nothing more is told of it."""
        self._inbox.put(lambda: self._drop(number))

    def close(self) -> None:
        """Drop everything and end the thread."""
        self._inbox.put(self._close)
        self._thread.join()

    def _close(self) -> None:
        for number in tuple(self._open):
            self._drop(number)
        self._closing = True

    def _run(self) -> None:
        try:
            while not self._closing:
                self._take()
                self._score()
                for place in tuple(self._at):
                    place.view.step()
                    for number, completion in place.view.poll():
                        self._end(number, completion)  # type: ignore[arg-type]
                self._play()
                self._watch()
                self._send()
        except Exception as error:  # whatever an engine raises: those who wait are told, and so is who asks for health
            self.broken = error
            while not self._closing:
                for open_ in self._open.values():
                    self._news.append((open_.tell, error))
                self._open.clear()
                self._send()
                self._inbox.get()()

    def _take(self) -> None:
        """What has come in; waits for it if there is nothing to do."""
        if not self._open:
            self._inbox.get()()
        try:
            while True:
                self._inbox.get_nowait()()
        except Empty:
            return

    def _begin(self, number: int, open_: _Open) -> None:
        self._open[number] = open_
        if self.broken is not None:
            return
        self._at.update(open_.places)
        work = open_.work
        try:
            if isinstance(work, Scoring):
                check_pairs([(work.tokens[:1], work.tokens[1:])], work.place.policy.engine.context_tokens, 1.0)
                self._scoring[number] = open_
            elif isinstance(work, Playing):
                settings = {"temperature": work.temperature, "max_tokens": work.max_tokens}
                open_.seated = {name: place.seat(number, **settings) for name, place in work.places.items()}  # type: ignore[arg-type]
                open_.hall = Hall(open_.seated, max_turns=work.max_turns)
                open_.hall.begin([work.match])
            else:
                work.place.view.submit(_request(number, work))
        except ValueError as error:
            self._end(number, error)

    def _end(self, number: int, news: Any) -> None:
        open_ = self._open.pop(number)
        self._leave(number, open_)
        self._news.append((open_.tell, news))

    def _drop(self, number: int) -> None:
        open_ = self._open.pop(number, None)
        if open_ is None or self.broken is not None:
            return
        if isinstance(open_.work, Sampling):
            open_.work.place.view.cancel(number)
        self._leave(number, open_)

    def _leave(self, number: int, open_: _Open) -> None:
        self._scoring.pop(number, None)
        for policy in open_.seated.values():
            policy.cancel()
            assert isinstance(policy.engine, Share)
            policy.engine.close()
        self._at.subtract(open_.places)
        self._at = +self._at

    def _score(self) -> None:
        """Some of what is to be scored, all at one place."""
        if not self._scoring:
            return
        place = next(iter(self._scoring.values())).work.place  # type: ignore[union-attr]
        chosen: dict[int, tuple[Tokens, Tokens]] = {}
        tokens = 0
        for number, open_ in self._scoring.items():
            work = open_.work
            assert isinstance(work, Scoring)
            if work.place is place and (not chosen or tokens + len(work.tokens) <= SCORED_AT_ONCE):
                chosen[number] = (work.tokens[:1], work.tokens[1:])
                tokens += len(work.tokens)
        name, pairs = place.policy.name, list(chosen.values())
        scored, best = place.view.score(name, pairs), place.view.best(name, pairs)
        for number, logprobs, top in zip(chosen, scored, best, strict=True):
            self._end(number, Scores(logprobs=logprobs, best=top))

    def _play(self) -> None:
        """Let every match go on that can. One that fails is told of, and no other is touched."""
        for number, open_ in tuple(self._open.items()):
            if open_.hall is None:
                continue
            came = any(policy.engine.ready for policy in open_.seated.values())  # type: ignore[attr-defined]
            open_.stir = 2 if came else open_.stir - 1
            if open_.stir < 0:
                continue
            try:
                over = open_.hall.poll()
            except Exception as error:  # whatever a game raises, its match ends alone
                self._end(number, error)
                continue
            if over:
                self._end(number, over[0])

    def _watch(self) -> None:
        now = monotonic()
        for number, open_ in self._open.items():
            if isinstance(open_.work, Sampling) and open_.work.watch and now >= open_.due:
                tokens = open_.work.place.view.sampled(number)
                if len(tokens) > open_.told:
                    open_.told, open_.due = len(tokens), now + PACE_S
                    self._news.append((open_.tell, tokens))

    def _send(self) -> None:
        """One call for all the news of a step."""
        if self._news:
            news, self._news = self._news, []
            self._notify(lambda: _tell_all(news))


def _tell_all(news: list[tuple[Tell, Any]]) -> None:
    for tell, what in news:
        tell(what)


def _request(ticket: Hashable, work: Sampling) -> Request:
    return Request(
        ticket=ticket,
        policy=work.place.policy.name,
        prompt=work.prompt,
        max_tokens=work.max_tokens,
        seed=work.seed,
        temperature=work.temperature,
    )
