"""What a recipe wants to know of a step's tokens beyond what was logged: asked of the learners before they learn."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import nan

from marl_llm.learning.base import Trainer
from marl_llm.learning.samples import to_samples
from marl_llm.types import Episode


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
