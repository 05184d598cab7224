"""Updates at each learner's own pace: credited groups wait in a store, and a learner takes as many as it wants."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from math import inf
from statistics import fmean

from marl_llm.config import Config, StoreConfig
from marl_llm.learning.base import Trainer
from marl_llm.run import Run
from marl_llm.runtime.memory import MemoryStore
from marl_llm.runtime.rollouts import LOCAL, Runtime
from marl_llm.runtime.sqlite import SQLiteStore
from marl_llm.runtime.store import Entry, Group, Lease, Store, StoreFull
from marl_llm.team import Team
from marl_llm.types import Episode, Sample

SUMS = frozenset({"tokens", "sampled_tokens", "packed_tokens", "model_s"})
"""Metrics of an update that are added up over several; of those called `MAXIMA` the largest counts, else the mean."""
MAXIMA = frozenset({"ratio_max", "gap_max", "grad_norm"})


@contextmanager
def storing(config: Config, run: Run, runtime: Runtime = LOCAL) -> Iterator[Store | None]:
    """An empty store for this session, if one is wanted; what an earlier session's held is in its checkpoint.

    Its leases never end by time, so that no clock decides anything.

    Raises:
        RunError: its file could not be made.
    """
    if config.store is None:
        yield None
        return
    make: Callable[[], Store]
    if config.store.kind == "sqlite":
        make = partial(SQLiteStore, run.new_store(), max_groups=config.store.max_groups, clock=_no_time)
    else:
        make = partial(MemoryStore, max_groups=config.store.max_groups, clock=_no_time)
    with closing(runtime.store(make)) as store:
        yield store


def _no_time() -> float:
    return 0.0


def pupils(config: Config, team: Team, store: Store | None) -> dict[str, "Pupil"]:
    """All that learn, each at the pace that its settings say; empty without a store."""
    if store is None or config.store is None:
        return {}
    return {
        name: Pupil(name, learner, store, groups=config.policies[name].learner.groups, config=config.store)
        for name, learner in team.learners.items()
    }


class Pupil:
    """A learner, in one step, that takes groups of its policy from a store."""

    def __init__(self, name: str, learner: Trainer, store: Store, *, groups: int | None, config: StoreConfig) -> None:
        """`groups`: how many an update takes; None: all that are there."""
        self._name = name
        self._learner = learner
        self._store = store
        self._groups = groups
        self._config = config
        self._updates: list[dict[str, float]] = []
        self._staleness: list[int] = []

    def learn(self, episodes: Iterable[Episode], samples: Sequence[Sample]) -> dict[str, float]:
        """Put a step's samples into the store by group, then learn as often as there are enough groups.

        A full store makes it learn before it takes more in. Groups in which an episode ended at fault are dropped, and
        so are those that are too old. Returns `learn/NAME/...` if anything was learned, and `store/NAME/...`: `queue`
        (groups that wait now), `updates`, `dropped` (groups), and of the groups that were learned from
        `staleness_mean` and `staleness_max` (updates since they were sampled).

        Raises:
            TrainingError: see `Learner.update`.
        """
        before = self._store.counts(self._name)
        whole, broken = members(self._name, episodes, samples, version=self._learner.version)
        for group in broken:
            self._store.withdraw(self._name, group)
        for entry in (entry for group in whole for entry in group):
            self._offer(entry)
        while self._update():
            pass
        after = self._store.counts(self._name)
        metrics = {f"learn/{self._name}/{key}": value for key, value in _together(self._updates).items()}
        told: dict[str, float] = {
            "queue": after.waiting,
            "updates": len(self._updates),
            "dropped": after.dropped - before.dropped,
        }
        if self._staleness:
            told |= {"staleness_mean": fmean(self._staleness), "staleness_max": max(self._staleness)}
        return metrics | {f"store/{self._name}/{key}": value for key, value in told.items()}

    def _offer(self, entry: Entry) -> None:
        try:
            self._store.commit(entry)
        except StoreFull:
            self._update()  # all groups are complete, and the settings say that so many are enough
            self._store.commit(entry)

    def _update(self) -> bool:
        """Learn once, if there are enough groups; whether there were."""
        lease = self._store.lease(
            self._name,
            groups=self._groups,
            version=self._learner.version,
            max_staleness=self._config.max_staleness,
            seconds=inf,
        )
        if lease is None:
            return False
        self._staleness += [self._learner.version - version for version in lease.versions()]
        self._updates.append(self._learner.update(_samples(lease)))
        self._store.acknowledge(lease)
        return True


def members(
    policy: str, episodes: Iterable[Episode], samples: Sequence[Sample], *, version: int
) -> tuple[list[Group], list[str]]:
    """The groups in which the policy had a turn to learn from: those that are whole, and names of the others.

    A group has one member per episode. `version`: of the weights that the policy played with.
    """
    by_episode: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_episode[sample.episode].append(sample)
    groups: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        groups[episode.match.group].append(episode)
    whole, broken = [], []
    for name, played in groups.items():
        if not any(span.length for episode in played for s in by_episode[episode.match.id] for span in s.spans):
            continue
        if any(episode.status == "fault" for episode in played):
            broken.append(name)
            continue
        ids = [episode.match.id for episode in played]
        whole.append(tuple(_entry(policy, name, len(ids), key, by_episode[key], version) for key in ids))
    return whole, broken


def _entry(policy: str, group: str, size: int, key: str, samples: Sequence[Sample], version: int) -> Entry:
    versions = [v for sample in samples for span in sample.spans for v in span.versions or ()]
    oldest = min(versions, default=version)
    return Entry(queue=policy, group=group, size=size, key=key, version=oldest, samples=tuple(samples))


def _samples(lease: Lease) -> list[Sample]:
    return [sample for group in lease.groups for entry in group for sample in entry.samples]


def _together(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of a step in which a learner learned several times; of one update they are that update's."""
    return {key: _joint(key, [update[key] for update in updates]) for key in (updates[0] if updates else ())}


def _joint(key: str, values: Sequence[float]) -> float:
    if len(values) == 1:
        return values[0]
    return sum(values) if key in SUMS else max(values) if key in MAXIMA else fmean(values)
