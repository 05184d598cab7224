"""A run in many processes, placed by Ray: workers that play, engines that they may share, and learners.

Ray is known here, in `processes` and in `proxies`, and nowhere else.
"""

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from marl_llm.config import Config, PlacementConfig
from marl_llm.errors import ConfigError, RunError
from marl_llm.evaluation.measure import Evaluation
from marl_llm.play import Rewards
from marl_llm.runtime.coordinator import Coordinator, Gone
from marl_llm.runtime.processes import Elsewhere, EngineProcess, Fetched, StoreProcess, WorkerProcess, answer
from marl_llm.runtime.proxies import RayLearner, RayStore, RayWorker, options
from marl_llm.runtime.rollouts import Rollouts, Step, Stop, Tell, Updates
from marl_llm.runtime.store import Store
from marl_llm.team import Makers, Team
from marl_llm.types import Match

NICENESS = "RAY_worker_niceness"
"""The environment variable by which Ray ranks its processes behind others; 15 if it is not set."""
CONNECT_S = 5.0
"""Seconds in which a cluster must answer."""


class RayRollouts:
    """Workers in many processes; see `Rollouts`."""

    def __init__(self, config: Config, path: Path, rewards: Rewards | None, tell: Tell) -> None:
        self._config = config
        self._path = path
        self._rewards = rewards
        self._engines = [self._engine() for _ in range(config.cluster.engines)]
        self._evaluator = self._worker(config.cluster.evaluator, None) if config.cluster.evaluators else None
        self._workers: dict[int, RayWorker] = {}
        self._coordinator = Coordinator(config, self._spawn, tell)

    def publish(self, team: Team) -> None:
        """See `Rollouts.publish`."""
        self._coordinator.publish(_published(team))

    def begin(self, step: int, matches: Sequence[Match]) -> None:
        """See `Rollouts.begin`."""
        self._coordinator.begin(step, matches)

    def finish(self, step: int, stop: Stop) -> Step:
        """See `Rollouts.finish`."""
        over = self._coordinator.finish(step, stop)
        self._rest()
        return over

    def _rest(self) -> None:
        """Have the engines give their memory to the learners, where they share GPUs with them."""
        if self._config.cluster.colocate:
            for process in self._engines or [worker.actor for worker in self._workers.values()]:
                with suppress(Gone):  # it is replaced when it is called next
                    answer(process.rest.remote())

    def evaluate(self, config: Config, team: Team, start: Path, *, anew: bool) -> Evaluation:
        """See `Rollouts.evaluate`; a process that is lost meanwhile is made anew, and asked again."""
        started = any(member.learner is not None and member.learner.version for member in team.members.values())
        other = anew and started  # else they are those of the checkpoint
        weights = None if other else self._coordinator.edition(_published(team))
        for _ in range(self._config.cluster.restarts + 1):
            try:
                measured = (self._evaluator or self._workers[0]).evaluate(config, start, weights)
                self._rest()
                return measured
            except Gone as error:
                lost = error
                if self._evaluator is not None:
                    self._evaluator = self._worker(self._config.cluster.evaluator, None)
        raise RunError(f"nobody measures: {lost}")

    def close(self) -> None:
        """End all processes."""
        self._coordinator.close()
        if self._evaluator is not None:
            self._evaluator.end()
        for engine in self._engines:
            ray.kill(engine)

    def _spawn(self, number: int) -> RayWorker:
        engine = None
        if self._engines:
            place = number % len(self._engines)
            if not _alive(self._engines[place]):
                self._engines[place] = self._engine()
            engine = self._engines[place]
        self._workers[number] = self._worker(self._config.cluster.worker, engine)
        return self._workers[number]

    def _worker(self, placement: PlacementConfig, engine: Any) -> RayWorker:
        kind: Any = ray.remote(concurrency_groups={"watch": 1})(WorkerProcess)  # type: ignore[call-overload]
        actor = kind.options(**options(placement))
        return RayWorker(actor.remote(self._config, self._path, self._rewards, engine))

    def _engine(self) -> Any:
        return (
            ray.remote(EngineProcess).options(**options(self._config.cluster.engine)).remote(self._config, self._path)
        )


def _alive(actor: Any) -> bool:
    """Whether a process that had begun to work still does."""
    ready, _ = ray.wait([actor.__ray_ready__.remote()], timeout=CONNECT_S)
    try:
        ray.get(ready)
    except RayError:
        return False
    return True  # or busy


def _published(team: Team) -> dict[str, tuple[int, Any]]:
    """The weights of all that learn."""
    learners = {name: member.learner for name, member in team.members.items()}
    return {
        name: (learner.version, weights.ref)
        for name, learner in learners.items()
        if isinstance(learner, RayLearner) and isinstance(weights := learner.weights(), Fetched)
    }


class RayRuntime:
    """See `Runtime`."""

    elsewhere = True

    def __init__(self, config: Config) -> None:
        self.makers = Makers(engine=Elsewhere, learner=self._learner)
        self.beginners = Makers(engine=Elsewhere)
        self.ahead = config.cluster.ahead
        self.in_flight = config.cluster.mode == "async"
        self._learners: dict[str, RayLearner] = {}

    def beginning(self, config: Config) -> Config:
        """See `Runtime.beginning`: the process that trains needs no GPU."""
        policies = {
            name: replace(policy, learner=replace(policy.learner, processes=1, device="cpu"))
            for name, policy in config.policies.items()
        }
        return replace(config, policies=policies)

    @contextmanager
    def rollouts(
        self, config: Config, team: Team, path: Path, rewards: Rewards | None, tell: Tell
    ) -> Iterator[Rollouts]:
        """See `Runtime.rollouts`; when they are over, so are the learners of the team."""
        rollouts = RayRollouts(config, path.resolve(), rewards, tell)
        try:
            yield rollouts
        finally:
            rollouts.close()
            for learner in self._learners.values():
                learner.end()
            self._learners.clear()

    def store(self, make: Callable[[], Store]) -> RayStore:
        """See `Runtime.store`; in a process of its own."""
        return RayStore(ray.remote(StoreProcess).options(num_cpus=0).remote(make))

    def learn(self, updates: Updates) -> list[Mapping[str, float]]:
        """See `Runtime.learn`; all at the same time."""
        with ThreadPoolExecutor(max(1, len(updates))) as threads:
            return [done.result() for done in [threads.submit(update) for update in updates.values()]]

    def _learner(self, config: Config, name: str, model: Any, checkpoint: Path | None) -> RayLearner:
        if name in self._learners:  # of a session that lost another part
            self._learners.pop(name).end()
        self._learners[name] = RayLearner(config, name, None if checkpoint is None else checkpoint.resolve())
        return self._learners[name]


@contextmanager
def cluster(config: Config) -> Iterator[RayRuntime]:
    """A Ray cluster, the one that is there or one of this machine alone, with room for what the settings want.

    Raises:
        RunError: nothing answers at the address.
        ConfigError: the cluster has less than what is asked for.
    """
    ours = not ray.is_initialized()
    if ours:
        _connect(config.cluster.address)
    try:
        _check_room(config)
        yield RayRuntime(config)
    finally:
        if ours:
            ray.shutdown()


def _connect(address: str | None) -> None:
    if address is None:
        os.environ.setdefault(NICENESS, "0")  # processes that learn are no background work here
        ray.init(address="local", include_dashboard=False, log_to_driver=False)  # not one that somebody else runs here
        return
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        except (OSError, ValueError) as error:
            raise RunError(f"cluster.address: nothing answers at {address} ({error})") from error
    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"cluster.address: {address} is no Ray cluster that can be joined ({reason})") from error


def _check_room(config: Config) -> None:
    wanted = config.cluster
    learning = [name for name, policy in config.policies.items() if policy.learns]
    placements = {
        f"{wanted.workers} workers": [wanted.worker] * wanted.workers,
        f"{wanted.engines} engines": [wanted.engine] * wanted.engines,
        f"{wanted.evaluators} evaluators": [wanted.evaluator] * wanted.evaluators,
        "learners": [
            wanted.learners.get(name, wanted.learner)
            for name in learning
            for _ in range(config.policies[name].learner.processes)
        ],
    }
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    kinds = {name for places in placements.values() for place in places for name in place.resources}
    for kind in ("CPU", "GPU", *sorted(kinds)):
        asked = {who: sum(_amount(place, kind) for place in places) for who, places in placements.items()}
        total, has = sum(asked.values()), there.get(kind, 0.0)
        if total > has:
            parts = ", ".join(f"{who}: {amount:g}" for who, amount in asked.items() if amount)
            raise ConfigError(f"cluster: {total:g} {kind} are asked for ({parts}), and the cluster has {has:g}")


def _amount(place: PlacementConfig, kind: str) -> float:
    return {"CPU": place.cpus, "GPU": place.gpus}.get(kind, place.resources.get(kind, 0.0))
