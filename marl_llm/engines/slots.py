"""Which sequence sits in which row of the key/value cache, and what a waiting request can reuse. No tensors here."""

import heapq
import struct
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from marl_llm.engines.base import Request

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
    """Copy positions `begin` to `end` of row `source` into each row of `targets`."""

    source: int
    targets: tuple[int, ...]
    begin: int
    end: int


def pack_tokens(tokens: Sequence[int]) -> bytes:
    """Tokens as bytes that compare, sort and share prefixes as the tokens do, but much faster."""
    return struct.pack(f">{len(tokens)}I", *tokens)


_WIDTH = 4
"""Bytes of a token in `pack_tokens`."""


class PrefixIndex:
    """Packed sequences by row, kept sorted: the longest shared prefix with anything is that with a neighbour."""

    def __init__(self) -> None:
        self._sorted: list[tuple[bytes, int]] = []
        self._packed: dict[int, bytes] = {}

    def add(self, row: int, packed: bytes) -> None:
        assert row not in self._packed
        self._packed[row] = packed
        insort(self._sorted, (packed, row))

    def remove(self, row: int) -> bytes:
        packed = self._packed.pop(row)
        del self._sorted[bisect_left(self._sorted, (packed, row))]
        return packed

    def longest(self, packed: bytes) -> tuple[int, int]:
        """The row that shares most leading tokens, and how many; (-1, 0) when nothing is shared."""
        place = bisect_left(self._sorted, (packed, -1))
        if packed and place < len(self._sorted) and self._sorted[place][0].startswith(packed):
            return self._sorted[place][1], len(packed) // _WIDTH
        best_row, best = -1, 0
        for neighbour, row in self._sorted[max(place - 1, 0) : place + 1]:
            shared = shared_prefix(packed, neighbour)
            if shared > best:
                best_row, best = row, shared
        return best_row, best


def shared_prefix(a: bytes, b: bytes) -> int:
    """Number of leading tokens that two packed sequences have in common."""
    limit = min(len(a), len(b))
    difference = int.from_bytes(a[:limit], "big") ^ int.from_bytes(b[:limit], "big")
    return (limit * 8 - difference.bit_length()) // (_WIDTH * 8)


class Slots:
    """Rows of the cache: at most `slots` of them run, the others are parked (reusable, oldest use first out) or free.

    A row never moves. Equal histories of calls lead to equal placements.
    """

    def __init__(self, *, slots: int, cache_slots: int) -> None:
        self._slots = slots
        self._free = list(range(slots + cache_slots))
        self._parked: dict[int, int] = {}
        """Number of tokens by row, in the order of their last use."""
        self._index = PrefixIndex()
        self.waiting: deque[tuple[Request, bytes]] = deque()
        """With the prompt, packed."""
        self.running: dict[int, Running] = {}

    def submit(self, request: Request) -> None:
        """Let a request wait for a row."""
        self.waiting.append((request, pack_tokens(request.prompt)))

    def admit(self) -> tuple[list[Running], list[Copy]]:
        """Give rows to waiting requests; return the new runs and the copies to make, in this order, before they read.

        A request stays waiting, without blocking others, while a running row is computing a prefix that it shares.
        """
        admitted: list[Running] = []
        copies: list[Copy] = []
        held: list[tuple[Request, bytes]] = []
        while self.waiting and len(self.running) < self._slots:
            request, packed = self.waiting.popleft()
            source, shared = self._index.longest(packed)
            # The last token of the prompt is always read again: its output is what the first sample needs.
            shared = min(shared, len(request.prompt) - 1)
            ready = min(shared, self._ready(source))
            if shared - ready >= WORTH_WAITING:
                held.append((request, packed))
                continue
            row, there = self._take_row(packed, source, ready)
            if ready > there:
                copies.append(Copy(source, (row,), there, ready))
            run = Running(request=request, row=row, tokens=list(request.prompt), filled=ready, reused=ready)
            self.running[row] = run
            self._index.add(row, packed)
            admitted.append(run)
        self.waiting.extendleft(reversed(held))
        return admitted, _merge(copies)

    def release(self, run: Running) -> None:
        """Park the row of a finished run, so that its keys and values can be reused."""
        del self.running[run.row]
        prompt = self._index.remove(run.row)
        self._parked[run.row] = run.filled
        self._index.add(run.row, prompt + pack_tokens(run.tokens[len(run.request.prompt) : run.filled]))

    def withdraw(self, request: Request) -> None:
        """Let a request wait no longer."""
        self.waiting = deque(item for item in self.waiting if item[0] is not request)

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
        return self._parked.get(row, 0)

    def _take_row(self, prompt: bytes, source: int, ready: int) -> tuple[int, int]:
        """Take a row for a request that reuses `ready` tokens of row `source`; the row, and how many it has already.

        A parked row that the request continues is taken over as it is: whoever else shares it finds the same prefix
        in the longer sequence.
        """
        if source in self._parked:
            if ready == self._parked[source]:
                self._drop(source)
                return source, ready
            self._parked[source] = self._parked.pop(source)
        if self._free:
            return heapq.heappop(self._free), 0
        oldest = next(iter(self._parked))
        # In self-play that is most often another game's turn, which began with the same rules.
        return oldest, shared_prefix(self._drop(oldest), prompt)

    def _drop(self, row: int) -> bytes:
        del self._parked[row]
        return self._index.remove(row)


def _merge(copies: Iterable[Copy]) -> list[Copy]:
    """Neighbouring copies from the same row up to the same end, which is what a group asks for, become one.

    What one of them would have skipped is copied along: its row holds the same there.
    """
    merged: list[Copy] = []
    for copy in copies:
        last = merged[-1] if merged else None
        if last is not None and (last.source, last.end) == (copy.source, copy.end):
            merged[-1] = Copy(copy.source, last.targets + copy.targets, min(last.begin, copy.begin), copy.end)
        else:
            merged.append(copy)
    return merged
