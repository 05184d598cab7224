"""The store between those who play and those who learn: samples go in member by member, whole groups come out once.

Every learner has a queue, by the name of its policy, and takes from it when it likes. Nothing depends on the order in
which entries arrive. `memory.py` is for the threads of one process, `sqlite.py` for several processes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

from marl_llm.errors import MarlError
from marl_llm.types import Sample, Span

STORED = "store.jsonl"
"""The file of a checkpoint that holds what a store held."""
DIGEST = 16
"""Bytes of the digest of an entry."""
Clock = Callable[[], float]
"""Seconds; one clock for all who share a store."""
Committed = Literal["stored", "known", "dropped"]
"""What became of an entry: it is new; it was here before; its group had been dropped, and it with it."""


class StoreError(MarlError):
    """An entry contradicts what the store knows."""


class StoreFull(StoreError):
    """The queue holds as many groups as it may: commit again once its learner has taken some."""


class LeaseLost(StoreError):
    """The lease is over, and its groups may be somebody else's by now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One member of a group: what one policy sampled in one episode."""

    queue: str
    """Whose learner takes it."""
    group: str
    """Which group it belongs to."""
    size: int
    """How many members the group has, this one included; 1 or more."""
    key: str
    """Which member it is: unique in its queue."""
    version: int
    """Oldest version of the weights that it was sampled with."""
    samples: tuple[Sample, ...]
    """May be empty: the policy had no turn in this episode."""


Group = tuple[Entry, ...]
"""All members, in the order of their keys."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """Groups that nobody else gets before the lease is over."""

    id: int
    """Never used again by this store."""
    queue: str
    """Where they come from."""
    groups: tuple[Group, ...]
    """In the order of (oldest version, name)."""

    def versions(self) -> list[int]:
        """Of each group: the oldest version that it was sampled with."""
        return [min(entry.version for entry in group) for group in self.groups]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Groups of a queue; each group that ever had an entry, or was withdrawn, is in one of these."""

    waiting: int = 0
    """Complete, and free to be leased."""
    incomplete: int = 0
    """Members are still to come."""
    leased: int = 0
    """Being learned from."""
    acknowledged: int = 0
    """Learned from."""
    dropped: int = 0
    """Too old, or withdrawn."""


class Store(Protocol):
    """Groups of samples on their way to the learners."""

    def commit(self, entry: Entry) -> Committed:
        """Add an entry, once: the same again is `known`, also after its group was learned from.

        A queue is full when it holds `max_groups`, incomplete and leased ones included; the members that are missing
        in a group that it holds are taken all the same.

        Raises:
            StoreFull: the entry would begin one group too many. Nothing was stored.
            StoreError: the key is here with other content, or the group has another size or all its members.
        """

    def withdraw(self, queue: str, group: str) -> None:
        """Drop a group that will never be complete; what is committed of it later is dropped too.

        Raises:
            StoreError: it is complete.
        """

    def lease(
        self, queue: str, *, groups: int | None, version: int, max_staleness: int | None, seconds: float
    ) -> Lease | None:
        """Take `groups` complete groups (None: all there are), the oldest first; None when there are not so many.

        Before that, what is more than `max_staleness` versions older than `version` is dropped, incomplete groups
        included (None: nothing is too old). Groups that are not acknowledged within `seconds` are free again.
        """

    def acknowledge(self, lease: Lease) -> None:
        """The groups were learned from and never come again; doing it twice is doing it once.

        Raises:
            LeaseLost: the lease is over, by time or by `release`: whoever held it must undo what it did with it.
        """

    def release(self, lease: Lease) -> None:
        """Give the groups back at once.

        Raises:
            LeaseLost: the lease is over already, or acknowledged.
        """

    def counts(self, queue: str) -> Counts:
        """How many groups there are."""

    def entries(self) -> Iterator[Entry]:
        """All that is held, leased or not, in the order of (queue, group, key)."""

    def close(self) -> None:
        """Let go of what the store needs of the system."""


def state(leased: bool, is_complete: bool) -> str:
    """The field of `Counts` for a group that is held."""
    return "leased" if leased else "waiting" if is_complete else "incomplete"


def in_order(entries: Iterable[Entry]) -> Group:
    """The members of a group by key."""
    return tuple(sorted(entries, key=lambda entry: entry.key))


def check_fits(entry: Entry, *, size: int, members: int) -> None:
    """Refuse an entry that its group, of which there are `members`, has no place for.

    Raises:
        StoreError: says what is wrong.
    """
    if not 1 <= entry.size == size:
        raise StoreError(f"store: {entry.key!r} says that group {entry.group!r} has {entry.size} members, not {size}")
    if members == size:
        raise StoreError(f"store: {entry.key!r} is one too many for group {entry.group!r} of {size}")


def contradiction(entry: Entry) -> StoreError:
    """The same key stands for something else already, or is no member of a complete group."""
    return StoreError(f"store: {entry.key!r} of {entry.queue} is there already with other content")


def complete(queue: str, group: str) -> StoreError:
    """A group cannot be withdrawn."""
    return StoreError(f"store: group {group!r} of {queue} is complete and cannot be withdrawn")


def full(entry: Entry, max_groups: int) -> StoreFull:
    """There is no place for a new group."""
    return StoreFull(f"store: {entry.queue} holds {max_groups} groups, and no more are taken until its learner has")


def lost(lease: Lease) -> LeaseLost:
    """The lease is not held."""
    return LeaseLost(f"store: lease {lease.id} of {lease.queue} is over; what was done with it does not count")


# --- as JSON -----------------------------------------------------------------------------------------------------


def digest(line: str) -> bytes:
    """`DIGEST` bytes that differ where entries, as lines, do."""
    return hashlib.blake2b(line.encode(), digest_size=DIGEST).digest()


def entry_to_json(entry: Entry) -> str:
    """One line without its newline, exact, numbers that are not finite included."""
    return _encode(_plain(entry) | {"samples": [_sample_fields(sample) for sample in entry.samples]})


def entry_from_json(line: str | bytes) -> Entry:
    """The entry of one line that `entry_to_json` wrote."""
    given = json.loads(line)
    return Entry(**given | {"samples": tuple(map(_sample, given["samples"]))})


def write_entries(store: Store, file: Path) -> None:
    """Write all that a store holds, an entry a line.

    Raises:
        OSError: it could not be written.
    """
    with file.open("w") as lines:
        lines.writelines(f"{entry_to_json(entry)}\n" for entry in store.entries())


def read_entries(store: Store, file: Path) -> None:
    """Commit what `write_entries` wrote."""
    with file.open("rb") as lines:
        for line in lines:
            store.commit(entry_from_json(line))


def _plain(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _sample_fields(sample: Sample) -> dict[str, Any]:
    return _plain(sample) | {"spans": [_plain(span) for span in sample.spans]}


def _sample(given: Mapping[str, Any]) -> Sample:
    spans = tuple(Span(**_with_tuples(span)) for span in given["spans"])
    return Sample(**_with_tuples(given) | {"spans": spans})


def _with_tuples(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


_encode = json.JSONEncoder(separators=(",", ":")).encode
