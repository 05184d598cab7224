"""Which sequence sits in which row of the key/value cache, and what a waiting request can reuse. No tensors here."""

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from marl_llm.engines.base import Request
from marl_llm.types import Tokens

WORTH_WAITING = 16
"""A request waits for keys and values that another row is about to compute if they cover this many more tokens."""


@dataclass(slots=True)
class Running:
    """A request that holds a row."""

    request: Request
    row: int
    tokens: list[int]
    """Prompt and what was sampled so far."""
    filled: int
    """Keys and values of `tokens[:filled]` are in the row."""
    reused: int = 0
    """Tokens whose keys and values were there when it was admitted."""
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    @property
    def pending(self) -> int:
        """Tokens that the model has yet to read before the next one can be sampled."""
        return len(self.tokens) - self.filled


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the first `length` positions of row `source` into each row of `targets`."""

    source: int
    targets: tuple[int, ...]
    length: int


class PrefixIndex:
    """Token sequences by row, kept sorted: the longest shared prefix with anything is that with a neighbour."""

    def __init__(self) -> None:
        self._sorted: list[tuple[Tokens, int]] = []
        self._tokens: dict[int, Tokens] = {}

    def add(self, row: int, tokens: Tokens) -> None:
        assert row not in self._tokens
        self._tokens[row] = tokens
        insort(self._sorted, (tokens, row))

    def remove(self, row: int) -> None:
        entry = (self._tokens.pop(row), row)
        del self._sorted[bisect_left(self._sorted, entry)]

    def longest(self, tokens: Tokens) -> tuple[int, int]:
        """The row that shares most leading tokens, and how many; (-1, 0) when nothing is shared."""
        place = bisect_left(self._sorted, (tokens, -1))
        best_row, best = -1, 0
        for neighbour, row in self._sorted[max(place - 1, 0) : place + 1]:
            shared = shared_prefix(tokens, neighbour)
            if shared > best:
                best_row, best = row, shared
        return best_row, best


def shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading tokens that two sequences have in common."""
    limit = min(len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    return next(i for i in range(limit) if a[i] != b[i])


class Slots:
    """Rows of the cache: at most `slots` of them run, the others are parked (reusable, oldest use first out) or free.

    A row never moves. Equal histories of calls lead to equal placements.
    """

    def __init__(self, *, slots: int, cache_slots: int) -> None:
        self._slots = slots
        self._free = list(range(slots + cache_slots))
        self._parked: dict[int, Tokens] = {}
        self._index = PrefixIndex()
        self.waiting: deque[Request] = deque()
        self.running: dict[int, Running] = {}

    def admit(self) -> tuple[list[Running], list[Copy]]:
        """Give rows to waiting requests; return the new runs and the copies to make, in this order, before they read.

        A request stays waiting, without blocking others, while a running row is computing a prefix that it shares.
        """
        admitted: list[Running] = []
        copies: list[tuple[int, int, int]] = []
        held: list[Request] = []
        while self.waiting and len(self.running) < self._slots:
            request = self.waiting.popleft()
            source, shared = self._index.longest(request.prompt)
            # The last token of the prompt is always read again: its output is what the first sample needs.
            shared = min(shared, len(request.prompt) - 1)
            ready = min(shared, self._ready(source))
            if shared - ready >= WORTH_WAITING:
                held.append(request)
                continue
            row, there = self._take_row(request.prompt, source, ready)
            if ready > there:
                copies.append((source, row, ready))
            run = Running(request=request, row=row, tokens=list(request.prompt), filled=ready, reused=ready)
            self.running[row] = run
            self._index.add(row, request.prompt)
            admitted.append(run)
        self.waiting.extendleft(reversed(held))
        return admitted, _merge(copies)

    def release(self, run: Running) -> None:
        """Park the row of a finished run, so that its keys and values can be reused."""
        del self.running[run.row]
        self._index.remove(run.row)
        self._park(run.row, tuple(run.tokens[: run.filled]))

    def forget(self) -> None:
        """Drop all keys and values: running rows have to read their tokens again."""
        for row in tuple(self._parked):
            self._drop(row)
            heapq.heappush(self._free, row)
        for run in self.running.values():
            run.filled = 0

    def _ready(self, row: int) -> int:
        if row in self.running:
            return self.running[row].filled
        return len(self._parked.get(row, ()))

    def _take_row(self, prompt: Tokens, source: int, ready: int) -> tuple[int, int]:
        """Take a row for a request that reuses `ready` tokens of row `source`; the row, and how many it has already.

        A parked row that the request continues is taken over as it is: whoever else shares it finds the same prefix
        in the longer sequence.
        """
        if source in self._parked:
            if ready == len(self._parked[source]):
                self._drop(source)
                return source, ready
            self._parked[source] = self._parked.pop(source)
        if self._free:
            return heapq.heappop(self._free), 0
        oldest = next(iter(self._parked))
        # In self-play that is most often another game's turn, which began with the same rules.
        return oldest, shared_prefix(self._drop(oldest), prompt)

    def _park(self, row: int, tokens: Tokens) -> None:
        self._parked[row] = tokens
        self._index.add(row, tokens)

    def _drop(self, row: int) -> Tokens:
        self._index.remove(row)
        return self._parked.pop(row)


def _merge(copies: Iterable[tuple[int, int, int]]) -> list[Copy]:
    """Neighbouring copies of the same source and length, which is what a group asks for, become one."""
    merged: list[Copy] = []
    for source, target, length in copies:
        if merged and (merged[-1].source, merged[-1].length) == (source, length):
            merged[-1] = Copy(source, (*merged[-1].targets, target), length)
        else:
            merged.append(Copy(source, (target,), length))
    return merged
