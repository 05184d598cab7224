"""What a recipe wants to know of a step's turns and tokens beyond what was logged: asked of learners and critics before
they learn."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import nan

from marl_llm.learning.base import Trainer
from marl_llm.learning.critic import Critic
from marl_llm.learning.samples import to_samples
from marl_llm.types import Episode, Turn

LEGAL = "legal"
"""Quantity: 1 for a turn whose action the game accepted, else 0."""
Quantities = Mapping[str, float | tuple[float, ...]]
"""What is told of a turn, by name: one number, or one for each sampled token."""


def judged(episodes: Sequence[Episode], critics: Collection[Critic], wanted: Collection[str]) -> list[Episode]:
    """The episodes, in which turns have the quantities `wanted` that critics tell among their probes or token probes,
    and all turns `legal`, if that is wanted.

    The weights are those that the critics have now: to be called before they learn.
    """
    told: dict[tuple[str, int], Quantities] = {}
    for critic in critics:
        if set(wanted) & set(critic.config.quantities):
            told |= critic.measure(episodes)
    return _told(episodes, told, legal=LEGAL in wanted)


def measured(episodes: Sequence[Episode], trainers: Mapping[str, Trainer], wanted: Collection[str]) -> list[Episode]:
    """The episodes, in which turns of policies that learn have the quantities `wanted` among their token probes.

    The weights are those that the learners have now: to be called before they learn.
    """
    if not wanted:
        return list(episodes)
    found: dict[tuple[str, int], dict[str, float | tuple[float, ...]]] = {}
    begun = {(episode.match.id, index): turn.begun for episode in episodes for index, turn in enumerate(episode.turns)}
    every = dict.fromkeys(begun, 0.0)
    for name, trainer in trainers.items():
        samples = to_samples(episodes, every, name, dict.fromkeys(every, 1.0))
        values = trainer.measure(samples, sorted(wanted)) if samples else {}
        spans = [(sample.episode, span) for sample in samples for span in sample.spans]
        for quantity, values_N in values.items():
            first = 0
            for episode_id, span in spans:
                unknown = (nan,) * begun[episode_id, span.turn]  # another episode's
                whole = (*unknown, *values_N[first : first + span.length])
                found.setdefault((episode_id, span.turn), {})[quantity] = whole
                first += span.length
    return _told(episodes, found)


def _told(
    episodes: Sequence[Episode], told: Mapping[tuple[str, int], Quantities], *, legal: bool = False
) -> list[Episode]:
    """The episodes with what was told of their turns among the probes, and with `legal`, if that is wanted."""
    if not told and not legal:
        return list(episodes)
    return [
        replace(
            episode,
            turns=tuple(
                _with(turn, told.get((episode.match.id, index), {}), legal) for index, turn in enumerate(episode.turns)
            ),
        )
        for episode in episodes
    ]


def _with(turn: Turn, told: Quantities, legal: bool) -> Turn:
    each = {name: value for name, value in told.items() if isinstance(value, tuple)}
    whole = {name: value for name, value in told.items() if not isinstance(value, tuple)}
    if legal:
        whole[LEGAL] = float(turn.legal is True)
    probes, token_probes = {**turn.probes, **whole}, {**turn.token_probes, **each}
    return replace(turn, probes=probes, token_probes=token_probes) if each or whole else turn
