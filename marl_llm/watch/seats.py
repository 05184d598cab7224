"""Who can be put in a seat by name: the run's policies at its checkpoints, and the players of tournaments."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

from marl_llm.checkpoints import list_checkpoints, list_snapshots
from marl_llm.config import (
    ClusterConfig,
    Config,
    EngineConfig,
    GameConfig,
    LearnerConfig,
    ObjectiveConfig,
    PolicyConfig,
)
from marl_llm.devices import available_device
from marl_llm.errors import ConfigError, RunError
from marl_llm.learning.learner import Learner
from marl_llm.players import check_player, first_view, frozen_copy, make_player, settings_of
from marl_llm.policies.base import Policy, Reply, Strategy, View
from marl_llm.run import Run, checkpoint_path, snapshot_path
from marl_llm.team import Team, found

PERSON = "you"
"""The name of whoever sits at the page."""
KEPT = 2
"""Checkpoints that stay in memory, the latest ones that were asked for; and as many snapshots and scorers."""

SLOTS = 16
"""Sequences that an engine decodes together, at most, and as many whose keys and values it keeps."""
K = TypeVar("K")
V = TypeVar("V")

Tell = Callable[[str], None]
"""Told what takes long, in words."""


class Shared:
    """A policy that sits in several places at once, each of which gets its own decisions."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._places = count()
        self._ready: dict[int, list[tuple[Hashable, Reply]]] = {}

    def place(self) -> "Place":
        """Another place; to be left (`Place.leave`) when nothing is asked there any more."""
        number = next(self._places)
        self._ready[number] = []
        return Place(self, number)

    def poll(self, number: int) -> list[tuple[Hashable, Reply]]:
        """Let the policy make some progress, and return what it has decided in a place."""
        for asked, reply in self.policy.poll():
            assert isinstance(asked, tuple), "as `Place.submit` made it"
            where, ticket = asked
            if where in self._ready:  # else it was left
                self._ready[where].append((ticket, reply))
        ready, self._ready[number] = self._ready[number], []
        return ready

    def leave(self, number: int) -> None:
        """Forget a place, and what is still decided there."""
        self._ready.pop(number, None)


class Place:
    """A policy for one match or several, independent of all else that it plays."""

    def __init__(self, shared: Shared, number: int) -> None:
        self._shared, self._number = shared, number

    def submit(self, ticket: Hashable, view: View) -> None:
        """Ask for a decision."""
        self._shared.policy.submit((self._number, ticket), view)

    def poll(self) -> list[tuple[Hashable, Reply]]:
        """Make some progress; return the decisions that are ready."""
        return self._shared.poll(self._number)

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        """As the policy's."""
        return self._shared.policy.strategies(views)

    def leave(self) -> None:
        """Nothing is asked here any more."""
        self._shared.leave(self._number)


class Seats:
    """Makes the policies of a run, and others, when they are first asked for."""

    def __init__(self, path: Path, *, device: str | None = None) -> None:
        """`device`: of all models; None: where the run has each of them, or the CPU where there is no such device."""
        self.path = path
        self.config = _here(Run.config(path), device)
        self._teams: OrderedDict[int, Team] = OrderedDict()
        self._shared: OrderedDict[str, Shared] = OrderedDict()
        self._learners: OrderedDict[tuple[str, int], Learner] = OrderedDict()

    @property
    def models(self) -> list[str]:
        """The run's language models."""
        return [name for name, policy in self.config.policies.items() if policy.kind == "llm"]

    def before(self, step: int | None) -> int:
        """The checkpoint of the weights that played in a step, or, if it was not saved, the latest one before.

        None: the latest of all. Where all are later, it is the first one.

        Raises:
            RunError: there is none.
        """
        there = [saved for saved, _ in list_checkpoints(self.path / "checkpoints")]
        if not there:
            raise RunError(f"{self.path}: has no checkpoint yet")
        return there[-1] if step is None else max((saved for saved in there if saved < step), default=there[0])

    def require(self, step: int) -> int:
        """The step, if it has a checkpoint.

        Raises:
            RunError: it has none.
        """
        there = [saved for saved, _ in list_checkpoints(self.path / "checkpoints")]
        if step not in there:
            raise RunError(f"{self.path.name} has no checkpoint of step {step}; there are {there}")
        return step

    def model(self, name: str) -> str | None:
        """Which of the run's language models plays under a name, as it is or as it was; None: none."""
        if name in self.models:
            return name
        policy, _, step = name.rpartition("@")
        return policy if policy in self.models and step.isdecimal() else None

    def version(self, name: str, step: int) -> int | None:
        """The step whose weights play under a name where the run's own are those of `step`; None: nobody's."""
        if name in self.models:
            return step
        return None if self.model(name) is None else int(name.rpartition("@")[2])

    @contextmanager
    def seated(self, names: Collection[str], step: int, game: GameConfig, tell: Tell) -> Iterator[Mapping[str, Policy]]:
        """A policy for each name, for as long as the block; the run's own are those of the checkpoint of `step`.

        Raises:
            ConfigError: nobody is called so, or somebody cannot play the game.
            RunError, ModelError: a checkpoint or a snapshot cannot be loaded.
        """
        places = self.take(names, step, game, tell)
        try:
            yield places
        finally:
            for place in places.values():
                place.leave()

    def take(self, names: Collection[str], step: int, game: GameConfig, tell: Tell) -> dict[str, Place]:
        """As `seated`, for as long as nobody leaves them."""
        view = None
        shared = {name: self._named(name, step, tell) for name in dict.fromkeys(names)}
        for name, one in shared.items():
            view = view or first_view(game)
            check_player(f"player {name!r}", one.policy, view)
        return {name: one.place() for name, one in shared.items()}

    def learner(self, policy: str, step: int, tell: Tell) -> Learner:
        """Reads what one of the run's models says of tokens with the weights of a checkpoint.

        Raises:
            RunError, ModelError, ConfigError: it cannot be loaded.
        """
        key = policy, step
        if key not in self._learners:
            settings = self.config.policies[policy]
            self._learners[key] = Learner(
                self._team(step, tell).members[policy].language_model.model,
                LearnerConfig(
                    device=settings.learner.device,
                    dtype=settings.learner.dtype,
                    micro_batch_tokens=settings.learner.micro_batch_tokens,
                    row_tokens=settings.learner.row_tokens,
                    logit_tokens=settings.learner.logit_tokens,
                ),
                ObjectiveConfig(),
                temperature=settings.temperature,
                total_steps=1,
                seed=0,
            )
        return _latest(self._learners, key)

    def _named(self, name: str, step: int, tell: Tell) -> Shared:
        if name == PERSON:
            raise ConfigError(f"player {PERSON!r}: is the person at the page, and sits where the page says")
        key = f"{name} at {step}" if name in self.models else name
        if key not in self._shared:
            self._shared[key] = Shared(self._made(name, step, tell))
        return _latest(self._shared, key, keep=2 * KEPT + len(self.config.policies))

    def _made(self, name: str, step: int, tell: Tell) -> Policy:
        if name in self.models:
            return self._team(step, tell).policies[name]
        if name in self.config.policies:
            return _made(self.config.policies[name], name)
        policy, at, number = name.rpartition("@")
        if at and policy in self.config.policies and number.isdecimal():
            return self._earlier(policy, int(number), tell)
        try:
            return _made(settings_of(name), name)
        except ConfigError as error:
            known = ", ".join([*self.config.policies, *(f"{policy}@STEP" for policy in self.models)])
            raise ConfigError(f"{error}; and of this run: {known}") from error

    def _earlier(self, policy: str, step: int, tell: Tell) -> Policy:
        """One of the run's policies as it was: of a checkpoint, or of the league."""
        if policy not in self.models:
            raise ConfigError(f"player '{policy}@{step}': {policy} is no language model, and the same at every step")
        if (self.path / "checkpoints" / f"step_{step}").is_dir():
            return self._team(step, tell).policies[policy]
        snapshot = f"{policy}@{step}"
        if snapshot not in [folder.name for _, folder in list_snapshots(self.path)]:
            self.require(step)
        tell(f"loading {snapshot}")
        return frozen_copy(self.config, policy, snapshot_path(self.path, snapshot), called=snapshot)

    def _team(self, step: int, tell: Tell) -> Team:
        if step not in self._teams:
            tell(f"loading the policies of step {step}")
            while len(self._teams) >= KEPT:
                self._forget(next(iter(self._teams)))
            self._teams[step] = found(self.config, checkpoint_path(self.path, step), learn=False)
        return _latest(self._teams, step)

    def _forget(self, step: int) -> None:
        """Let a checkpoint's models go; who plays with them at a table keeps them until it is over."""
        team = self._teams.pop(step)
        policies = list(team.policies.values())
        for key in [key for key, shared in self._shared.items() if shared.policy in policies]:
            del self._shared[key]
        for known in [known for known in self._learners if known[1] == step]:
            del self._learners[known]


def _latest(kept: "OrderedDict[K, V]", key: K, keep: int = KEPT) -> V:
    """What is kept under the key, which is now the latest; the oldest ones beyond `keep` go."""
    kept.move_to_end(key)
    while len(kept) > keep:
        kept.popitem(last=False)
    return kept[key]


def _made(settings: PolicyConfig, name: str) -> Policy:
    if settings.kind == "human":
        raise ConfigError(f"player {name!r}: a person at the terminal cannot be asked from here")
    return make_player(settings, called=name)


def _here(config: Config, device: str | None) -> Config:
    """The settings, with all models in this process, on one device each, and with little memory beside the weights."""
    policies = {name: _policy_here(name, policy, device) for name, policy in config.policies.items()}
    return replace(config, runtime="local", cluster=ClusterConfig(), policies=policies)


def _policy_here(name: str, policy: PolicyConfig, device: str | None) -> PolicyConfig:
    wanted = policy.engine.device if device is None else device
    try:
        available_device(f"policies.{name}.engine.device", wanted)
    except ConfigError:
        if device is not None:
            raise
        wanted = "cpu"
    slots, cache_slots = min(policy.engine.slots, SLOTS), min(policy.engine.cache_slots, SLOTS)
    engine = EngineConfig(device=wanted, dtype=policy.engine.dtype, slots=slots, cache_slots=cache_slots)
    return replace(policy, engine=engine, learner=replace(policy.learner, device=wanted, processes=1))
