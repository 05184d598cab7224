"""Deals groups of matches out to workers, wherever these are, and gathers the episodes of each step.

It knows workers by a `Future` for each call, and nothing of how they are reached, so that a test or a benchmark can put
anything there. One thread of its own reacts to whatever comes back; whoever trains waits in `finish`.
"""

import heapq
import queue
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from math import inf
from threading import Condition, Thread
from time import monotonic
from typing import Any, Protocol, TypeVar

from marl_llm.config import Config
from marl_llm.errors import MarlError, RunError
from marl_llm.runtime.rollouts import Step, Stop, Stopped, checked, gathered
from marl_llm.runtime.watchdog import Signs, Watchdog
from marl_llm.runtime.worker import Effort, Played, by_group
from marl_llm.types import Match

T = TypeVar("T")
SLICE_S = 0.2
"""Seconds that a worker plays on before it answers: so long it takes until it hears news."""
CALLS_PER_S = 250
"""Answers a second of all workers together, beyond those with something to tell; where there are more workers than that
allows, each plays on for longer."""
TICK_S = 0.5
"""Seconds between looks at who does not answer."""
IN_HAND = 2
"""Matches that a worker has, as a multiple of those that it plays at once: some wait there, so that it never does."""
SPARE = 3
"""So many may wait at a worker at least, so that workers that play few at once answer for several."""
MOST_TOLD = 64
"""Workers of which each has metrics of its own."""


class Gone(MarlError):
    """The process that was called is no longer there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """What everybody is to play with."""

    edition: int
    """Later ones are larger."""
    policies: Mapping[str, tuple[int, Any]]
    """Policy to its version and the way to its weights; policies that are not here stay as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a worker is told."""

    matches: tuple[Match, ...] = ()
    """Whole groups, to be begun."""
    weights: Weights | None = None
    """Before that these are to be loaded; None: what it has is right."""
    slice_s: float = SLICE_S
    """Seconds to play on before it answers, if it does not run short of matches."""

    def due(self, played_s: float, *, short: bool) -> bool:
        """Whether it is time to answer; `short`: something is over, and no match waits for another one to end."""
        return played_s >= (SLICE_S if short else self.slice_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a worker answers."""

    played: tuple[Played, ...] = ()
    """Groups that are over."""
    effort: Effort = field(default_factory=Effort)
    """What it did since its last answer."""
    signs: Signs = field(default_factory=Signs)
    """How it looks."""


class Handle(Protocol):
    """A worker, as the coordinator knows it. It is never called again before its last call has come back."""

    def play(self, order: Order) -> "Future[Report]":
        """Take the order, play on for a while, and tell what is over; the future fails with `Gone` if it is lost."""

    def signs(self) -> "Future[Signs]":
        """How it looks, also while `play` has not come back."""

    def end(self) -> None:
        """End it at once, whatever it does."""


@dataclass(kw_only=True, slots=True)
class _Slot:
    """The place of a worker, which may be taken by another one."""

    handle: Handle
    life: int = 0
    """Counts those who had the place: what an earlier one still answers is not heard."""
    groups: dict[str, tuple[Match, ...]] = field(default_factory=dict)
    """What it has, or gets with its next order, until it is over."""
    load: int = 0
    """Matches in `groups`."""
    fresh: list[Match] = field(default_factory=list)
    """What it gets with its next order."""
    edition: int = 0
    """Of the weights that it was sent last."""
    called: float | None = None
    """Since when a call has not come back."""
    busy_s: float = 0.0
    """In polls, since the last step."""
    games: int = 0
    """That it finished since the last step."""


@dataclass(kw_only=True, slots=True)
class _Step:
    """A step in play."""

    matches: int
    groups: int
    """That are not over."""
    played: list[Played] = field(default_factory=list)
    before: int = 0
    """Of these, how many were finished before the latest matches began."""
    policy_s: dict[str, float] = field(default_factory=dict)


class Coordinator:
    """Steps go in, each with its groups; workers get them as they have room; a step is over when all its groups are.

    A group stays with one worker. If that is lost, another one takes its place and the group is played again from its
    seeds: with the same weights it comes out as it would have.
    """

    def __init__(self, config: Config, spawn: Callable[[int], Handle], tell: Callable[[str], None]) -> None:
        """`spawn`: makes the worker of a place, without waiting for it. `tell`: what a person should know, in words."""
        self._config = config
        self._cluster = config.cluster
        self._spawn = spawn
        self._tell = tell
        self._slots = [_Slot(handle=spawn(number)) for number in range(config.cluster.workers)]
        self._room = [(0, number) for number in range(len(self._slots))]
        """A heap of (load, place); what no longer holds is skipped."""
        self._hand = max(IN_HAND * self._cluster.live, self._cluster.live + SPARE)
        self._slice_s = max(SLICE_S, min(len(self._slots) / CALLS_PER_S, (self._cluster.lost_s or inf) / 2))
        self._queue: deque[tuple[Match, ...]] = deque()
        """Groups that wait for room."""
        self._steps: dict[int, _Step] = {}
        self._finished: dict[int, _Step] = {}
        """The latest, until another one begins: there may be more of it."""
        self._step_of: dict[str, int] = {}
        self._editions = 0
        self._weights = Weights(edition=0, policies={})
        self._restarts = 0
        self._since = monotonic()
        self._error: Exception | None = None
        self._watchdog = Watchdog(config.cluster.hung_s, tell)
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._changed = Condition()
        self._thread = Thread(target=self._listen, name="coordinator", daemon=True)
        self._thread.start()

    # --- for whoever trains ------------------------------------------------------------------------------------------

    def publish(self, policies: Mapping[str, tuple[int, Any]]) -> None:
        """Have everybody play with these weights as soon as they hear of it, games in progress included."""
        with self._changed:
            self._weights = self.edition(policies)

    def edition(self, policies: Mapping[str, tuple[int, Any]]) -> Weights:
        """These weights as the latest edition, for whoever gets no orders."""
        with self._changed:
            self._editions += 1
            return Weights(edition=self._editions, policies=policies)

    def begin(self, step: int, matches: Sequence[Match]) -> None:
        """Deal a step's groups out, after those of earlier steps."""
        groups = by_group(matches)
        with self._changed:
            earlier = self._finished.get(step, _Step(matches=0, groups=0))
            self._finished = {}
            self._steps[step] = _Step(
                matches=earlier.matches + len(matches),
                groups=len(groups),
                played=earlier.played,
                before=len(earlier.played),
            )
            self._step_of |= dict.fromkeys(groups, step)
            self._queue.extend(map(tuple, groups.values()))
            self._deal()

    def finish(self, step: int, stop: Stop) -> Step:
        """Wait until a step is over; see `Rollouts.finish`."""
        with self._changed:
            while self._steps[step].groups and self._error is None:
                if stop():
                    raise Stopped(f"stopped in step {step}")
                self._changed.wait(TICK_S)
            if self._error is not None:
                raise self._error
            over = self._steps.pop(step)
            self._finished = {step: over}
            return gathered(over.played[over.before :], over.policy_s, self._metrics())

    def close(self) -> None:
        """End the thread and all workers."""
        self._inbox.put(None)
        self._thread.join()
        for slot in self._slots:
            slot.handle.end()

    def _metrics(self) -> dict[str, float]:
        """How the workers fared since the last step, by `cluster/NAME`."""
        now = monotonic()
        seconds, self._since = now - self._since, now
        busy = [slot.busy_s / seconds for slot in self._slots]
        told = {f"cluster/worker_{n}/busy": share for n, share in enumerate(busy)}
        told |= {f"cluster/worker_{n}/games_per_s": slot.games / seconds for n, slot in enumerate(self._slots)}
        for slot in self._slots:
            slot.busy_s, slot.games = 0.0, 0
        return {
            **(told if len(self._slots) <= MOST_TOLD else {}),
            "cluster/busy_mean": sum(busy) / len(busy),
            "cluster/busy_min": min(busy),
            "cluster/queue": float(len(self._queue)),
            "cluster/live": float(sum(slot.load for slot in self._slots)),
            "cluster/restarts": float(self._restarts),
        }

    # --- in its own thread -------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        looked = monotonic()
        while True:
            try:
                react = self._inbox.get(timeout=TICK_S)
            except queue.Empty:
                pass
            else:
                if react is None:
                    return
                self._react(react)
            if monotonic() - looked >= TICK_S:
                looked = monotonic()
                self._react(self._look)

    def _react(self, react: Callable[[], None]) -> None:
        with self._changed:
            if self._error is not None:
                return
            try:
                react()
            except Exception as error:  # a bad game, or a mistake of ours: whoever trains is told
                self._error = error
                self._changed.notify_all()

    def _hear(self, number: int, life: int, answer: "Future[Report]") -> None:
        """A call came back."""
        slot = self._slots[number]
        if slot.life != life:
            return
        slot.called = None
        try:
            report = answer.result()
        except Gone as error:
            self._replace(number, str(error))
            return
        self._watchdog.see(f"worker {number}", report.signs)
        slot.busy_s += report.effort.busy_s
        self._charge(report.effort)
        for played in report.played:
            self._over(slot, played)
        if report.played:
            heapq.heappush(self._room, (slot.load, number))
        if len(self._room) > 4 * len(self._slots):  # too much of it no longer holds
            self._room = [(slot.load, number) for number, slot in enumerate(self._slots)]
            heapq.heapify(self._room)
        self._call(number)
        self._deal()

    def _charge(self, effort: Effort) -> None:
        """Count seconds for the oldest step that is in play."""
        step = self._steps[min(self._steps)]
        for policy, seconds in effort.policy_s.items():
            step.policy_s[policy] = step.policy_s.get(policy, 0.0) + seconds

    def _over(self, slot: _Slot, played: Played) -> None:
        matches = slot.groups.pop(played.group)
        slot.load -= len(matches)
        slot.games += len(played.episodes)
        step = self._steps[self._step_of.pop(played.group)]
        step.played.append(played)
        step.groups -= 1
        checked(step.matches, step.played, [played], self._config, over=not step.groups)
        if not step.groups:
            self._changed.notify_all()

    def _deal(self) -> None:
        """Give groups to those who have least to do, as far as there is room, and call them."""
        dealt = set()
        while self._queue:
            load, number = self._room[0]
            slot, group = self._slots[number], self._queue[0]
            if load != slot.load:
                heapq.heappop(self._room)
                continue
            if load and load + len(group) > self._hand:
                break
            self._queue.popleft()
            slot.groups[group[0].group] = group
            slot.fresh += group
            slot.load += len(group)
            heapq.heapreplace(self._room, (slot.load, number))
            dealt.add(number)
        for number in sorted(dealt):
            self._call(number)

    def _call(self, number: int) -> None:
        """Have a worker that has something to do and no order in hand play on."""
        slot = self._slots[number]
        if slot.called is not None or not slot.groups:
            return
        news = self._weights if slot.edition != self._weights.edition else None
        order = Order(matches=tuple(slot.fresh), weights=news, slice_s=self._slice_s)
        slot.fresh, slot.edition, slot.called = [], self._weights.edition, monotonic()
        self._then(slot.handle.play(order), self._hear, number)

    def _then(self, answer: "Future[T]", react: "Callable[[int, int, Future[T]], None]", number: int) -> None:
        """React in the coordinator's thread when an answer is there."""
        life = self._slots[number].life
        answer.add_done_callback(lambda done: self._inbox.put(partial(react, number, life, done)))

    def _replace(self, number: int, why: str) -> None:
        """Put another worker in the place, and have it play all that the lost one had."""
        slot, self._restarts = self._slots[number], self._restarts + 1
        if self._restarts > self._cluster.restarts:
            raise RunError(f"worker {number} is lost ({why}), and cluster.restarts is {self._cluster.restarts}")
        lost = [match for group in slot.groups.values() for match in group]
        self._tell(f"worker {number} is lost ({why}); another one plays its {len(lost)} games again")
        slot.handle.end()
        self._slots[number] = _Slot(
            handle=self._spawn(number), life=slot.life + 1, groups=slot.groups, load=slot.load, fresh=lost
        )
        self._call(number)

    def _look(self) -> None:
        """See who has not answered for long."""
        now = monotonic()
        for number, slot in enumerate(self._slots):
            if slot.called is None:
                continue
            late = now - slot.called
            if self._cluster.lost_s is not None and late >= self._cluster.lost_s:
                self._replace(number, f"it has not answered for {late:.0f} s")
            elif late >= self._cluster.hung_s / 2 and late > 2 * SLICE_S:
                self._then(slot.handle.signs(), self._saw, number)

    def _saw(self, number: int, life: int, signs: "Future[Signs]") -> None:
        if self._slots[number].life == life and signs.exception() is None:  # what is gone is replaced by its own call
            self._watchdog.see(f"worker {number}", signs.result())
