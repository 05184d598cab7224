"""What further play has shown of the turns of a group, and how it becomes part of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from marl_llm.branches.forks import together
from marl_llm.play import Playing
from marl_llm.types import Episode, Turn

Place = tuple[int, int]
"""Index of an episode among those that were given, and of a turn of it."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one measurement found."""

    replayed: Sequence[Episode]
    """The episodes that were played for it, and are not learned from."""
    probes: Mapping[Place, Mapping[str, float]] = field(default_factory=dict)
    """For `Turn.probes`."""
    token_probes: Mapping[Place, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    """For `Turn.token_probes`."""
    rewards: Mapping[Place, Mapping[str, float | None]] = field(default_factory=dict)
    """Reward parts of turns."""


def measured(
    episodes: Sequence[Episode], playings: Sequence[Playing[Found]]
) -> Playing[tuple[list[Episode], list[Episode]]]:
    """The episodes with what all the measurements, which go on side by side, have found; and what was played for it."""
    every = yield from together(playings)
    return marked(episodes, every), [episode for found in every for episode in found.replayed]


def marked(episodes: Sequence[Episode], every: Sequence[Found]) -> list[Episode]:
    """The episodes with what was found of them."""
    return [
        replace(episode, turns=tuple(_marked(turn, (place, index), every) for index, turn in enumerate(episode.turns)))
        for place, episode in enumerate(episodes)
    ]


def _marked(turn: Turn, place: Place, every: Sequence[Found]) -> Turn:
    for found in every:
        if place in found.probes:
            turn = replace(turn, probes={**turn.probes, **found.probes[place]})
        if place in found.token_probes:
            turn = replace(turn, token_probes={**turn.token_probes, **found.token_probes[place]})
        if place in found.rewards:
            turn = replace(turn, rewards={**turn.rewards, **found.rewards[place]})
    return turn
