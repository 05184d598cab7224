"""A store in the memory of one process."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock

from marl_llm.runtime.store import (
    Clock,
    Committed,
    Counts,
    Entry,
    Lease,
    check_fits,
    complete,
    contradiction,
    digest,
    entry_to_json,
    full,
    in_order,
    lost,
    state,
)


@dataclass(kw_only=True, slots=True)
class _Held:
    """A group that waits, or is leased."""

    size: int
    version: int
    entries: dict[str, Entry] = field(default_factory=dict)
    lease: int | None = None

    @property
    def complete(self) -> bool:
        return len(self.entries) == self.size


@dataclass(kw_only=True, slots=True)
class _Queue:
    held: dict[str, _Held] = field(default_factory=dict)
    group_of: dict[str, str] = field(default_factory=dict)
    """Key of an entry that is held -> its group."""
    acknowledged: dict[str, frozenset[bytes]] = field(default_factory=dict)
    """Group -> digests of its members."""
    dropped: set[str] = field(default_factory=set)

    def drop(self, group: str) -> dict[str, Entry]:
        """Forget what is held of a group, which is returned."""
        entries = self.held.pop(group).entries if group in self.held else {}
        for key in entries:
            del self.group_of[key]
        return entries


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lent:
    queue: str
    expires: float
    groups: tuple[str, ...]


class MemoryStore:
    """A store in this process, for any number of threads."""

    def __init__(self, *, max_groups: int, clock: Clock) -> None:
        """Empty; `max_groups` per queue."""
        self._max_groups = max_groups
        self._clock = clock
        self._lock = Lock()
        self._queues: dict[str, _Queue] = defaultdict(_Queue)
        self._lent: dict[int, _Lent] = {}
        self._acknowledged: set[int] = set()
        self._last = 0

    def commit(self, entry: Entry) -> Committed:
        """See `Store.commit`."""
        with self._lock:
            queue = self._queues[entry.queue]
            if entry.group in queue.dropped:
                return "dropped"
            if entry.group in queue.acknowledged:
                if digest(entry_to_json(entry)) not in queue.acknowledged[entry.group]:
                    raise contradiction(entry)
                return "known"
            if entry.key in queue.group_of:
                if queue.held[queue.group_of[entry.key]].entries[entry.key] != entry:
                    raise contradiction(entry)
                return "known"
            held = queue.held.get(entry.group) or _Held(size=entry.size, version=entry.version)
            if entry.group not in queue.held and len(queue.held) >= self._max_groups:
                raise full(entry, self._max_groups)
            check_fits(entry, size=held.size, members=len(held.entries))
            queue.held[entry.group] = held
            held.entries[entry.key] = entry
            held.version = min(held.version, entry.version)
            queue.group_of[entry.key] = entry.group
            return "stored"

    def withdraw(self, queue: str, group: str) -> None:
        """See `Store.withdraw`."""
        with self._lock:
            found = self._queues[queue]
            if group in found.acknowledged or (group in found.held and found.held[group].complete):
                raise complete(queue, group)
            found.drop(group)
            found.dropped.add(group)

    def lease(
        self, queue: str, *, groups: int | None, version: int, max_staleness: int | None, seconds: float
    ) -> Lease | None:
        """See `Store.lease`."""
        with self._lock:
            now = self._expire()
            found = self._queues[queue]
            free = {name: held for name, held in found.held.items() if held.lease is None}
            for name, held in free.items():
                if max_staleness is not None and version - held.version > max_staleness:
                    found.drop(name)
                    found.dropped.add(name)
            ready = sorted((held.version, name) for name, held in free.items() if held.complete and name in found.held)
            if not ready or (groups is not None and len(ready) < groups):
                return None
            names = tuple(name for _, name in ready[:groups])
            self._last += 1
            self._lent[self._last] = _Lent(queue=queue, expires=now + seconds, groups=names)
            for name in names:
                found.held[name].lease = self._last
            members = (found.held[name].entries.values() for name in names)
            return Lease(id=self._last, queue=queue, groups=tuple(map(in_order, members)))

    def acknowledge(self, lease: Lease) -> None:
        """See `Store.acknowledge`."""
        with self._lock:
            if lease.id in self._acknowledged:
                return
            lent = self._end(lease)
            queue = self._queues[lent.queue]
            for group in lent.groups:
                queue.acknowledged[group] = frozenset(map(digest, map(entry_to_json, queue.drop(group).values())))
            self._acknowledged.add(lease.id)

    def release(self, lease: Lease) -> None:
        """See `Store.release`."""
        with self._lock:
            self._end(lease)

    def counts(self, queue: str) -> Counts:
        """See `Store.counts`."""
        with self._lock:
            self._expire()
            found = self._queues[queue]
            states = Counter(state(held.lease is not None, held.complete) for held in found.held.values())
            return Counts(**states, acknowledged=len(found.acknowledged), dropped=len(found.dropped))

    def entries(self) -> Iterator[Entry]:
        """See `Store.entries`."""
        with self._lock:
            held = [group for queue in self._queues.values() for group in queue.held.values()]
            found = [entry for group in held for entry in group.entries.values()]
        yield from sorted(found, key=lambda entry: (entry.queue, entry.group, entry.key))

    def close(self) -> None:
        """Nothing to let go of."""

    def _expire(self) -> float:
        """Free what was leased for too long; returns the time."""
        now = self._clock()
        for number, lent in list(self._lent.items()):
            if lent.expires <= now:
                self._free(number)
        return now

    def _free(self, number: int) -> _Lent:
        lent = self._lent.pop(number)
        for group in lent.groups:
            self._queues[lent.queue].held[group].lease = None
        return lent

    def _end(self, lease: Lease) -> _Lent:
        self._expire()
        if lease.id not in self._lent:
            raise lost(lease)
        return self._free(lease.id)
