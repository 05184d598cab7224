"""Which model names a run has: its policies, those of its checkpoints, and teams."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from games.pipelines.deep_research import DeepResearch
from games.pipelines.workflow import Workflow
from marl_llm.checkpoints import checkpoint_of, list_checkpoints
from marl_llm.config import GameConfig
from marl_llm.errors import ConfigError
from marl_llm.evaluation.protocols import PROTOCOLS, asking, seats_for
from marl_llm.matchmaking import Seats, seat_policy
from marl_llm.play import make_game
from marl_llm.policies.llm import LLMPolicy
from marl_llm.serve.desk import Place
from marl_llm.team import policies_of

TEAM = "team:"
ANSWERING = (Workflow, DeepResearch)
"""Games whose `hidden` has the team's answer; others that take tasks do something else with them."""


class UnknownModelError(Exception):
    """There is no model of that name; the message names those that there are."""


@dataclass(frozen=True, kw_only=True)
class Team:
    """A team that answers a question."""

    game: GameConfig
    """The pipeline, without its question."""
    seats: Seats
    """Agent or pattern to policy."""
    places: Mapping[str, Place]
    """Those of its policies."""
    max_turns: int
    """After which it has no answer."""


Model = Place | Team


class Library:
    """The models of a run; its latest checkpoint is loaded at once, another when it is first asked for.

    Those of an experiment that has not begun, given by its YAML file, are as it would begin, without checkpoints.
    """

    def __init__(self, run: Path, *, keep: int = 2) -> None:
        """`keep`: other checkpoints that stay loaded, those asked for last.

        Raises:
            RunError, ModelError: the run has no checkpoint, or it cannot be loaded.
        """
        self._run, self._keep = run, keep
        self.step = None if run.is_file() else checkpoint_of(run, None)[0]
        """The latest checkpoint, as it was at the start; None: there are none."""
        self._loading = Lock()
        self._latest = _load(run, self.step)
        self._others: OrderedDict[int, Mapping[str, Model]] = OrderedDict()
        self.names = tuple(self._latest)
        """Those of the latest checkpoint; each with `@STEP` is that of another one."""

    def listed(self) -> list[str]:
        """All names, with the checkpoints that there are now."""
        return [*self.names, *(f"{name}@{step}" for step in self._steps() for name in self.names)]

    def at_hand(self, name: str) -> bool:
        """Whether `find` answers at once."""
        return "@" not in name

    def find(self, name: str) -> Model:
        """The model of that name; may have to load a checkpoint first.

        Raises:
            UnknownModelError: there is none.
            RunError, ModelError: its checkpoint is damaged.
        """
        base, at, step = name.rpartition("@")
        models = self._at(step) if at and base in self.names else self._latest
        found = None if models is None else models.get(base if at else name)
        if found is None:
            steps = ", ".join(map(str, self._steps()))
            more = f", and each of them as NAME@STEP of the checkpoints {steps}" if steps else ""
            raise UnknownModelError(f"The model {name!r} does not exist; there are {', '.join(self.names)}{more}.")
        return found

    def _steps(self) -> list[int]:
        return [step for step, _ in list_checkpoints(self._run / "checkpoints")]

    def _at(self, text: str) -> Mapping[str, Model] | None:
        step = next((step for step in self._steps() if str(step) == text), None)
        if step is None or step == self.step:
            return None if step is None else self._latest
        with self._loading:
            if step not in self._others:
                self._others[step] = _load(self._run, step)
            self._others.move_to_end(step)
            while len(self._others) > self._keep:
                self._others.popitem(last=False)
            return self._others[step]


def _load(run: Path, step: int | None) -> dict[str, Model]:
    """Its language models by the names of the policies, and the teams in which only these sit."""
    config, policies = policies_of(run, step=step)
    places = {name: Place(policy) for name, policy in policies.items() if isinstance(policy, LLMPolicy)}
    known = {name: (game, seats_for(config, game)) for name, game in PROTOCOLS.items()}
    own = {
        label: (GameConfig(name=game.name, settings=game.settings), config.seats(label))
        for label, game in config.games.items()
    }
    models: dict[str, Model] = dict(places)
    for name, (game, seats) in (known | own).items():
        seated = _seated(game, seats)
        if seated and seated <= places.keys():
            mine = {policy: places[policy] for policy in seated}
            models[TEAM + name] = Team(game=game, seats=seats, places=mine, max_turns=config.play.max_turns)
    return models


def _seated(game: GameConfig, seats: Seats) -> set[str]:
    """Who sits in a pipeline that is asked a question; nobody, if it cannot be asked one or gives no answer."""
    try:
        asked = asking(game, "?")
        made = make_game(asked.name, asked.settings).unwrapped
        if not isinstance(getattr(made, "parallel", made), ANSWERING):
            return set()
        return {seat_policy(seats, agent) for agent in made.possible_agents}
    except ConfigError:
        return set()
