"""How a team does: everybody in the seat that the experiment gives, on the games that are evaluated."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from marl_llm.config import GameConfig
from marl_llm.errors import RunError
from marl_llm.evaluation.tournament import Mean, ratio_of
from marl_llm.matchmaking import Seats, series
from marl_llm.metrics import tokens_of, told_facts, values_by_role
from marl_llm.play import play
from marl_llm.policies.base import Policy
from marl_llm.types import Episode


@dataclass(frozen=True, kw_only=True)
class TeamScore:
    """Results of a team; intervals are over games."""

    games: int
    """Games played to the end; only these count."""
    returns: Mapping[str, Mean]
    """Role -> return of an agent that had it; agents weigh alike, and those of one game are one draw."""
    facts: Mapping[str, Mean]
    """What the games told (`hidden`), such as the share of right answers; over the games that told it, where all
    that they counted weighs alike."""
    turns: int
    """Decisions, of all agents."""
    illegal_fraction: float
    """Share of them that were no legal action."""
    sampled_tokens: float
    """Tokens sampled in a game, by all agents together."""
    prompt_tokens: float
    """Tokens read in a game, by all agents together."""

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "TeamScore":
        """The inverse of `dataclasses.asdict`."""
        means = {key: {name: Mean(**value) for name, value in data[key].items()} for key in ("returns", "facts")}
        return TeamScore(**{**data, **means})

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def team_score(
    game: GameConfig,
    policies: Mapping[str, Policy],
    seats: Seats,
    *,
    num_games: int,
    seed: int,
    max_turns: int = 1000,
) -> TeamScore:
    """Play `num_games` games with these seats. The same seed deals the same games.

    Raises:
        RunError: every game ended at fault.
    """
    matches = series(game, seats, name="team", games=num_games, seed=seed)
    episodes = list(play(matches, policies, max_turns=max_turns))
    finished = [episode for episode in episodes if episode.status != "fault"]
    if not finished:
        raise RunError(f"the team: every game ended at fault: {episodes[-1].note}")
    return score_of(finished)


def score_of(episodes: Sequence[Episode]) -> TeamScore:
    """The score of a team from its episodes, of which there is one at least."""
    turns = [turn for episode in episodes for turn in episode.turns]
    read, sampled = tokens_of(turns)
    returns: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for episode in episodes:
        for role, values in values_by_role([episode], lambda episode: episode.returns).items():
            returns[role].append((sum(values), len(values)))
    return TeamScore(
        games=len(episodes),
        returns={role: ratio_of(parts) for role, parts in sorted(returns.items())},
        facts={name: ratio_of(parts) for name, parts in told_facts(episodes).items()},
        turns=len(turns),
        illegal_fraction=sum(turn.legal is False for turn in turns) / max(1, len(turns)),
        sampled_tokens=sampled / len(episodes),
        prompt_tokens=read / len(episodes),
    )
