"""Generate, verify, refine: one agent answers, one looks for mistakes, one gives the final answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from games.pipelines import ARITHMETIC
from games.pipelines.graph import Node
from games.pipelines.workflow import Pay, Workflow
from games.settings import OnIllegal

NAME = "generate_verify_refine"
GENERATE = "Give your answer."
VERIFY = "Look for mistakes in the answer below; do not solve the question anew."
REFINE = "Read the answer and what was said about it, and give the final answer."


def env(
    *,
    tasks: Mapping[str, Any] = ARITHMETIC,
    pay: Sequence[Pay] = ("outcome",),
    on_illegal: OnIllegal = "default_action",
) -> Workflow:
    """Generator, verifier and refiner, one after the other (MALT, arXiv 2412.01928); the refiner's answer counts.

    `tasks`, `pay`: as in `workflow`.

    Raises:
        ValueError: a setting is out of range.
    """
    return Workflow(
        name=NAME,
        tasks=tasks,
        nodes=(
            Node(role="generator", prompt=GENERATE, answers=True),
            Node(role="verifier", prompt=VERIFY, sees=("generator",)),
            Node(role="refiner", prompt=REFINE, sees=("generator", "verifier"), answers=True),
        ),
        rounds=1,
        answer="refiner",
        decide="last",
        pay=pay,
        on_illegal=on_illegal,
        rules="Generate, verify, refine. One agent answers a question, one checks, one gives the final answer.",
    )
