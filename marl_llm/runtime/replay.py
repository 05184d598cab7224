"""Good turns of earlier steps, to be learned from once more (SPEAR, arXiv 2509.22601).

Episodes are kept, not samples, so that credit can say anew what they are worth: recipe `spear_recalibrated` holds their
rewards against the groups of the steps since.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from marl_llm.config import Config, ReplayConfig
from marl_llm.credit.recipe import Recipe, State, credit, load_recipe
from marl_llm.episodes import episode_from_json, episode_to_json
from marl_llm.learning.base import Trainer
from marl_llm.learning.samples import Advantages, Weights, to_samples
from marl_llm.seeds import generator
from marl_llm.types import Episode, Sample

REPLAYED = "replays.jsonl"
"""The file of a checkpoint that holds the episodes that are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What was good for one policy in one episode."""

    version: int
    """Updates that its learner had had when the episode was new."""
    turns: tuple[int, ...]
    """Indices of its turns with an advantage above 0."""
    episode: Episode
    """Where they are."""


@dataclass
class Replays:
    """What waits to be learned from again."""

    kept: dict[str, list[Kept]] = field(default_factory=dict)
    """By policy, the oldest first; empty unless a policy has `learner.replay`."""
    means: State = field(default_factory=dict)
    """Means of earlier groups: the state of the recipe."""


def replay_weight(step: int, *, rise: int, coef: float) -> float:
    """Weight of the replayed samples' loss in update `step`, from 0: half a cosine up to `coef` at `rise`."""
    return coef * (1 - math.cos(math.pi * min(step / rise, 1.0))) / 2


def subset_size(ready: int, size: int) -> int:
    """The largest power of two that is neither above `ready` nor above `size`; both are 1 or more."""
    return 1 << (min(ready, size).bit_length() - 1)


def replayed(
    config: Config, replays: Replays, trainers: Mapping[str, Trainer], episodes: Sequence[Episode]
) -> dict[str, list[Sample]]:
    """What each policy learns from again beside this step's `episodes`, weighted; what it chose from waits no longer.

    Draws follow from (run seed, policy, `Trainer.version`).
    """
    wanted = _wanted(config, trainers)
    learning = {turn.policy for episode in episodes for turn in episode.turns} if wanted else ()
    result = {}
    for name, settings in wanted.items():
        kept, version = replays.kept.get(name, []), trainers[name].version
        if name not in learning or sum(len(each.turns) for each in kept) <= settings.trigger * settings.size:
            continue
        samples = _still_good(name, kept, replays.means, replay_weight(version, rise=settings.rise, coef=settings.coef))
        if len(samples) > settings.trigger * settings.size:
            order = generator(config.run.seed, "replay", name, version).permutation(len(samples))
            chosen = sorted(order[: subset_size(len(samples), settings.size)].tolist())
            result[name] = [samples[index] for index in chosen]
            replays.kept[name] = []
    return result


def keep(
    config: Config,
    replays: Replays,
    trainers: Mapping[str, Trainer],
    episodes: Sequence[Episode],
    advantages: Advantages,
    weights: Weights,
    again: Mapping[str, Sequence[Sample]],
) -> dict[str, float]:
    """Keep what was good in this step, which the trainers have learned from, and drop what is too old.

    `again`: what they learned from once more. Returns `learn/NAME/...`: `replay_kept` (turns that wait now),
    `replay_samples` and, where there were some, `replay_weight` and `replay_advantage` (mean over their tokens).
    """
    metrics: dict[str, float] = {}
    wanted = _wanted(config, trainers)
    for name, settings in wanted.items():
        version = trainers[name].version
        fresh = [_kept(name, version, episode, advantages, weights) for episode in episodes]
        young = [each for each in replays.kept.get(name, []) if version - each.version < settings.steps]
        replays.kept[name] = young + [each for each in fresh if each.turns]
        told: dict[str, float] = {
            "replay_kept": sum(len(each.turns) for each in replays.kept[name]),
            "replay_samples": len(again.get(name, ())),
        }
        if again.get(name):
            values = [value for sample in again[name] for span in sample.spans for value in span.advantages or ()]
            told["replay_weight"] = replay_weight(version - 1, rise=settings.rise, coef=settings.coef)
            told["replay_advantage"] = sum(values) / len(values)
        metrics |= {f"learn/{name}/{key}": float(value) for key, value in told.items()}
    if wanted:
        replays.means = credit(episodes, _recipe(), replays.means).state
    return metrics


def _wanted(config: Config, trainers: Mapping[str, Trainer]) -> dict[str, ReplayConfig]:
    """Who learns again."""
    each = {name: config.policies[name].learner.replay for name in trainers}
    return {name: settings for name, settings in each.items() if settings is not None}


@cache
def _recipe() -> Recipe:
    return load_recipe("spear_recalibrated")


def _kept(name: str, version: int, episode: Episode, advantages: Advantages, weights: Weights) -> Kept:
    """Its turns whose tokens have an advantage above 0 on average, and a weight."""
    turns = tuple(
        index
        for index, turn in enumerate(episode.turns)
        if turn.policy == name
        and np.mean(advantages.get((episode.match.id, index), 0.0)) > 0
        and np.any(weights.get((episode.match.id, index), turn.weight))
    )
    return Kept(version=version, turns=turns, episode=episode)


def _still_good(name: str, kept: Sequence[Kept], means: State, weight: float) -> list[Sample]:
    """Samples of the turns that are above the median of earlier groups, with the difference as their advantage."""
    episodes = [each.episode for each in kept]
    credited = credit(episodes, _recipe(), means)
    values = credited.by_turn(credited.advantages)
    turns = {(each.episode.match.id, index): each.episode.turns[index] for each in kept for index in each.turns}
    better = {turn: value for turn, value in values.items() if turn in turns and np.mean(value) > 0}
    return to_samples(episodes, better, name, {turn: weight * turns[turn].weight for turn in better})


# --- checkpoints -------------------------------------------------------------------------------------------------


def replays_values(replays: Replays) -> dict[str, Any]:
    """What is kept, as JSON values, but for the episodes."""
    kept = {name: [[each.version, each.turns] for each in waiting] for name, waiting in replays.kept.items()}
    return {"kept": kept, "means": replays.means}


def write_replays(replays: Replays, folder: Path) -> None:
    """Write the episodes, in the order of `replays_values`, if anybody learns again.

    Raises:
        OSError: it could not be written.
    """
    if replays.kept:
        with (folder / REPLAYED).open("w") as lines:
            for each in (each for waiting in replays.kept.values() for each in waiting):
                lines.write(f"{episode_to_json(each.episode)}\n")


def replays_from(values: Mapping[str, Any], folder: Path) -> Replays:
    """What `replays_values` and `write_replays` wrote."""
    with (folder / REPLAYED).open("rb") as lines:
        kept = {
            name: [
                Kept(version=version, turns=tuple(turns), episode=episode_from_json(next(lines)))
                for version, turns in waiting
            ]
            for name, waiting in values["kept"].items()
        }
    return Replays(kept=kept, means=values["means"])
