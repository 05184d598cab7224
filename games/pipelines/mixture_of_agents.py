"""Mixture of agents: layers of agents, each of which reads the layer before; an aggregator answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from games.pipelines import ARITHMETIC
from games.pipelines.graph import Node
from games.pipelines.workflow import Pay, Workflow
from games.settings import OnIllegal, check_whole

NAME = "mixture_of_agents"
PROPOSE = "Give your answer."
IMPROVE = "Give your answer; below is what the layer before answered, which may be wrong. Take what is good of it."
AGGREGATE = "Weigh the answers below, some of which may be wrong, and make the best answer of them."


def env(
    *,
    tasks: Mapping[str, Any] = ARITHMETIC,
    proposers: int = 3,
    layers: int = 2,
    pay: Sequence[Pay] = ("outcome",),
    on_illegal: OnIllegal = "default_action",
) -> Workflow:
    """`layers` of `proposers` and an aggregator (Mixture-of-Agents, arXiv 2406.04692).

    The proposers of a layer answer side by side and read all answers of the layer before; the aggregator reads the last
    layer, and its answer counts. Seats may have different policies: `{"proposer_0": small, "aggregator_0": large}`.
    `tasks`, `pay`: as in `workflow`.

    Raises:
        ValueError: a setting is out of range.
    """
    check_whole(NAME, proposers=proposers, layers=layers)
    prompt = PROPOSE if layers == 1 else IMPROVE
    return Workflow(
        name=NAME,
        tasks=tasks,
        nodes=(
            Node(role="proposer", prompt=prompt, count=proposers, recalls=("proposer",), answers=True),
            Node(role="aggregator", prompt=AGGREGATE, sees=("proposer",), rounds="last", answers=True),
        ),
        rounds=layers,
        answer="aggregator",
        decide="last",
        pay=pay,
        on_illegal=on_illegal,
        rules="Mixture of agents. Layers of agents answer one question, each reading the layer before.",
    )
