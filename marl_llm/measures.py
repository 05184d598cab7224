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


def judged(episodes: Sequence[Episode], critics: Collection[Critic], wanted: Collection[str]) -> list[Episode]:
    """The episodes, in which turns have the quantities `wanted` that critics tell among their probes or token probes,
    and all turns `legal`, if that is wanted.

    The weights are those that the critics have now: to be called before they learn.
    """
    told: dict[tuple[str, int], Mapping[str, float | tuple[float, ...]]] = {}
    for critic in critics:
        if set(wanted) & set(critic.config.quantities):
            told |= critic.measure(episodes)
    if not told and LEGAL not in wanted:
        return list(episodes)
    return [
        replace(
            episode,
            turns=tuple(
                _with(turn, told.get((episode.match.id, index), {}), LEGAL in wanted)
                for index, turn in enumerate(episode.turns)
            ),
        )
        for episode in episodes
    ]


def _with(turn: Turn, told: Mapping[str, float | tuple[float, ...]], legal: bool) -> Turn:
    each = {name: value for name, value in told.items() if isinstance(value, tuple)}
    whole = {name: value for name, value in told.items() if not isinstance(value, tuple)}
    if legal:
        whole[LEGAL] = float(turn.legal is True)
    probes, token_probes = {**turn.probes, **whole}, {**turn.token_probes, **each}
    return replace(turn, probes=probes, token_probes=token_probes) if each or whole else turn


def measured(episodes: Sequence[Episode], trainers: Mapping[str, Trainer], wanted: Collection[str]) -> list[Episode]:
    """The episodes, in which turns of policies that learn have the quantities `wanted` among their token probes.

    The weights are those that the learners have now: to be called before they learn.
    """
    found: dict[tuple[str, int], dict[str, tuple[float, ...]]] = {}
    begun = {(episode.match.id, index): turn.begun for episode in episodes for index, turn in enumerate(episode.turns)}
    every = dict.fromkeys(begun, 0.0)
    for name, trainer in trainers.items() if wanted else ():
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
    return [
        replace(
            episode,
            turns=tuple(
                replace(turn, token_probes={**turn.token_probes, **found[episode.match.id, index]})
                if (episode.match.id, index) in found
                else turn
                for index, turn in enumerate(episode.turns)
            ),
        )
        for episode in episodes
    ]
