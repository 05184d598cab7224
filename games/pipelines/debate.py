"""Debate: agents answer, read each other, and answer again; a judge or the majority decides."""

from collections.abc import Mapping, Sequence
from typing import Any

from games.pipelines import ARITHMETIC
from games.pipelines.graph import Node
from games.pipelines.workflow import Pay, Workflow
from games.settings import OnIllegal, check_flag, check_whole

NAME = "debate"
SOLVE = "Give your answer."
AGAIN = "Give your answer; below is what all said before, which may be wrong."
JUDGE = "Read the answers and decide: give the final answer."


def env(
    *,
    tasks: Mapping[str, Any] = ARITHMETIC,
    debaters: int = 3,
    rounds: int = 2,
    judge: bool = False,
    pay: Sequence[Pay] = ("outcome",),
    on_illegal: OnIllegal = "default_action",
) -> Workflow:
    """A debate of `debaters` over `rounds` (society of minds, arXiv 2305.14325), in which all speak side by side.

    From the second round on all read what everybody said in the round before. `judge`: whether one more agent reads the
    last round and decides; else the majority does. `tasks`, `pay`: as in `workflow`.

    Raises:
        ValueError: a setting is out of range.
    """
    check_whole(NAME, debaters=debaters, rounds=rounds)
    check_flag(NAME, judge=judge)
    prompt = SOLVE if rounds == 1 else AGAIN
    nodes = [Node(role="debater", prompt=prompt, count=debaters, recalls=("debater",), answers=True)]
    if judge:
        nodes.append(Node(role="judge", prompt=JUDGE, sees=("debater",), rounds="last", answers=True))
    return Workflow(
        name=NAME,
        tasks=tasks,
        nodes=tuple(nodes),
        rounds=rounds,
        answer="judge" if judge else "debater",
        decide="last" if judge else "majority",
        pay=pay,
        on_illegal=on_illegal,
        rules="Debate. Several agents answer one question and read each other's answers; they may change their minds.",
    )
