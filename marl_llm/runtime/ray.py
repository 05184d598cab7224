"""A run in many processes, placed by Ray: workers that play, engines that they may share, and learners.

The only file that knows Ray. What is in the processes is what the local runtime has in one: `Worker` and `Learner`.
Every process makes its part of the team from the run's first checkpoint, and gets weights later; so one that is lost is
made anew. Weights go from learners to engines through Ray's object store (shared memory within a node).
"""

import os
import socket
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import torch

from marl_llm.config import Config, PlacementConfig
from marl_llm.engines.base import Request
from marl_llm.errors import ConfigError, MarlError, RunError
from marl_llm.evaluation.measure import Evaluation, evaluate
from marl_llm.learning import sharding
from marl_llm.opponents import Opponents
from marl_llm.play import Rewards
from marl_llm.run import checkpoint_path
from marl_llm.runtime.coordinator import Coordinator, Gone, Order, Report, Weights
from marl_llm.runtime.rollouts import Lost, Rollouts, Step, Stop, Tell, Updates
from marl_llm.runtime.store import Committed, Counts, Entry, Lease, Store
from marl_llm.runtime.watchdog import Signs
from marl_llm.runtime.worker import Worker
from marl_llm.team import Makers, Team, found, one_learner
from marl_llm.types import Completion, Match, Sample, Tokens

try:
    import ray
    import ray.util
    from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError
except ImportError as error:
    raise ConfigError("runtime: ray is not installed; pip install 'marl-llm[ray]'") from error

T = TypeVar("T")
NICENESS = "RAY_worker_niceness"
"""The environment variable by which Ray ranks its processes behind others; 15 if it is not set."""
CONNECT_S = 5.0
"""Seconds in which a cluster must answer."""


# --- in the processes ------------------------------------------------------------------------------------------------


class _Fetched(Mapping[str, torch.Tensor]):
    """Weights in the object store, fetched when they are looked at."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref
        self._tensors: dict[str, torch.Tensor] | None = None

    def _all(self) -> dict[str, torch.Tensor]:
        if self._tensors is None:
            self._tensors = _tensors(ray.get(self.ref))
        return self._tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def _arrays(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """As arrays, which the object store hands to other processes without a copy."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in weights.items()}


def _tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():  # they must not be written to, and nobody does
        warnings.simplefilter("ignore", UserWarning)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _limit_threads(config: Config) -> None:
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)


class _Team:
    """A team that does not learn here: the engines of its models get weights by editions."""

    def __init__(self, config: Config, path: Path, makers: Makers) -> None:
        _limit_threads(config)
        self.team = found(config, checkpoint_path(path, 0), learn=False, makers=makers)
        self._edition = 0

    def load(self, weights: Weights | None) -> bool:
        """Whether this was news. Caches are emptied with each edition."""
        if weights is None or weights.edition == self._edition:
            return False
        self._edition = weights.edition
        for name, member in self.team.members.items():
            member.policy.engine.wake()
            if name in weights.policies:
                version, ref = weights.policies[name]
                member.policy.engine.load_weights(name, _Fetched(ref), version)
            else:
                member.policy.engine.forget()
        return True

    def rest(self) -> None:
        """Leave the GPU to whoever learns, until weights come."""
        for member in self.team.members.values():
            member.policy.engine.sleep()


class _WorkerProcess:
    """Plays, and measures; see `Handle`."""

    def __init__(self, config: Config, path: Path, rewards: Rewards | None, engine: Any) -> None:
        makers = Makers() if engine is None else Makers(engine=lambda config, name: _SharedEngine(engine, config, name))
        self._engine = engine
        self._team = _Team(config, path, makers)
        self._opponents = Opponents(config, path)
        self._worker = Worker(config, self._team.team.policies, self._opponents, rewards, live=config.cluster.live)

    def play(self, order: Order) -> Report:
        self._load(order.weights)
        if order.matches:
            self._worker.begin(order.matches)
        began = monotonic()
        while self._worker.num_matches and not order.due(monotonic() - began, short=self._worker.short):
            self._worker.poll()
        return Report(played=tuple(self._worker.take()), effort=self._worker.effort(), signs=self._worker.signs())

    def signs(self) -> Signs:
        return self._worker.signs()

    def evaluate(self, config: Config, start: Path, weights: Weights | None) -> Evaluation:
        """`weights`: None for those of the checkpoint `start`."""
        if weights is None:
            return evaluate(config, found(config, start, learn=False).policies, start)
        self._load(weights)
        return evaluate(config, self._team.team.policies, start)

    def rest(self) -> None:
        self._team.rest()

    def _load(self, weights: Weights | None) -> None:
        if self._engine is not None and weights is not None:
            _answer(self._engine.load.remote(weights))
        if self._team.load(weights):
            self._opponents.forget()


class _EngineProcess:
    """The engines of a team's models, for several workers."""

    def __init__(self, config: Config, path: Path) -> None:
        self._team = _Team(config, path, Makers())
        self._ready: dict[tuple[str, str], list[tuple[Hashable, Completion]]] = {}

    def load(self, weights: Weights) -> None:
        self._team.load(weights)

    def rest(self) -> None:
        self._team.rest()

    def exchange(self, client: str, policy: str, requests: Sequence[Request]) -> list[tuple[Hashable, Completion]]:
        """Take a client's requests, advance by one step, and give what is ready of this client's."""
        engine = self._team.team.members[policy].policy.engine
        for request in requests:
            engine.submit(request)
        for ticket, completion in engine.poll():
            assert isinstance(ticket, tuple), "as `_SharedEngine` made it"
            owner, own = ticket
            self._ready.setdefault((owner, policy), []).append((own, completion))
        return self._ready.pop((client, policy), [])

    def score(self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float) -> list[tuple[float, ...]]:
        return self._team.team.members[policy].policy.engine.score(policy, pairs, temperature)


class _SharedEngine:
    """An engine in another process; see `Engine`. Its weights come to that process."""

    def __init__(self, engine: Any, config: Config, policy: str) -> None:
        self.policies: tuple[str, ...] = (policy,)
        self.context_tokens = config.play.context_tokens
        self._engine = engine
        self._policy = policy
        self._client = ray.get_runtime_context().get_actor_id()
        self._requests: list[Request] = []
        self._flying = 0

    def submit(self, request: Request) -> None:
        self._requests.append(replace(request, ticket=(self._client, request.ticket)))
        self._flying += 1

    def poll(self) -> list[tuple[Hashable, Completion]]:
        if not self._flying:
            return []
        requests, self._requests = self._requests, []
        ready: list[tuple[Hashable, Completion]] = _answer(
            self._engine.exchange.remote(self._client, self._policy, requests)
        )
        self._flying -= len(ready)
        return ready

    def score(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[float, ...]]:
        scores: list[tuple[float, ...]] = _answer(self._engine.score.remote(policy, pairs, temperature))
        return scores

    def forget(self) -> None:
        """Done there."""

    def load_weights(self, policy: str, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Done there."""

    def sleep(self) -> None:
        """Done there."""

    def wake(self) -> None:
        """Done there."""


class _LearnerProcess:
    """One process of a learner."""

    def address(self) -> str:
        """Where the others can find it."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"  # type: ignore[no-untyped-call]

    def begin(self, config: Config, name: str, checkpoint: Path | None, address: str, rank: int) -> None:
        """Make the learner, once all its processes are there."""
        _limit_threads(config)
        settings = config.policies[name].learner
        if settings.processes > 1:
            kind = torch.device(settings.device).type
            try:
                sharding.join(address, rank=rank, processes=settings.processes, device=kind)
            except torch.distributed.DistError as error:
                reason = " ".join(str(error).split())[:200]
                raise Lost(f"the processes of learner {name} do not meet at {address} ({reason})") from error
        self._learner = one_learner(config, name, checkpoint)

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._learner, method)(*arguments)

    def version(self) -> int:
        return self._learner.version

    def weights(self) -> list[Any]:
        """In a list, so that they stay where they are."""
        return [ray.put(_arrays(self._learner.weights()))]


class _StoreProcess:
    """A store."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._store = make()

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        return getattr(self._store, method)(*arguments, **named)

    def entries(self) -> list[Entry]:
        return list(self._store.entries())


# --- in the process that trains --------------------------------------------------------------------------------------


def _answer(ref: Any) -> Any:
    """What a call returned.

    Raises:
        Gone: its process is lost.
        Lost: so is what it needed.
        MarlError: as there.
    """
    try:
        return ray.get(ref)
    except RayError as error:
        raise _told(error) from error


def _told(error: BaseException) -> BaseException:
    """An error of Ray's as one of ours."""
    cause = getattr(error, "cause", None) if isinstance(error, RayTaskError) else error
    if isinstance(cause, (MarlError, OSError)):
        return cause
    if isinstance(cause, ObjectLostError):
        return Lost("weights are lost with their learner")
    if isinstance(cause, RayActorError):
        return Gone(" ".join(str(cause).split(".")[0].split()))
    return error


def _future(ref: Any) -> "Future[Any]":
    """The answer of a call, with errors as ours."""
    told: Future[Any] = Future()

    def pass_on(answer: "Future[Any]") -> None:
        error = answer.exception()
        if error is None:
            told.set_result(answer.result())
        else:
            told.set_exception(_told(error))

    ref.future().add_done_callback(pass_on)
    return told


def _options(placement: PlacementConfig) -> dict[str, Any]:
    return {"num_cpus": placement.cpus, "num_gpus": placement.gpus, "resources": dict(placement.resources) or None}


class _RayWorker:
    """A worker in an actor; see `Handle`."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def play(self, order: Order) -> "Future[Report]":
        return _future(self.actor.play.remote(order))

    def signs(self) -> "Future[Signs]":
        return _future(self.actor.signs.options(concurrency_group="watch").remote())

    def evaluate(self, config: Config, start: Path, weights: Weights | None) -> Evaluation:
        measured: Evaluation = _answer(self.actor.evaluate.remote(config, start, weights))
        return measured

    def end(self) -> None:
        ray.kill(self.actor)


class RayLearner:
    """A learner in other processes; see `Trainer`. All of them are told the same, and the first one's answer counts."""

    def __init__(self, config: Config, name: str, checkpoint: Path | None) -> None:
        """Start as many processes as the settings say, which begin from a checkpoint."""
        placement = config.cluster.learners.get(name, config.cluster.learner)
        count = config.policies[name].learner.processes
        kind: Any = ray.remote(_LearnerProcess).options(**_options(placement))
        self.version = 0
        self.by_pairs = config.policies[name].objective.preference is not None
        self._name = name
        self._processes = [kind.remote() for _ in range(count)]
        address = self._processes[0].address.remote() if count > 1 else ""
        self._beginning = [
            process.begin.remote(config, name, checkpoint, address, rank)
            for rank, process in enumerate(self._processes)
        ]

    def update(self, samples: Sequence[Sample]) -> dict[str, float]:
        """See `Learner.update`."""
        metrics: dict[str, float] = self._call("update", ray.put(samples))
        self.version += 1
        return metrics

    def imitate(self, samples: Sequence[Sample], lr: float) -> float:
        """See `Learner.imitate`."""
        loss: float = self._call("imitate", samples, lr)
        return loss

    def weights(self) -> Mapping[str, torch.Tensor]:
        """See `Learner.weights`; they stay in the object store until somebody looks."""
        (ref,) = self._all(lambda process: process.weights.remote())
        return _Fetched(ref)

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
            told = _told(error)
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
            return _answer(ref)
        except Gone as error:
            raise Lost(f"the store is lost ({error})") from error


class RayRollouts:
    """Workers in many processes; see `Rollouts`."""

    def __init__(self, config: Config, path: Path, rewards: Rewards | None, tell: Tell) -> None:
        self._config = config
        self._path = path
        self._rewards = rewards
        self._engines = [self._engine() for _ in range(config.cluster.engines)]
        self._evaluator = self._worker(config.cluster.evaluator, None) if config.cluster.evaluators else None
        self._workers: dict[int, _RayWorker] = {}
        self._editions = 0
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
                    _answer(process.rest.remote())

    def evaluate(self, config: Config, team: Team, start: Path, *, anew: bool) -> Evaluation:
        """See `Rollouts.evaluate`; a process that is lost meanwhile is made anew, and asked again."""
        self._editions -= 1  # those of the workers count upwards
        weights = None if anew else Weights(edition=self._editions, policies=_published(team))
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

    def _spawn(self, number: int) -> _RayWorker:
        engine = None
        if self._engines:
            place = number % len(self._engines)
            if not _alive(self._engines[place]):
                self._engines[place] = self._engine()
            engine = self._engines[place]
        self._workers[number] = self._worker(self._config.cluster.worker, engine)
        return self._workers[number]

    def _worker(self, placement: PlacementConfig, engine: Any) -> _RayWorker:
        kind: Any = ray.remote(concurrency_groups={"watch": 1})(_WorkerProcess)  # type: ignore[call-overload]
        actor = kind.options(**_options(placement))
        return _RayWorker(actor.remote(self._config, self._path, self._rewards, engine))

    def _engine(self) -> Any:
        return (
            ray.remote(_EngineProcess).options(**_options(self._config.cluster.engine)).remote(self._config, self._path)
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
        if isinstance(learner, RayLearner) and isinstance(weights := learner.weights(), _Fetched)
    }


class _NoEngine:
    """Stands for engines that are in other processes, in the one that trains, which only reads and writes prompts."""

    def __init__(self, config: Config, policy: str) -> None:
        self.policies: tuple[str, ...] = (policy,)
        self.context_tokens = config.play.context_tokens

    def submit(self, request: Request) -> None:
        """Nobody plays here."""
        raise AssertionError("nobody plays in the process that trains")

    def poll(self) -> list[tuple[Hashable, Completion]]:
        """Nothing was submitted."""
        return []

    def score(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[float, ...]]:
        """Nobody measures here."""
        raise AssertionError("nobody measures in the process that trains")

    def forget(self) -> None:
        """Nothing is kept here."""

    def load_weights(self, policy: str, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """They are published otherwise."""

    def sleep(self) -> None:
        """There is nothing here."""

    def wake(self) -> None:
        """There is nothing here."""


class RayRuntime:
    """See `Runtime`."""

    elsewhere = True

    def __init__(self, config: Config) -> None:
        self.makers = Makers(engine=_NoEngine, learner=self._learner)
        self.beginners = Makers(engine=_NoEngine)
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
        return RayStore(ray.remote(_StoreProcess).options(num_cpus=0).remote(make))

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
