"""Workers, learners and stores in other processes, as the process that trains knows them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError

from marl_llm.config import Config, PlacementConfig
from marl_llm.evaluation.measure import Evaluation
from marl_llm.runtime.coordinator import Gone, Order, Report, Weights
from marl_llm.runtime.processes import Fetched, LearnerProcess, answer, as_ours, future
from marl_llm.runtime.rollouts import Lost
from marl_llm.runtime.store import Committed, Counts, Entry, Lease
from marl_llm.runtime.watchdog import Signs
from marl_llm.types import Sample


def options(placement: PlacementConfig) -> dict[str, Any]:
    return {"num_cpus": placement.cpus, "num_gpus": placement.gpus, "resources": dict(placement.resources) or None}


class RayWorker:
    """A worker in an actor; see `Handle`."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def play(self, order: Order) -> "Future[Report]":
        return future(self.actor.play.remote(order))

    def signs(self) -> "Future[Signs]":
        return future(self.actor.signs.options(concurrency_group="watch").remote())

    def evaluate(self, config: Config, start: Path, weights: Weights | None) -> Evaluation:
        measured: Evaluation = answer(self.actor.evaluate.remote(config, start, weights))
        return measured

    def end(self) -> None:
        ray.kill(self.actor)


class RayLearner:
    """A learner in other processes; see `Trainer`. All of them are told the same, and the first one's answer counts."""

    def __init__(self, config: Config, name: str, checkpoint: Path | None) -> None:
        """Start as many processes as the settings say, which begin from a checkpoint."""
        placement = config.cluster.learners.get(name, config.cluster.learner)
        count = config.policies[name].learner.processes
        kind: Any = ray.remote(LearnerProcess).options(**options(placement))
        self.version = 0
        self.by_pairs = config.policies[name].objective.compares
        self._name = name
        self._processes = [kind.remote() for _ in range(count)]
        address = self._processes[0].address.remote() if count > 1 else ""
        self._beginning = [
            process.begin.remote(config, name, checkpoint, address, rank)
            for rank, process in enumerate(self._processes)
        ]

    def update(self, samples: Sequence[Sample], replayed: Sequence[Sample] = ()) -> dict[str, float]:
        """See `Learner.update`."""
        metrics: dict[str, float] = self._call("update", ray.put(samples), ray.put(replayed))
        self.version += 1
        return metrics

    def imitate(self, samples: Sequence[Sample], lr: float) -> float:
        """See `Learner.imitate`."""
        loss: float = self._call("imitate", samples, lr)
        return loss

    def measure(self, samples: Sequence[Sample], names: Sequence[str]) -> dict[str, list[float]]:
        """See `Learner.measure`."""
        measured: dict[str, list[float]] = self._call("measure", ray.put(samples), names)
        return measured

    def weights(self) -> Mapping[str, torch.Tensor]:
        """See `Learner.weights`; they stay in the object store until somebody looks."""
        (ref,) = self._all(lambda process: process.weights.remote())
        return Fetched(ref)

    def save_state(self, folder: Path) -> None:
        """See `Learner.save_state`; every process writes its part, so that all must see the folder."""
        self._call("save_state", folder.resolve())

    def load_state(self, folder: Path) -> None:
        """See `Learner.load_state`."""
        self._call("load_state", folder.resolve())
        self.version = self._all(lambda process: process.version.remote())

    def restart(self, weights: Mapping[str, torch.Tensor]) -> None:
        """See `Learner.restart`."""
        self._call("restart", ray.put(dict(weights)))

    def end(self) -> None:
        """End its processes."""
        for process in self._processes:
            ray.kill(process)

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._all(lambda process: process.call.remote(method, *arguments))

    def _all(self, call: Callable[[Any], Any]) -> Any:
        """What the first process answers, once all have answered.

        Raises:
            Lost: one of them is gone; the others may never answer then.
        """
        refs = [call(process) for process in self._processes]
        try:
            waiting, self._beginning = [*self._beginning, *refs], []
            while waiting:
                ready, waiting = ray.wait(waiting)
                ray.get(ready)
            return ray.get(refs[0])
        except RayError as error:
            told = as_ours(error)
            if isinstance(told, Gone):
                raise Lost(f"the learner of {self._name} is lost ({told})") from error
            raise told from error


class RayStore:
    """A store in a process of its own, for any number of threads and nodes; see `Store`."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def commit(self, entry: Entry) -> Committed:
        """See `Store.commit`."""
        committed: Committed = self._call("commit", entry)
        return committed

    def withdraw(self, queue: str, group: str) -> None:
        """See `Store.withdraw`."""
        self._call("withdraw", queue, group)

    def lease(
        self, queue: str, *, groups: int | None, version: int, max_staleness: int | None, seconds: float
    ) -> Lease | None:
        """See `Store.lease`."""
        settings = {"groups": groups, "version": version, "max_staleness": max_staleness, "seconds": seconds}
        lease: Lease | None = self._call("lease", queue, **settings)
        return lease

    def acknowledge(self, lease: Lease) -> None:
        """See `Store.acknowledge`."""
        self._call("acknowledge", lease)

    def release(self, lease: Lease) -> None:
        """See `Store.release`."""
        self._call("release", lease)

    def counts(self, queue: str) -> Counts:
        """See `Store.counts`."""
        counts: Counts = self._call("counts", queue)
        return counts

    def entries(self) -> Iterator[Entry]:
        """See `Store.entries`."""
        yield from self._told(self._process.entries.remote())

    def close(self) -> None:
        """End its process."""
        ray.kill(self._process)

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        return self._told(self._process.call.remote(method, *arguments, **named))

    def _told(self, ref: Any) -> Any:
        try:
            return answer(ref)
        except Gone as error:
            raise Lost(f"the store is lost ({error})") from error
