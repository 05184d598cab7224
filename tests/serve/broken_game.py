"""A game that breaks in its first turn."""

from typing import Any

from games.pipelines import ARITHMETIC
from games.pipelines.workflow import env as workflow


def env(**settings: Any) -> Any:
    made = workflow(**{"tasks": ARITHMETIC, **settings})
    made.unwrapped.read = _break
    return made


def _break(*_: Any) -> None:
    raise RuntimeError("it broke")
