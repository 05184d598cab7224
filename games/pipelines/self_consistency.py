"""Self-consistency: agents answer alone; the majority decides, or one more agent that reads all answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from games.pipelines import ARITHMETIC
from games.pipelines.graph import Node
from games.pipelines.workflow import Pay, Workflow
from games.settings import OnIllegal, check_flag, check_whole

NAME = "self_consistency"
SOLVE = "Give your answer."
AGGREGATE = "Read the answers, which may be wrong, and give the final answer."


def env(
    *,
    tasks: Mapping[str, Any] = ARITHMETIC,
    agents: int = 5,
    aggregator: bool = False,
    pay: Sequence[Pay] = ("outcome",),
    on_illegal: OnIllegal = "default_action",
) -> Workflow:
    """`agents` answer without reading each other (self-consistency, arXiv 2203.11171), and the majority decides.

    `aggregator`: one more agent reads all answers and decides instead (CoMAS's "Consistency", arXiv 2510.08529).
    `tasks`, `pay`: as in `workflow`.

    Raises:
        ValueError: a setting is out of range.
    """
    check_whole(NAME, agents=agents)
    check_flag(NAME, aggregator=aggregator)
    nodes = [Node(role="solver", prompt=SOLVE, count=agents, answers=True)]
    if aggregator:
        nodes.append(Node(role="aggregator", prompt=AGGREGATE, sees=("solver",), answers=True))
    return Workflow(
        name=NAME,
        tasks=tasks,
        nodes=tuple(nodes),
        rounds=1,
        answer="aggregator" if aggregator else "solver",
        decide="last" if aggregator else "majority",
        pay=pay,
        on_illegal=on_illegal,
        rules="Self-consistency. Several agents answer one question, each on its own.",
    )
