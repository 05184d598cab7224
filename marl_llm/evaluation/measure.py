"""One evaluation: how well the trained policy plays, against whom, and what a best response would win from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from marl_llm.config import UNTOLD, Config
from marl_llm.errors import RunError
from marl_llm.evaluation.best_response import BestResponse, best_response
from marl_llm.evaluation.exploitability import Exploitability, can_compute, exploitability
from marl_llm.evaluation.positions import Outcome, positions_of
from marl_llm.evaluation.team_score import TeamScore, team_score
from marl_llm.evaluation.tournament import Mean, Score, head_to_head
from marl_llm.matchmaking import seat_policy, trained_policy
from marl_llm.play import agents_of
from marl_llm.players import frozen_copy
from marl_llm.policies.base import Policy
from marl_llm.run import read_evaluation
from marl_llm.seeds import derive

START = "start"


@dataclass(frozen=True, kw_only=True)
class GameEvaluation:
    """What was measured in one game."""

    exploitability: Exploitability | None
    """None where it cannot be computed (not two-player zero-sum, too large to list, or a seat whose probabilities
    nobody can tell) or was not asked for."""
    illegal_fraction: float | None
    """Share of the policy's turns, over all games below, that were no legal action; None when none was played."""
    opponents: Mapping[str, Mapping[str, Score]]
    """Opponent -> the policy's seat -> score."""
    best_response: BestResponse | None = None
    """None where there is none (not two-player zero-sum on OpenSpiel's rules) or none was asked for."""
    outcomes: Mapping[str, Mapping[str, Outcome]] = field(default_factory=dict)
    """Opponent -> the policy's seat -> exact chances, where a best response was asked for, the game's positions can be
    listed and the opponent, too, decides by what it sees."""
    team: TeamScore | None = None
    """How all do in the seats of the experiment; None where that was not asked for."""

    def to_json(self) -> dict[str, Any]:
        """One JSON object; `exploitability` is a number or null, its details stand beside it."""
        detail = asdict(self.exploitability) if self.exploitability else None
        return {
            "exploitability": detail["value"] if detail else None,
            "exploitability_detail": detail,
            "illegal_fraction": self.illegal_fraction,
            "opponents": {
                name: {seat: asdict(score) for seat, score in seats.items()} for name, seats in self.opponents.items()
            },
            "best_response": asdict(self.best_response) if self.best_response else None,
            "outcomes": {
                name: {seat: asdict(outcome) for seat, outcome in seats.items()}
                for name, seats in self.outcomes.items()
            },
            "team": self.team.to_json() if self.team else None,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "GameEvaluation":
        """The inverse of `to_json`; KeyError, TypeError or AttributeError where `data` is something else."""
        detail = data["exploitability_detail"]
        best, team = data.get("best_response"), data.get("team")  # older runs have none
        return GameEvaluation(
            exploitability=Exploitability(**detail) if detail else None,
            illegal_fraction=data["illegal_fraction"],
            opponents={
                name: {seat: Score(**score) for seat, score in seats.items()}
                for name, seats in data["opponents"].items()
            },
            best_response=best
            and BestResponse(**best | {"seats": {seat: Mean(**won) for seat, won in best["seats"].items()}}),
            outcomes={
                name: {seat: Outcome(**chances) for seat, chances in seats.items()}
                for name, seats in data.get("outcomes", {}).items()
            },
            team=team and TeamScore.from_json(team),
        )

    def metrics(self) -> dict[str, float]:
        """The numbers to watch: `exploitability`, `illegal_mass`, `best_response`, `return/OPPONENT/SEAT`,
        `loss/OPPONENT/SEAT`, `team/return/ROLE` and `team/fact/NAME`, so far as they were measured."""
        exploited, best = self.exploitability, self.best_response
        found = {"exploitability": exploited.value, "illegal_mass": exploited.illegal_mass} if exploited else {}
        if best is not None:
            found["best_response"] = best.value
        scores = {(name, seat): score for name, seats in self.opponents.items() for seat, score in seats.items()}
        exact = {(name, seat): chances for name, seats in self.outcomes.items() for seat, chances in seats.items()}
        found |= {f"return/{name}/{seat}": score.mean for (name, seat), score in scores.items()}
        found |= {f"loss/{name}/{seat}": chances.loss for (name, seat), chances in exact.items()}
        if self.team is not None:
            found |= {f"team/return/{role}": mean.mean for role, mean in self.team.returns.items()}
            found |= {f"team/fact/{name}": mean.mean for name, mean in self.team.facts.items()}
        return found


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that was measured at one step."""

    policy: str
    """Whom it is about."""
    games: Mapping[str, GameEvaluation]
    """By the games' names in the experiment, in their order; at least one."""

    @property
    def first(self) -> GameEvaluation:
        """That of the first game."""
        return next(iter(self.games.values()))

    def metrics(self) -> dict[str, float]:
        """The numbers to watch, by `eval/NAME`; with several games `eval/GAME/NAME`."""
        several = len(self.games) > 1
        return {
            f"eval/{game}/{name}" if several else f"eval/{name}": value
            for game, measured in self.games.items()
            for name, value in measured.metrics().items()
        }

    def to_json(self) -> dict[str, Any]:
        """One JSON object: the keys of the first game, and all games by name under `games`."""
        games = {name: measured.to_json() for name, measured in self.games.items()}
        return {"policy": self.policy, **self.first.to_json(), "games": games}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `to_json`.

        Raises:
            ValueError: `data` is not what `to_json` gives.
        """
        try:
            games = {name: GameEvaluation.from_json(measured) for name, measured in data["games"].items()}
            return Evaluation(policy=data["policy"], games=games)
        except KeyError as error:
            raise ValueError(f"{error.args[0]!r} is missing") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error


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
    """Measure the trained policy in every game as `config.evaluation` says.

    `start`: the checkpoint of step 0, whose policy is the opponent called `start`.
    """
    name = trained_policy(config)
    table = dict(policies)
    meets = config.evaluation.games or config.evaluation.best_response
    if meets and any(START in config.opponents(game) for game in config.games):
        table[START] = frozen_copy(config, name, start / name, called=START)
    return Evaluation(policy=name, games={game: _evaluate(config, game, name, table) for game in config.games})


def _evaluate(config: Config, game: str, name: str, policies: Mapping[str, Policy]) -> GameEvaluation:
    wanted, played = config.evaluation, config.games[game]
    opponents = {
        opponent: head_to_head(
            played,
            policies,
            name,
            opponent,
            num_games=wanted.games,
            seed=derive(config.run.seed, "evaluation", opponent),
            max_turns=config.play.max_turns,
        )
        for opponent in (config.opponents(game) if wanted.games else ())
    }
    team = None
    if wanted.team and wanted.games:
        team = team_score(
            played,
            policies,
            config.seats(game),
            num_games=wanted.games,
            seed=derive(config.run.seed, "evaluation", "team"),
            max_turns=config.play.max_turns,
        )
    scores = [score for seats in opponents.values() for score in seats.values()]
    turns = sum(score.turns for score in scores)
    positions = positions_of(played, policies) if wanted.best_response else None
    outcomes = {other: positions.outcomes(name, other) for other in config.opponents(game)} if positions else {}
    seats, best = _seats(config, game), None
    if wanted.best_response and not _untold(config, seats):
        best = best_response(
            played,
            policies,
            seats,
            simulations=wanted.best_response,
            seed=derive(config.run.seed, "best response", game),
            positions=positions,
        )
    return GameEvaluation(
        exploitability=measure_exploitability(config, game, policies) if wanted.exploitability else None,
        illegal_fraction=sum(score.illegal_fraction * score.turns for score in scores) / turns if turns else None,
        opponents=opponents,
        best_response=best,
        outcomes={other: chances for other, chances in outcomes.items() if chances},
        team=team,
    )


def measure_exploitability(config: Config, game: str, policies: Mapping[str, Policy]) -> Exploitability | None:
    """Exploitability of the policies in their seats of the game; None where it cannot be computed."""
    seats = _seats(config, game)
    if not can_compute(config.games[game]) or _untold(config, seats):
        return None
    return exploitability(config.games[game], policies, seats)


def _untold(config: Config, seats: Mapping[str, str]) -> bool:
    """Whether somebody sits there whose probabilities nobody can tell."""
    return any(config.policies[name].kind in UNTOLD for name in seats.values())


def _seats(config: Config, game: str) -> dict[str, str]:
    """Agent to the policy that sits there."""
    return {agent: seat_policy(config.seats(game), agent) for agent in agents_of(config.games[game])}
