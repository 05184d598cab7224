"""What all our games have in common, whichever of PettingZoo's two interfaces they have; written once."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from gymnasium import spaces

from games.settings import OnIllegal, check_on_illegal
from games.spaces import AnyText

ANSWER = "Answer with one of the legal actions"

Text = dict[str, str]
Legal = tuple[str, ...] | None
"""Actions of an agent: none if it is not to move, None if they are not a list."""
Parts = Mapping[str, Mapping[str, float]]
"""Agent to its rewards by named part; whoever gets nothing may be left out."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a board."""

    text: str
    """What stands in it; empty: nothing."""
    action: str | None = None
    """The legal action that choosing the cell means; None: it means none."""


Board = Sequence[Sequence[Cell]]
"""Rows of cells, from top to bottom and from left to right; they need not be equally long."""


class GameBase:
    """A game's metadata, spaces of text, infos and the price of an illegal move; the first parent of `TurnGame` (an
    `AECEnv`) and `TextGame` (a `ParallelEnv`).

    `seats`: agent to role, in the order of play. `answer` and `default` end the rules: how to answer, and what
    anything else does unless it forfeits.

    Raises:
        ValueError: `on_illegal` is not one of its two values.
    """

    max_observation = 4096
    """Length of the longest observation, in characters."""
    max_action = 1024
    """Length of the longest action, in characters."""

    def __init__(
        self,
        *,
        name: str,
        rules: str,
        seats: Mapping[str, str],
        utility_range: tuple[float, float],
        on_illegal: OnIllegal,
        answer: str = ANSWER,
        default: str = "plays the first of them",
        zero_sum: bool = False,
        clone: bool = True,
        state_key: bool = True,
    ) -> None:
        super().__init__()
        check_on_illegal(name, on_illegal)
        self.possible_agents = list(seats)
        self.agents: list[str] = []
        self._seats = dict(seats)
        self._forfeits = on_illegal == "forfeit"
        self._returns: dict[str, float] = {}
        self.metadata: dict[str, Any] = {
            "name": name,
            "rules": f"{rules} {answer}; anything else {'forfeits' if self._forfeits else default}.",
            "utility_range": utility_range,
            "zero_sum": zero_sum,
            "roles": tuple(dict.fromkeys(seats.values())),
            "on_illegal": on_illegal,
            "seeded": True,
            "clone": clone,
            "state_key": state_key,
            "is_parallelizable": False,
            "form": "list" if type(self).board is GameBase.board else "board",
            "render_modes": [],
        }

    @cached_property
    def observation_spaces(self) -> dict[str, spaces.Dict]:
        """The space of each agent's observations; made when first asked for, since play does without."""
        return {agent: spaces.Dict({"text": AnyText(self.max_observation)}) for agent in self.possible_agents}

    @cached_property
    def action_spaces(self) -> dict[str, AnyText]:
        """The space of each agent's actions."""
        return {agent: AnyText(self.max_action) for agent in self.possible_agents}

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

    def state_key(self, agent: str) -> str | None:
        """All that the agent knows, as text: equal keys mean equal decision problems. None in a game without keys."""
        return None

    def board(self, agent: str) -> Board | None:
        """The board as the agent may see it now, with its legal actions if it is to move; None: the game has none.

        It is for people to look at and tells no more than the agent's observation. A game that has one says so in
        `metadata["form"]`, as everything that is to be read side by side does: `board`, `columns` or `list`.
        """
        return None

    def clone(self) -> Self:
        """An independent copy, future draws included; rules and spaces are shared."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def close(self) -> None:
        """Nothing to release."""

    def _forfeit(self, offenders: Iterable[str]) -> Parts:
        """What an illegal move pays: it takes back what was paid before, to be worth the same in every round."""
        total = self.metadata["utility_range"][0] - 1.0
        return {agent: {"illegal": total - self._returns[agent]} for agent in offenders}

    def _info(self, agent: str, legal: Legal, parts: Parts, *, illegal: bool) -> dict[str, Any]:
        return {
            "legal_actions": legal,
            "role": self._seats[agent],
            "state_key": self.state_key(agent),
            "illegal": illegal,
            "reward_parts": {part: value for part, value in parts.get(agent, {}).items() if value},
        }


def counted(values: Collection[float]) -> dict[str, float]:
    """A fact for `hidden` of which there are more in one game than in another: its mean is over all of them alike."""
    return {"sum": sum(values), "count": len(values)}


def find(text: str, legal: Collection[str]) -> str | None:
    """The legal action that a text means, in the game's own spelling; None: there is none.

    Blank space around it does not matter, and case only where actions differ by nothing else, as `Bxc3` and `bxc3`
    do in chess.
    """
    text = text.strip()
    if text in legal:
        return text
    folded = text.casefold()
    alike = [action for action in legal if action.casefold() == folded]
    return alike[0] if len(alike) == 1 else None
