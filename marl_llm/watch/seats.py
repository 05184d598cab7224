"""Who can be put in a seat by name: the run's policies at its checkpoints, and the players of tournaments."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

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
"""Checkpoints that stay in memory, the latest ones that were asked for."""
OTHERS = 8
"""Other players that stay in memory."""

SLOTS = 16
"""Sequences that an engine decodes together, at most, and as many whose keys and values it keeps."""

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
        self._loaded: OrderedDict[int, Loaded] = OrderedDict()
        self._others: OrderedDict[str, Shared] = OrderedDict()

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
        loaded = self._at(step, tell)
        if policy not in loaded.learners:
            settings = self.config.policies[policy]
            loaded.learners[policy] = Learner(
                loaded.team.members[policy].language_model.model,
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
        return loaded.learners[policy]

    def _named(self, name: str, step: int, tell: Tell) -> Shared:
        if name == PERSON:
            raise ConfigError(f"player {PERSON!r}: is the person at the page, and sits where the page says")
        model = self.model(name)
        if model is not None and (name == model or self._saved(name)):
            return self._at(self.version(name, step) or 0, tell).shared[model]
        if name not in self._others:
            self._others[name] = Shared(self._made(name, tell))
            while len(self._others) > OTHERS:
                self._others.popitem(last=False)
        self._others.move_to_end(name)
        return self._others[name]

    def _saved(self, name: str) -> bool:
        """Whether there is a checkpoint of one of the run's models as it was."""
        return (self.path / "checkpoints" / f"step_{name.rpartition('@')[2]}").is_dir()

    def _made(self, name: str, tell: Tell) -> Policy:
        if name in self.config.policies:
            return _made(self.config.policies[name], name)
        model = self.model(name)
        if model is not None:  # of the league, since it is no checkpoint's
            if name not in [folder.name for _, folder in list_snapshots(self.path)]:
                self.require(int(name.rpartition("@")[2]))
            tell(f"loading {name}")
            return frozen_copy(self.config, model, snapshot_path(self.path, name), called=name)
        try:
            return _made(settings_of(name), name)
        except ConfigError as error:
            known = ", ".join([*self.config.policies, *(f"{model}@STEP" for model in self.models)])
            raise ConfigError(f"{error}; and of this run: {known}") from error

    def _at(self, step: int, tell: Tell) -> "Loaded":
        if step not in self._loaded:
            tell(f"loading the policies of step {step}")
            while len(self._loaded) >= KEPT:  # before another one needs the memory; whoever is at a table stays there
                self._loaded.popitem(last=False)
            team = found(self.config, checkpoint_path(self.path, step), learn=False)
            shared = {name: Shared(member.policy) for name, member in team.members.items()}
            self._loaded[step] = Loaded(team=team, shared=shared)
        self._loaded.move_to_end(step)
        return self._loaded[step]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint in memory."""

    team: Team
    """Its policies."""
    shared: Mapping[str, Shared]
    """The language models among them, by name: where they sit."""
    learners: dict[str, Learner] = field(default_factory=dict)
    """What reads tokens with their weights, by name, of those that were asked for."""


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
