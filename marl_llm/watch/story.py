"""An episode as plain values, for a page: who saw and said what."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from marl_llm.text import parted
from marl_llm.types import Episode, Turn

SHOWN = 20_000
"""Characters of a text that are told at once."""
PART = 100_000
"""Characters of a part of a longer text."""
FIELDS = ("reply", "thought", "observation")


def story(episode: Episode) -> dict[str, Any]:
    """The episode, without what other files say of it."""
    match = episode.match
    rounds: Counter[str] = Counter()
    turns = []
    for index, turn in enumerate(episode.turns):
        turns.append(_turn(index, turn, rounds[turn.agent]))
        rounds[turn.agent] += 1
    return {
        "id": match.id,
        "game": match.title,
        "rules_of": match.game,
        "settings": dict(match.settings),
        "group": match.group,
        "member": str(match.member),
        "seed": str(match.seed),  # like the member's it may have more digits than a number of JavaScript
        "status": episode.status,
        "note": episode.note,
        "seats": dict(match.seats),
        "returns": dict(episode.returns),
        "hidden": _short(episode.hidden),
        "has_calls": any(turn.parent is not None for turn in episode.turns),
        "original": None if match.branch is None else {"id": match.branch.episode, "turn": match.branch.turn},
        "colours": _colours(episode),
        "turns": turns,
    }


def field_of(turn: Turn, name: str) -> str:
    """One of `FIELDS`, whole: the reply is what follows the thought."""
    if name == "observation":
        return turn.observation
    thought, reply = parted(turn.reply)
    return reply if name == "reply" else thought or ""


def _turn(index: int, turn: Turn, number: int) -> dict[str, Any]:
    texts = {name: field_of(turn, name) for name in FIELDS}
    thought, _ = parted(turn.reply)
    completion = turn.completion
    versions = completion.versions if completion is not None else ()
    return {
        "index": index,
        "agent": turn.agent,
        "role": turn.role,
        "policy": turn.policy,
        "observation": texts["observation"][:SHOWN],
        "thought": None if thought is None else texts["thought"][:SHOWN],
        "reply": texts["reply"][:SHOWN],
        "cut": {name: len(text) for name, text in texts.items() if len(text) > SHOWN},
        "action": None if turn.action is None else turn.action[:SHOWN],
        "legal": turn.legal,
        "legal_actions": turn.legal_actions,
        "rewards": dict(turn.rewards),
        "parent": turn.parent,
        "weight": turn.weight,
        "sampled": turn.num_sampled,
        "stop": None if completion is None else completion.stop,
        "versions": [min(versions), max(versions)] if versions else None,
        "probes": {name: finite(value) for name, value in turn.probes.items()},
        "round": number,
        "board": None,
    }


def _colours(episode: Episode) -> list[str]:
    """By what its turns can be coloured."""
    probes = {name for turn in episode.turns for name in (*turn.probes, *turn.token_probes)}
    sampled = any(turn.completion is not None for turn in episode.turns)
    known = ["logprob", "advantage", "ratio", "entropy"] if sampled else ["advantage"]
    return [*known, *sorted(probes - set(known))]


def _short(hidden: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[:SHOWN] if isinstance(value, str) else value for name, value in hidden.items()}


def finite(value: float | None) -> float | None:
    """The number; None where JSON has none."""
    return value if value is not None and math.isfinite(value) else None
