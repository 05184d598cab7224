"""The graph of a workflow: which roles there are, who reads whom, and in which order they speak."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, get_args

from games.settings import refused
from games.tools.named import TOOLS

Rounds = Literal["all", "first", "last", "earlier"]
Asks = Literal["question", "paraphrase"]
Reach = Literal["last", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One role of a workflow."""

    role: str
    """Its name; its agents are `ROLE_0`, `ROLE_1` and so on."""
    prompt: str = ""
    """What it is told to do."""
    count: int = 1
    """Agents that play it side by side, without reading each other in the same round."""
    sees: tuple[str, ...] = ()
    """Roles whose messages of this round it reads: they speak before it does."""
    recalls: tuple[str, ...] = ()
    """Roles whose messages of the round before it reads; its own may be among them."""
    reach: Reach = "last"
    """How far back `recalls` goes: the round before, or all of them."""
    rounds: Rounds = "all"
    """In which rounds it speaks; `earlier`: in all but the last."""
    choices: tuple[str, ...] = ()
    """The only messages that it may send; empty: any text."""
    answers: bool = False
    """Whether its messages are answers to the task."""
    asks: Asks = "question"
    """Which form of the question it reads: the task's own, or `paraphrase` of its metadata."""
    attributes: bool = False
    """Whether it is a judge that gives each message it reads, in order, a number from -1 (harm) to 3 (decisive)."""
    tools: tuple[str, ...] = ()
    """Tools that it may use before it speaks: `calculate`, `python`."""
    tool_turns: int = 3
    """Calls of tools that each of its agents has in a round."""

    @property
    def agents(self) -> tuple[str, ...]:
        """All that play the role."""
        return tuple(f"{self.role}_{number}" for number in range(self.count))

    def speaks(self, number: int, rounds: int) -> bool:
        """Whether it speaks in round `number` (from 0) of `rounds`."""
        if self.rounds in ("all", "first"):
            return self.rounds == "all" or number == 0
        return (number == rounds - 1) == (self.rounds == "last")


def read_nodes(game: str, given: Any) -> tuple[Node, ...]:
    """The nodes of a setting: role to what it does, as in `{solver: {prompt: ..., answers: true}, critic: {...}}`.

    Raises:
        ValueError: a role or field is unknown or out of range, or roles wait for each other in a circle.
    """
    if not isinstance(given, Mapping) or not given:
        raise refused(game, "nodes", given, "a mapping from roles to what they do")
    nodes = tuple(_node(game, role, node, tuple(given)) for role, node in given.items())
    try:
        _sorter(nodes).prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ValueError(f"game {game}: nodes wait for each other in a circle: {circle}; use recalls") from error
    return nodes


def layers(nodes: Sequence[Node], number: int, rounds: int) -> list[tuple[Node, ...]]:
    """Who speaks in round `number` of `rounds`: nodes of a layer side by side, layers one after the other."""
    sorter, found = _sorter(nodes), []
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        layer = tuple(node for node in nodes if node.role in ready and node.speaks(number, rounds))
        found += [layer] if layer else []
        sorter.done(*ready)
    return found


def _sorter(nodes: Sequence[Node]) -> TopologicalSorter[str]:
    return TopologicalSorter({node.role: node.sees for node in nodes})


def _node(game: str, role: Any, given: Any, roles: Sequence[str]) -> Node:
    where = f"nodes.{role}"
    if not isinstance(role, str) or not role.isidentifier() or role != role.lower() or role[-1].isdigit():
        raise refused(game, "nodes", role, "a role's name in small letters, without a number at its end")
    if given is None:
        given = {}
    known = {field.name for field in fields(Node)} - {"role"}
    if not isinstance(given, Mapping) or given.keys() - known:
        raise refused(game, where, given, f"a mapping with some of {', '.join(sorted(known))}")
    lists = {
        name: _names(game, f"{where}.{name}", given.get(name, ())) for name in ("sees", "recalls", "choices", "tools")
    }
    for name in ("sees", "recalls"):
        for other in lists[name]:
            if other not in roles:
                raise refused(game, f"{where}.{name}", other, f"one of {', '.join(roles)}")
    node = Node(role=role, **{**given, **lists})
    for name, fine, allowed in (
        ("prompt", isinstance(node.prompt, str), "a text"),
        ("count", type(node.count) is int and node.count >= 1, "a whole number, 1 or more"),
        ("reach", node.reach in get_args(Reach), " or ".join(get_args(Reach))),
        ("rounds", node.rounds in get_args(Rounds), " or ".join(get_args(Rounds))),
        ("answers", isinstance(node.answers, bool), "true or false"),
        ("asks", node.asks in get_args(Asks), " or ".join(get_args(Asks))),
        ("attributes", isinstance(node.attributes, bool), "true or false"),
        ("attributes", not node.attributes or bool(node.sees or node.recalls), "false where nothing is read"),
        ("tools", set(node.tools) <= set(TOOLS), f"a list of some of {', '.join(TOOLS)}"),
        ("tools", not node.tools or not node.choices, "empty where there are choices"),
        ("tool_turns", type(node.tool_turns) is int and node.tool_turns >= 1, "a whole number, 1 or more"),
    ):
        if not fine:
            raise refused(game, f"{where}.{name}", getattr(node, name), allowed)
    return node


def _names(game: str, setting: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise refused(game, setting, value, "a list of texts")
    return tuple(value)
