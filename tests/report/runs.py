"""Run directories written by hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from marl_llm.config import load_config, to_yaml
from marl_llm.episodes import episode_to_json
from marl_llm.types import Completion, Episode, Match, Turn

SMALL = Path(__file__).parents[1] / "small.yaml"
OBSERVED = "You are {agent}. Your card: {card}. Moves so far: {moves}. Legal actions: {legal}"


def turn(agent: str, card: str, moves: str, action: str | None, **more: Any) -> Turn:
    """A decision of a card game with two moves."""
    legal = ("fold", "call") if moves == "bet" else ("check", "bet")
    fields: dict[str, Any] = {
        "agent": agent,
        "role": agent,
        "policy": "agent",
        "observation": OBSERVED.format(agent=agent, card=card, moves=moves, legal=", ".join(legal)),
        "reply": f"<answer>{action}</answer>",
        "action": action,
        "legal": action in legal,
        "legal_actions": legal,
        "state_key": f"{card}{moves}",
        "completion": Completion(tokens=(1, 2), logprobs=(-0.5, -0.1), stop="eos", versions=(0, 0)),
        "prompt": (3, 4, 5),
    }
    return Turn(**fields | more)


def bluff(step: int, number: int, *, bets: bool, folds: bool, label: str = "", **more: Any) -> Episode:
    """The first player has a jack: it checks and loses 1, or bets and wins 1 or loses 2."""
    won = (1.0 if folds else -2.0) if bets else -1.0
    first = turn("player_0", "J", "none", **{"action": "bet" if bets else "check", "rewards": {"outcome": won}, **more})
    answer = turn("player_1", "Q", *(("bet", "fold" if folds else "call") if bets else ("check", "check")))
    return Episode(
        match=Match(
            id=f"s{step}/g0/m{number}",
            game="kuhn_poker",
            seed=number,
            group=f"s{step}/g0",
            seats={"*": "agent"},
            label=label,
        ),
        turns=(first, replace(answer, rewards={"outcome": -won})),
        returns={"player_0": won, "player_1": -won},
    )


def bluffs(step: int, *, bets: int, folds: int, of: int = 40, **more: Any) -> list[Episode]:
    """That many episodes, the first `bets` of them with a bet, of which the first `folds` are answered by a fold."""
    return [bluff(step, number, bets=number < bets, folds=number < folds, **more) for number in range(of)]


def run(
    folder: Path,
    *,
    rows: Sequence[Mapping[str, Any]] = (),
    episodes: Mapping[int, Sequence[Episode]] | None = None,
    evaluations: Mapping[int, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """A run directory as `marl_llm.run` leaves it, with the settings of `small.yaml`."""
    (folder / "episodes").mkdir(parents=True)
    (folder / "evaluations").mkdir()
    (folder / "config.yaml").write_text(to_yaml(load_config(SMALL, list(overrides))))
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"time_s": float(n), **row}) + "\n" for n, row in enumerate(rows, start=1))
    )
    for step, played in (episodes or {}).items():
        lines = "".join(f"{episode_to_json(episode)}\n" for episode in played)
        (folder / "episodes" / f"step_{step:06d}.jsonl").write_text(lines)
    for step, measured in (evaluations or {}).items():
        (folder / "evaluations" / f"step_{step}.json").write_text(json.dumps(measured))
    return folder


def evaluation(exploitability: float | None, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What was measured in one game; scores by opponent and seat."""
    measured = {
        "exploitability": exploitability,
        "opponents": {
            opponent: {
                seat: {"games": 10, "mean": mean, "low": mean - 0.1, "high": mean + 0.1, "win_rate": 0.5}
                for seat, mean in seats.items()
            }
            for opponent, seats in scores.items()
        },
    }
    return {"policy": "agent", **measured, "games": {"game": measured}}
