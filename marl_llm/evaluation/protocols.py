"""Ways to answer a question with one agent or several: each is a pipeline with its settings, under a name."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from marl_llm.config import Config, GameConfig
from marl_llm.errors import ConfigError
from marl_llm.matchmaking import Seats, seat_policy, trained_policy
from marl_llm.play import agents_of

PROTOCOLS: Mapping[str, GameConfig] = {
    "single": GameConfig(name="workflow"),
    "self_consistency": GameConfig(name="self_consistency"),
    "aggregated": GameConfig(name="self_consistency", settings={"aggregator": True}),
    "debate": GameConfig(name="debate"),
    "debate_judge": GameConfig(name="debate", settings={"judge": True}),
    "mad": GameConfig(name="mad"),
    "autogen": GameConfig(name="autogen"),
    "generate_verify_refine": GameConfig(name="generate_verify_refine"),
    "mixture_of_agents": GameConfig(name="mixture_of_agents"),
    "planner": GameConfig(name="planner"),
}
"""Those that need no more than their name; any pipeline with other settings is one too."""


def protocol(name: str) -> GameConfig:
    """The pipeline of that name.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=1, cutoff=0.0)[0]
        allowed = ", ".join(PROTOCOLS)
        raise ConfigError(f"protocol {name!r} is unknown; nearest valid name: {near}; allowed: {allowed}")
    return PROTOCOLS[name]


def seats_for(config: Config, game: GameConfig) -> Seats:
    """Who of a run sits where in a pipeline: as in its own game of that kind; elsewhere the trained policy."""
    own = next((config.seats(label) for label, played in config.games.items() if played.name == game.name), {})
    return own if "*" in own else {**own, "*": trained_policy(config)}


def seated(game: GameConfig, seats: Seats) -> set[str]:
    """The policies that sit in a pipeline, which has its tasks.

    Raises:
        ConfigError: somebody has no seat, or see `agents_of`.
    """
    return {seat_policy(seats, agent) for agent in agents_of(game)}


def with_tasks(game: GameConfig, tasks: Mapping[str, Any]) -> GameConfig:
    """The pipeline on these tasks, as in `{source: arithmetic, item: 3}` (`games.pipelines.tasks_of`).

    Raises:
        ConfigError: it is no pipeline that takes tasks, or refuses these.
    """
    asked = replace(game, settings={**game.settings, "tasks": dict(tasks)})
    agents_of(asked)
    return asked


def asking(game: GameConfig, prompt: str) -> GameConfig:
    """The pipeline on one question, whose answer nobody knows; what it answers is in `Episode.hidden["answer"]`.

    Raises:
        ConfigError: the prompt is empty, or it is no pipeline that takes tasks.
    """
    return with_tasks(game, {"source": "asked", "prompt": prompt})
