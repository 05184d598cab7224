"""Every recipe trains for a step on a small game, with the settings that belong to it, or is refused before it."""

from pathlib import Path

import pytest

from marl_llm.config import Config, load_config
from marl_llm.credit.load import load_recipe, recipe_names
from marl_llm.credit.recipe import credit
from marl_llm.errors import ConfigError
from marl_llm.runtime.rollouts import LocalRollouts
from marl_llm.train import Progress, advance, assemble, prepare

SMALL = Path(__file__).parent / "small.yaml"
REFUSED = {
    "brpo_summary": "forks",
    "calm": "subgoals",
    "collabui": "critic",
    "gtalign": "user",
    "igpo": "gold",
    "igpo_joint": "gold",
    "igpo_released": "gold",
    "marti_margin": "right",
    "marti_quality": "right",
    "mgrpo_difference": "difference",
    "mt_grpo": "tool",
    "mt_grpo_k": "tool",
    "pasodoble": "challenge",
    "pure": "process",
    "pure_min": "process",
    "rlcr": "calibration",
    "sotopia": "attribution",
    "sotopia_mix": "goal",
    "spear": "tools",
    "stable_reinforce": "consistency",
    "sweet": "gold",
    "tp_grpo": "right",
    "aspo": "call",
}
"""Recipes that Kuhn poker has nothing for, and what they miss first."""


MUTE = ("games.game.settings.on_illegal=default_action", "play.context_tokens=256")
"""So that the game goes on without an agent."""


def small(name: str) -> Config:
    more = MUTE if name in ("difference", "shapley") else ()
    return load_config(SMALL, [*load_recipe(name).settings, f"credit={name}", "policies.agent.warmup=null", *more])


@pytest.mark.parametrize("name", [name for name in recipe_names() if name not in REFUSED])
def test_a_step_of_training(name: str) -> None:
    config = small(name)
    recipe, _ = prepare(config)
    team = assemble(config)
    metrics, episodes = advance(config, team, recipe, LocalRollouts(config, team), Progress(step=0, credit={}))
    told = {key: value for key, value in metrics.items() if key.startswith("credit/")}
    assert credit(episodes, recipe).metrics() == told  # of what is logged
    assert 0 <= told.get("credit/zero", 0.0) <= 1  # there is none where no turn is left to learn from


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_missing_is_named_before_it_begins(name: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[name]):
        prepare(small(name))
