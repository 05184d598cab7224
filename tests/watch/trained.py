"""A small run that tests watch."""

from pathlib import Path

from marl_llm.config import load_config
from marl_llm.train import train
from tests.test_train import SMALL, Silent

SETTINGS = (
    "run.steps=2",
    "run.checkpoint_every=1",
    "games.game={name: tic_tac_toe, settings: {on_illegal: default_action}}",
    "play.context_tokens=640",
    "play.max_reply_tokens=8",
    "policies.agent.warmup=null",
    "policies.agent.learner.lr=0.02",
    "matchmaking.group_size=2",
    "evaluation.every=0",
)
"""Illegal moves do not end its games, so that they have several turns; both seats are the agent's."""


def trained(folder: Path) -> Path:
    """A run of two steps with a checkpoint before, between and after them."""
    return train(load_config(SMALL, [f"run.dir={folder}", *SETTINGS]), Silent())
