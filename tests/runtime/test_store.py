"""The store: whole groups, once each, whatever dies, arrives twice or late; the same in memory and in SQLite."""

import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_llm.errors import RunError
from marl_llm.runtime.memory import MemoryStore
from marl_llm.runtime.sqlite import SQLiteStore
from marl_llm.runtime.store import (
    Counts,
    Entry,
    Lease,
    LeaseLost,
    Store,
    StoreError,
    StoreFull,
    entry_from_json,
    entry_to_json,
    read_entries,
    write_entries,
)
from marl_llm.types import Sample, Span

ROOT = Path(__file__).parents[2]


def member(group: str, number: int, *, size: int = 2, version: int = 0, queue: str = "sub", token: int = 7) -> Entry:
    span = Span(start=1, length=1, logprobs=(-0.1,), advantages=(1 / 3,), role="r", turn=0, versions=(version,))
    key = f"{group}/m{number}"
    sample = Sample(policy=queue, game="g", episode=key, agent="a", tokens=(1, token), spans=(span,))
    return Entry(queue=queue, group=group, size=size, key=key, version=version, samples=(sample,))


@dataclass
class Place:
    """A store that several may open, and its clock."""

    kind: str
    folder: Path
    now: float = 0.0
    opened: list[Store] = field(default_factory=list)

    def open(self, max_groups: int = 9) -> Store:
        if self.kind == "memory" and self.opened:
            return self.opened[0]
        if self.kind == "memory":
            store: Store = MemoryStore(max_groups=max_groups, clock=self.clock)
        else:
            store = SQLiteStore(self.folder / "store.sqlite", max_groups=max_groups, clock=self.clock)
        self.opened.append(store)
        return store

    def clock(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(request.param, tmp_path)
    yield made
    for store in made.opened:
        store.close()


def fill(store: Store, *groups: str, **changes: Any) -> None:
    for group in groups:
        for number in (0, 1):
            assert store.commit(member(group, number, **changes)) == "stored"


def take(store: Store, groups: int | None = 1, *, version: int = 0, bound: int | None = None) -> Lease | None:
    return store.lease("sub", groups=groups, version=version, max_staleness=bound, seconds=10)


def taken(store: Store, groups: int | None = 1, **options: Any) -> Lease:
    lease = take(store, groups, **options)
    assert lease is not None
    return lease


def names(lease: Lease) -> list[str]:
    """The groups of a lease, each of which is whole and unmixed."""
    for group in lease.groups:
        assert len({entry.group for entry in group}) == 1
        assert [entry.key for entry in group] == [f"{group[0].group}/m{n}" for n in range(group[0].size)]
    return [group[0].group for group in lease.groups]


def test_what_is_committed_comes_out_once_and_as_it_was(place: Place) -> None:
    store = place.open()
    fill(store, "a", "b")
    lease = taken(store)
    assert lease.groups == ((member("a", 0), member("a", 1)),)
    store.acknowledge(lease)
    assert names(taken(store, None)) == ["b"]
    assert take(store, None) is None
    assert store.counts("sub") == Counts(leased=1, acknowledged=1)


def test_a_part_of_a_group_is_never_handed_out(place: Place) -> None:
    store = place.open()
    store.commit(member("a", 1))
    store.commit(member("b", 0, size=3))
    store.commit(member("b", 2, size=3))
    assert take(store, None) is None
    assert store.counts("sub") == Counts(incomplete=2)
    store.commit(member("b", 1, size=3))
    assert names(taken(store, None)) == ["b"]


def test_fewer_groups_than_are_wanted_are_not_handed_out(place: Place) -> None:
    store = place.open()
    fill(store, "a", "b")
    assert take(store, 3) is None
    fill(store, "c", "d")
    assert names(taken(store, 3)) == ["a", "b", "c"]


@pytest.mark.parametrize("order", range(5))
def test_the_order_of_arrival_changes_nothing(place: Place, order: int) -> None:
    entries = [member(f"g{i}", n, size=3, version=i % 2) for i in range(4) for n in range(3)]
    Random(order).shuffle(entries)
    store = place.open()
    for entry in entries:
        store.commit(entry)
    assert names(taken(store, 3)) == ["g0", "g2", "g1"], "the oldest first, then by name"


def test_queues_know_nothing_of_each_other(place: Place) -> None:
    store = place.open(max_groups=1)
    fill(store, "a")
    fill(store, "a", queue="planner")
    assert store.counts("sub") == store.counts("planner") == Counts(waiting=1)
    assert taken(store).groups[0][0].samples[0].policy == "sub"
    assert store.counts("planner") == Counts(waiting=1)


def test_the_same_key_twice_is_one_entry_also_after_it_was_learned_from(place: Place) -> None:
    store = place.open(max_groups=1)
    fill(store, "a")
    assert store.commit(member("a", 0)) == "known"
    lease = taken(store)
    assert store.commit(member("a", 0)) == "known"
    store.acknowledge(lease)
    assert store.commit(member("a", 1)) == "known"
    assert store.counts("sub") == Counts(acknowledged=1)
    assert take(store) is None


def test_the_same_key_with_other_content_is_an_error_at_any_time(place: Place) -> None:
    store = place.open()
    fill(store, "a")
    others = (
        member("a", 0, token=8),
        member("a", 0, version=1),
        member("a", 0, size=3),
        replace(member("a", 0), samples=()),
    )
    for other in (*others, replace(member("a", 0), group="b")):
        with pytest.raises(StoreError, match=r"^store: 'a/m0' of sub is there already with other content$"):
            store.commit(other)
    assert store.counts("sub") == Counts(waiting=1)
    store.acknowledge(taken(store))
    for other in others:
        with pytest.raises(StoreError, match="'a/m0' of sub is there already with other content"):
            store.commit(other)


def test_a_group_has_one_size_and_no_member_too_many(place: Place) -> None:
    store = place.open()
    store.commit(member("a", 0))
    with pytest.raises(StoreError, match=r"^store: 'a/m1' says that group 'a' has 3 members, not 2$"):
        store.commit(member("a", 1, size=3))
    store.commit(member("a", 1))
    with pytest.raises(StoreError, match=r"^store: 'a/m2' is one too many for group 'a' of 2$"):
        store.commit(member("a", 2))
    with pytest.raises(StoreError, match="has 0 members"):
        store.commit(member("b", 0, size=0))
    assert names(taken(store, None)) == ["a"]
    assert store.counts("sub") == Counts(leased=1)


def test_a_consumer_that_dies_gives_its_groups_back_when_its_time_is_over(place: Place) -> None:
    store = place.open()
    fill(store, "a")
    first = taken(store)
    place.now = 9.999
    assert take(store) is None
    place.now = 10.0
    second = taken(store)
    assert second.groups == first.groups
    assert second.id != first.id
    with pytest.raises(LeaseLost, match=r"^store: lease 1 of sub is over; what was done with it does not count$"):
        store.acknowledge(first)
    assert store.counts("sub") == Counts(leased=1)
    store.acknowledge(second)
    assert store.counts("sub") == Counts(acknowledged=1)


def test_a_lease_that_is_over_cannot_be_acknowledged_though_nobody_else_has_its_groups(place: Place) -> None:
    store = place.open()
    fill(store, "a")
    lease = taken(store)
    place.now = 10.0
    with pytest.raises(LeaseLost):
        store.acknowledge(lease)
    assert store.counts("sub") == Counts(waiting=1)


def test_acknowledging_twice_is_acknowledging_once_however_late(place: Place) -> None:
    store = place.open()
    fill(store, "a")
    lease = taken(store)
    store.acknowledge(lease)
    place.now = 100.0
    store.acknowledge(lease)
    assert store.counts("sub") == Counts(acknowledged=1)


def test_what_is_released_is_free_at_once_and_not_for_who_released_it(place: Place) -> None:
    store = place.open()
    fill(store, "a")
    lease = taken(store)
    store.release(lease)
    for end in (store.acknowledge, store.release):
        with pytest.raises(LeaseLost):
            end(lease)
    again = taken(store)
    store.acknowledge(again)
    with pytest.raises(LeaseLost):
        store.release(again)


def test_a_full_store_refuses_new_groups_but_not_the_members_that_are_missing(place: Place) -> None:
    store = place.open(max_groups=2)
    fill(store, "a")
    store.commit(member("b", 0))
    for _ in range(2):
        with pytest.raises(
            StoreFull, match=r"^store: sub holds 2 groups, and no more are taken until its learner has$"
        ):
            store.commit(member("c", 0))
    assert store.commit(member("a", 0)) == "known"
    assert store.commit(member("b", 1)) == "stored"
    lease = taken(store)
    with pytest.raises(StoreFull):
        store.commit(member("c", 0))
    store.acknowledge(lease)
    assert store.commit(member("c", 0)) == "stored"
    assert store.counts("sub") == Counts(waiting=1, incomplete=1, acknowledged=1)


def test_what_is_too_old_is_dropped_and_counted_with_all_that_comes_of_it_later(place: Place) -> None:
    store = place.open(max_groups=4)
    for number, version in enumerate((2, 3, 4)):
        fill(store, f"g{number}", version=version)
    store.commit(member("part", 0, version=2))
    assert names(taken(store, None, version=5, bound=2)) == ["g1", "g2"]
    assert store.counts("sub") == Counts(leased=2, dropped=2)
    assert store.commit(member("part", 1, version=5)) == "dropped"
    assert store.commit(member("g0", 0, version=2)) == "dropped"
    assert store.counts("sub") == Counts(leased=2, dropped=2)


def test_a_group_is_as_old_as_its_oldest_member(place: Place) -> None:
    store = place.open()
    store.commit(member("a", 0, version=5))
    store.commit(member("a", 1, version=2))
    fill(store, "b", version=4)
    lease = taken(store, None, version=5, bound=3)
    assert names(lease) == ["a", "b"]
    assert lease.versions() == [2, 4]
    store.release(lease)
    assert names(taken(store, None, version=5, bound=2)) == ["b"]


def test_what_is_being_learned_from_is_dropped_only_when_its_lease_is_over(place: Place) -> None:
    store = place.open()
    fill(store, "a", "b")
    lease = taken(store)
    assert take(store, version=9, bound=1) is None
    assert store.counts("sub") == Counts(leased=1, dropped=1)
    place.now = 10.0
    assert take(store, version=9, bound=1) is None
    with pytest.raises(LeaseLost):
        store.acknowledge(lease)
    assert store.counts("sub") == Counts(dropped=2)


def test_without_a_bound_nothing_is_too_old(place: Place) -> None:
    store = place.open()
    fill(store, "a")
    assert names(taken(store, version=10**6)) == ["a"]


def test_a_group_that_will_not_be_complete_can_be_withdrawn(place: Place) -> None:
    store = place.open(max_groups=1)
    store.commit(member("a", 0))
    for _ in range(2):
        store.withdraw("sub", "a")
    store.withdraw("sub", "never begun")
    assert store.commit(member("a", 1)) == store.commit(member("never begun", 0)) == "dropped"
    assert store.counts("sub") == Counts(dropped=2)
    fill(store, "b")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"^store: group 'b' of sub is complete and cannot be withdrawn$"):
            store.withdraw("sub", "b")
        lease = take(store)
        if lease is not None:
            store.acknowledge(lease)
    assert store.counts("sub") == Counts(acknowledged=1, dropped=2)


def test_what_is_held_can_be_written_and_read_into_another_store(place: Place, tmp_path: Path) -> None:
    store = place.open()
    fill(store, "b", "a", "c", version=3)
    store.commit(replace(member("d", 0), samples=()))
    store.acknowledge(taken(store, version=3))
    lease = taken(store, version=3)
    assert names(lease) == ["b"]
    write_entries(store, tmp_path / "store.jsonl")
    other = MemoryStore(max_groups=3, clock=lambda: 0.0)
    read_entries(other, tmp_path / "store.jsonl")
    assert list(other.entries()) == list(store.entries())
    assert [entry.key for entry in other.entries()] == ["b/m0", "b/m1", "c/m0", "c/m1", "d/m0"]


def test_any_number_of_threads_share_the_groups_among_them(place: Place) -> None:
    store = place.open(max_groups=40)
    groups = [f"g{number}" for number in range(40)]
    fill(store, *groups)
    found: list[list[str]] = [[] for _ in range(4)]

    def consume(mine: list[str]) -> None:
        own = place.open(max_groups=40) if place.kind == "memory" else reopened(place)
        while (lease := own.lease("sub", groups=2, version=0, max_staleness=None, seconds=inf)) is not None:
            mine += names(lease)
            own.acknowledge(lease)
        if place.kind == "sqlite":
            own.close()

    threads = [Thread(target=consume, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(name for mine in found for name in mine) == Counter(groups)
    assert store.counts("sub") == Counts(acknowledged=40)


def reopened(place: Place) -> Store:
    return SQLiteStore(place.folder / "store.sqlite", max_groups=40, clock=place.clock)


# --- any interleaving --------------------------------------------------------------------------------------------

small = st.integers(0, 3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), small, small, st.integers(0, 2)),
        st.tuples(st.just("lease"), st.integers(1, 2), small, st.none() | small),
        st.tuples(st.sampled_from(["acknowledge", "release"]), small),
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("withdraw"), small),
    ),
    max_size=60,
)


def outcome(store: Store, leases: list[Lease], step: tuple[Any, ...], place: Place) -> Any:
    """What a step answers, errors included."""
    name, *args = step
    try:
        if name == "commit":
            group, number, version = args
            return store.commit(member(f"g{group}", number, size=group + 1, version=version))
        if name == "lease":
            groups, version, bound = args
            return take(store, groups, version=version, bound=bound)
        if name == "withdraw":
            return store.withdraw("sub", f"g{args[0]}")
        if name != "wait" and args[0] < len(leases):
            return getattr(store, name)(leases[-1 - args[0]])
    except StoreError as error:
        return type(error), str(error)
    return None


@settings(max_examples=150, deadline=None)
@given(steps=steps)
def test_in_any_interleaving_nothing_is_lost_and_nothing_comes_twice(steps: list[tuple[Any, ...]]) -> None:
    place = Place("memory", Path())
    stores: list[Store] = [
        MemoryStore(max_groups=3, clock=place.clock),
        SQLiteStore(Path(":memory:"), max_groups=3, clock=place.clock),
    ]
    leases: list[Lease] = []
    committed: dict[str, Entry] = {}
    done: list[str] = []
    begun: set[str] = set()
    for step in steps:
        before = stores[0].counts("sub")
        one, two = (outcome(store, leases, step, place) for store in stores)
        assert one == two, step
        counts = stores[0].counts("sub")
        assert counts == stores[1].counts("sub")
        if step[0] == "wait":
            place.now += step[1]
        elif step[0] == "commit" and one == "stored":
            entry = member(f"g{step[1]}", step[2], size=step[1] + 1, version=step[3])
            assert entry.key not in committed
            committed[entry.key] = entry
            begun.add(entry.group)
        elif step[0] == "withdraw" and one is None:
            begun.add(f"g{step[1]}")
        elif step[0] == "lease" and one is not None:
            assert len(one.groups) == step[1]
            for name, group in zip(names_of(one), one.groups, strict=True):
                assert name not in done, "learned from already"
                assert len(group) == group[0].size
                assert all(committed[each.key] == each for each in group)
            leases.append(one)
        elif step[0] == "acknowledge" and counts.acknowledged > before.acknowledged:
            done += names_of(leases[-1 - step[1]])
        assert len(set(done)) == len(done) == counts.acknowledged
        assert sum(asdict(counts).values()) == len(begun), "every group is somewhere"
        assert counts.waiting + counts.incomplete + counts.leased <= 3
    place.now += 100
    rest = [take(store, None) for store in stores]
    assert rest[0] == rest[1]
    left = stores[0].counts("sub")
    assert left.waiting == 0
    assert left.leased + left.incomplete + len(done) + left.dropped == len(begun)
    stores[1].close()


def names_of(lease: Lease) -> list[str]:
    return [group[0].group for group in lease.groups]


# --- content -----------------------------------------------------------------------------------------------------

numbers = st.lists(st.floats(), max_size=3).map(tuple)
"""Also those that are not finite: it is the learner that says where they come from."""
counts = st.lists(st.integers(0), max_size=3).map(tuple)
spans = st.builds(
    Span,
    start=st.integers(1),
    length=st.integers(0),
    logprobs=st.none() | numbers,
    advantages=st.none() | numbers,
    role=st.text(),
    turn=st.integers(0),
    weight=st.floats(),
    versions=st.none() | counts,
)
samples = st.builds(
    Sample,
    policy=st.text(),
    game=st.text(),
    episode=st.text(),
    agent=st.text(),
    tokens=counts,
    spans=st.lists(spans, max_size=2).map(tuple),
)


@settings(max_examples=50)
@given(samples=st.lists(samples, max_size=2).map(tuple), text=st.text())
def test_any_entry_comes_back_exactly_from_one_line(samples: tuple[Sample, ...], text: str) -> None:
    entry = Entry(queue=text, group=text, size=1, key=text, version=0, samples=samples)
    line = entry_to_json(entry)
    assert repr(entry_from_json(line)) == repr(entry)
    assert "\n" not in line


# --- several processes -------------------------------------------------------------------------------------------

BEGINNING = """
import sys, time
from math import inf
from pathlib import Path
from marl_llm.runtime.sqlite import SQLiteStore
from tests.runtime.test_store import member, names
store = SQLiteStore(Path(sys.argv[1]), max_groups=10**6, clock=time.time)
"""
PRODUCER = """
for group in range(10**6):
    for number in range(3):
        entry = member(f"g{group:06}", number, size=3)
        store.commit(entry)
        print(entry.key, flush=True)
"""
CONSUMER = """
while (lease := store.lease("sub", groups=1, version=0, max_staleness=None, seconds=3600)) is not None:
    store.acknowledge(lease)
    print(*names(lease), flush=True)
"""
DYING = """
lease = store.lease("sub", groups=1, version=0, max_staleness=None, seconds=3600)
print(*names(lease), flush=True)
time.sleep(3600)
"""


def process(code: str, file: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", BEGINNING + code, str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def killed(running: "subprocess.Popen[str]", after_lines: int) -> list[str]:
    """What it had printed when it was killed."""
    assert running.stdout is not None
    lines = [running.stdout.readline().strip() for _ in range(after_lines)]
    running.send_signal(signal.SIGKILL)
    lines += running.stdout.read().split()
    running.wait()
    running.stdout.close()
    return lines


def opened(file: Path, clock: Callable[[], float] = lambda: 0.0) -> SQLiteStore:
    return SQLiteStore(file, max_groups=10**6, clock=clock)


def test_a_killed_producer_loses_nothing_that_it_was_told_is_stored(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    told = killed(process(PRODUCER, file), after_lines=50)
    store = opened(file)
    counts = store.counts("sub")
    for key in told:
        group, _, number = key.partition("/m")
        assert store.commit(member(group, int(number), size=3)) == "known"
    assert store.counts("sub") == counts, "nothing was added"
    assert counts.incomplete <= 1
    assert counts.waiting in (len(told) // 3, len(told) // 3 + 1), "the last line may not have been printed"
    assert len(names(taken(store, None))) == counts.waiting
    store.close()


def test_what_a_killed_consumer_had_leased_is_handed_out_again_after_its_time(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    now = [0.0]
    store = opened(file, lambda: now[0])
    fill(store, "a", "b")
    assert killed(process(DYING, file), after_lines=1) == ["a"]
    assert names(taken(store, None)) == ["b"]
    now[0] = 1e12
    assert names(taken(store, None)) == ["a", "b"]
    store.close()


def test_consumers_in_several_processes_share_the_groups_among_them(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    store = opened(file)
    groups = [f"g{number}" for number in range(200)]
    fill(store, *groups)
    consumers = [process(CONSUMER, file) for _ in range(2)]
    found = [consumer.communicate(timeout=60)[0].split() for consumer in consumers]
    assert Counter(found[0] + found[1]) == Counter(groups)
    assert store.counts("sub") == Counts(acknowledged=200)
    store.close()


@pytest.mark.parametrize("attempt", range(20))
def test_a_store_may_be_made_by_many_at_once(tmp_path: Path, attempt: int) -> None:
    file = tmp_path / "store.sqlite"
    failed: list[Exception] = []

    def make(number: int) -> None:
        try:
            store = opened(file)
            store.commit(member("a", number, size=16))
            store.close()
        except RunError as error:
            failed.append(error)

    threads = [Thread(target=make, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    store = opened(file)
    assert store.counts("sub") == Counts(waiting=1)
    store.close()


def test_a_file_that_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    file.write_text("not a database, however long it may be" * 100)
    with pytest.raises(RunError, match=r"^store .*store.sqlite: file is not a database$"):
        opened(file)
    with pytest.raises(RunError, match="unable to open database file"):
        opened(tmp_path / "nowhere" / "store.sqlite")


def test_a_step_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    store = opened(file)
    fill(store, "a")
    with sqlite3.connect(file) as other:
        other.execute("CREATE TRIGGER t BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'disk on fire'); END")
    other.close()
    with pytest.raises(RunError, match="disk on fire"):
        store.commit(member("b", 0))
    assert store.counts("sub") == Counts(waiting=1)
    store.close()
