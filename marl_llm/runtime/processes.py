"""What is in Ray's processes: what the local runtime has in one, a `Worker`, a `Learner`, engines and a store.

Every process makes its part of the team from the run's first checkpoint, and gets weights later; so one that is lost is
made anew. Weights go from learners to engines through Ray's object store (shared memory within a node).
"""

import socket
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import ray
import ray.util
import torch
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from marl_llm.config import Config
from marl_llm.engines.base import Request
from marl_llm.errors import MarlError
from marl_llm.evaluation.measure import Evaluation, evaluate
from marl_llm.learning import sharding
from marl_llm.opponents import Opponents
from marl_llm.play import Rewards
from marl_llm.run import checkpoint_path
from marl_llm.runtime.coordinator import Gone, Order, Report, Weights
from marl_llm.runtime.rollouts import Lost
from marl_llm.runtime.store import Entry, Store
from marl_llm.runtime.watchdog import Signs
from marl_llm.runtime.worker import Worker
from marl_llm.team import Makers, found, one_learner
from marl_llm.types import Completion, Tokens


def answer(ref: Any) -> Any:
    """What a call returned.

    Raises:
        Gone: its process is lost.
        Lost: so is what it needed.
        MarlError: as there.
    """
    try:
        return ray.get(ref)
    except RayError as error:
        raise as_ours(error) from error


def as_ours(error: BaseException) -> BaseException:
    """An error of Ray's as one of ours."""
    cause = getattr(error, "cause", None) if isinstance(error, RayTaskError) else error
    if isinstance(cause, (MarlError, OSError)):
        return cause
    if isinstance(cause, ObjectLostError):
        return Lost("weights are lost with their learner")
    if isinstance(cause, RayActorError):
        return Gone(" ".join(str(cause).split(".")[0].split()))
    return error


def future(ref: Any) -> "Future[Any]":
    """The answer of a call, with errors as ours."""
    told: Future[Any] = Future()

    def pass_on(answer: "Future[Any]") -> None:
        error = answer.exception()
        if error is None:
            told.set_result(answer.result())
        else:
            told.set_exception(as_ours(error))

    ref.future().add_done_callback(pass_on)
    return told


class Fetched(Mapping[str, torch.Tensor]):
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


def arrays(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
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
        if weights is None or weights.edition <= self._edition:  # another client may have brought later ones
            return False
        self._edition = weights.edition
        for name, member in self.team.members.items():
            member.policy.engine.wake()
            if name in weights.policies:
                version, ref = weights.policies[name]
                member.policy.engine.load_weights(name, Fetched(ref), version)
            else:
                member.policy.engine.forget()
        return True

    def rest(self) -> None:
        """Leave the GPU to whoever learns, until weights come."""
        for member in self.team.members.values():
            member.policy.engine.sleep()


class WorkerProcess:
    """Plays, and measures; see `Handle`."""

    def __init__(self, config: Config, path: Path, rewards: Rewards | None, engine: Any) -> None:
        makers = Makers() if engine is None else Makers(engine=lambda config, name: SharedEngine(engine, config, name))
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
            answer(self._engine.load.remote(weights))
        if self._team.load(weights):
            self._opponents.forget()


class EngineProcess:
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
            assert isinstance(ticket, tuple), "as `SharedEngine` made it"
            owner, own = ticket
            self._ready.setdefault((owner, policy), []).append((own, completion))
        return self._ready.pop((client, policy), [])

    def score(self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float) -> list[tuple[float, ...]]:
        return self._team.team.members[policy].policy.engine.score(policy, pairs, temperature)

    def best(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float
    ) -> list[tuple[tuple[int, float], ...]]:
        return self._team.team.members[policy].policy.engine.best(policy, pairs, temperature)

    def sampled(self, client: str, policy: str, ticket: Hashable) -> Tokens:
        return self._team.team.members[policy].policy.engine.sampled((client, ticket))

    def cancel(self, client: str, policy: str, ticket: Hashable) -> None:
        ready = self._ready.pop((client, policy), [])
        self._ready[client, policy] = [item for item in ready if item[0] != ticket]
        if len(self._ready[client, policy]) == len(ready):
            self._team.team.members[policy].policy.engine.cancel((client, ticket))


class Elsewhere:
    """Stands for an engine in another process, to which its weights come otherwise; it can be asked nothing itself, and
    is enough for who only reads and writes prompts."""

    def __init__(self, config: Config, policy: str) -> None:
        self.policies: tuple[str, ...] = (policy,)
        self.context_tokens = config.play.context_tokens

    def submit(self, request: Request) -> None:
        raise AssertionError("nobody plays in this process")

    def poll(self) -> list[tuple[Hashable, Completion]]:
        return []

    def sampled(self, ticket: Hashable) -> Tokens:
        raise AssertionError("nobody plays in this process")

    def cancel(self, ticket: Hashable) -> None:
        raise AssertionError("nobody plays in this process")

    def score(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[float, ...]]:
        raise AssertionError("nobody measures in this process")

    def best(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[tuple[int, float], ...]]:
        raise AssertionError("nobody measures in this process")

    def forget(self) -> None:
        """Done there."""

    def load_weights(self, policy: str, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Done there."""

    def sleep(self) -> None:
        """Done there."""

    def wake(self) -> None:
        """Done there."""


class SharedEngine(Elsewhere):
    """An engine in another process, which is asked there; see `Engine`."""

    def __init__(self, engine: Any, config: Config, policy: str) -> None:
        super().__init__(config, policy)
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
        ready: list[tuple[Hashable, Completion]] = answer(
            self._engine.exchange.remote(self._client, self._policy, requests)
        )
        self._flying -= len(ready)
        return ready

    def sampled(self, ticket: Hashable) -> Tokens:
        if any(request.ticket == (self._client, ticket) for request in self._requests):
            return ()
        tokens: Tokens = answer(self._engine.sampled.remote(self._client, self._policy, ticket))
        return tokens

    def cancel(self, ticket: Hashable) -> None:
        left = [request for request in self._requests if request.ticket != (self._client, ticket)]
        if len(left) == len(self._requests):
            answer(self._engine.cancel.remote(self._client, self._policy, ticket))
        self._requests = left
        self._flying -= 1

    def score(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[float, ...]]:
        scores: list[tuple[float, ...]] = answer(self._engine.score.remote(policy, pairs, temperature))
        return scores

    def best(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[tuple[int, float], ...]]:
        best: list[tuple[tuple[int, float], ...]] = answer(self._engine.best.remote(policy, pairs, temperature))
        return best


class LearnerProcess:
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
        return [ray.put(arrays(self._learner.weights()))]


class StoreProcess:
    """A store."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._store = make()

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        return getattr(self._store, method)(*arguments, **named)

    def entries(self) -> list[Entry]:
        return list(self._store.entries())
