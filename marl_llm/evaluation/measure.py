"""One evaluation: how well the trained policy plays, against whom, and what a best response would win from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from marl_llm.config import UNTOLD, Config
from marl_llm.errors import RunError
from marl_llm.evaluation.exploitability import Exploitability, can_compute, exploitability
from marl_llm.evaluation.tournament import Score, head_to_head
from marl_llm.matchmaking import seat_policy, trained_policy
from marl_llm.play import make_game
from marl_llm.players import frozen_copy
from marl_llm.policies.base import Policy
from marl_llm.run import read_evaluation
from marl_llm.seeds import derive

START = "start"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that was measured at one step."""

    policy: str
    """Whom it is about."""
    exploitability: Exploitability | None
    """None where it cannot be computed (not two-player zero-sum, too large to list, or a seat whose probabilities
    nobody can tell) or was not asked for."""
    illegal_fraction: float | None
    """Share of the policy's turns, over all games below, that were no legal action; None when none was played."""
    opponents: Mapping[str, Mapping[str, Score]]
    """Opponent -> the policy's seat -> score."""

    def to_json(self) -> dict[str, Any]:
        """One JSON object; `exploitability` is a number or null, its details stand beside it."""
        detail = asdict(self.exploitability) if self.exploitability else None
        return {
            "policy": self.policy,
            "exploitability": detail["value"] if detail else None,
            "exploitability_detail": detail,
            "illegal_fraction": self.illegal_fraction,
            "opponents": {
                name: {seat: asdict(score) for seat, score in seats.items()} for name, seats in self.opponents.items()
            },
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `to_json`.

        Raises:
            ValueError: `data` is not what `to_json` gives.
        """
        try:
            return Evaluation._read(data)
        except KeyError as error:
            raise ValueError(f"{error.args[0]!r} is missing") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error

    @staticmethod
    def _read(data: Mapping[str, Any]) -> "Evaluation":
        detail = data["exploitability_detail"]
        return Evaluation(
            policy=data["policy"],
            exploitability=Exploitability(**detail) if detail else None,
            illegal_fraction=data["illegal_fraction"],
            opponents={
                name: {seat: Score(**score) for seat, score in seats.items()}
                for name, seats in data["opponents"].items()
            },
        )


def logged(run: Path, step: int) -> Evaluation | None:
    """The evaluation that a run directory holds for a step; None when there is none.

    Raises:
        RunError: the file is damaged.
    """
    data = read_evaluation(run, step)
    if data is None:
        return None
    try:
        return Evaluation.from_json(data)
    except ValueError as error:
        raise RunError(f"{run}: evaluation of step {step} is damaged ({error}); delete it to measure again") from error


def evaluate(config: Config, policies: Mapping[str, Policy], start: Path) -> Evaluation:
    """Measure the trained policy as `config.evaluation` says.

    `start`: the checkpoint of step 0, whose policy is the opponent called `start`.
    """
    name = trained_policy(config)
    opponents: dict[str, dict[str, Score]] = {}
    for opponent in config.evaluation.opponents if config.evaluation.games else []:
        table = dict(policies)
        if opponent == START:
            table[START] = frozen_copy(config, name, start / name, called=START)
        opponents[opponent] = head_to_head(
            config.game,
            table,
            name,
            opponent,
            num_games=config.evaluation.games,
            seed=derive(config.run.seed, "evaluation", opponent),
            max_turns=config.play.max_turns,
        )
    scores = [score for seats in opponents.values() for score in seats.values()]
    turns = sum(score.turns for score in scores)
    return Evaluation(
        policy=name,
        exploitability=measure_exploitability(config, policies) if config.evaluation.exploitability else None,
        illegal_fraction=sum(score.illegal_fraction * score.turns for score in scores) / turns if turns else None,
        opponents=opponents,
    )


def measure_exploitability(config: Config, policies: Mapping[str, Policy]) -> Exploitability | None:
    """Exploitability of the policies in their seats; None where it cannot be computed."""
    if not can_compute(config.game):
        return None
    agents = make_game(config.game.name, config.game.settings).unwrapped.possible_agents
    seats = {agent: seat_policy(config.matchmaking.seats, agent) for agent in agents}
    if any(config.policies[name].kind in UNTOLD for name in seats.values()):
        return None
    return exploitability(config.game, policies, seats)
