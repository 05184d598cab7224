"""What a recipe cannot do without, and who offers it: refused before a run begins, not in the middle of it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, get_type_hints

from marl_llm.credit import stages
from marl_llm.credit.load import STAGES, Recipe, Step
from marl_llm.credit.table import LENGTH, LOGPROB, TurnTable
from marl_llm.errors import ConfigError

_BRANCHES = "play.branches"
_CRITIC = "policies.NAME.critic (of every policy that learns), kind"
OFFERS: Mapping[str, str] = {
    "state_key": "a game whose metadata has state_key: true, such as kuhn_poker, tic_tac_toe or leduc_poker",
    "tokens": "policies of kind llm, logged with run.tokens=true",
    "legal": "every game",
    **dict.fromkeys(
        ("entropy", "certainty", "logit", "logprob_now", "er", "erv", "era"),
        "learners, of the turns that they learn from",
    ),
    "reference": "learners with objective.kl.reference, of the turns that they learn from",
    "implicit": f"{_CRITIC} implicit",
    "call": "play.rewards, such as marl_llm.credit.rewards:first_call",
    **dict.fromkeys(("gold", "gold_before"), "games whose episodes tell the gold answer, to policies of kind llm"),
    "value": f"{_BRANCHES}.values (of tokens: {_BRANCHES}.segments) or {_CRITIC} value, prefix or progress",
    "q": f"{_BRANCHES}.options or {_CRITIC} prefix",
    "baseline": f"{_BRANCHES}.alternatives",
    "difference": f"play.replays, with a game in which agents call others, or {_BRANCHES}.coalitions",
    "shapley": f"{_BRANCHES}.coalitions",
    "wait": f"{_CRITIC} prefix, with wait: a reply that does nothing in the game",
    **dict.fromkeys(("q1", "q2", "v1", "v2"), f"{_CRITIC} twin"),
    "progress": f"{_CRITIC} progress",
    **dict.fromkeys(("informed", "informed_before"), f"{_CRITIC} privileged"),
}
"""What may be needed, and who offers it. Quantities that are not here are reward parts of a game, which may be rare."""
_RARE = ("call", "difference", "shapley")
"""Reward parts among them, which a step's episodes may lack by chance."""


def needs(recipe: Recipe) -> tuple[str, ...]:
    """What the recipe needs of `OFFERS`, sorted."""
    found = set(_needs(recipe.stages)) | ({"tokens"} if recipe.by_token else set())
    return tuple(sorted(found & OFFERS.keys()))


def check_needs(recipe: Recipe, offered: Collection[str]) -> None:
    """Refuse a recipe that needs something else.

    Raises:
        ConfigError: it does; the message says what is missing and who offers it.
    """
    for name in needs(recipe):
        if name not in offered:
            raise ConfigError(f"credit: recipe {recipe.name} needs {name}, which is missing; offered by {OFFERS[name]}")


def check_table(recipe: Recipe, turns: TurnTable) -> None:
    """Refuse episodes that do not hold what the recipe needs, though they may hold it in some turns alone.

    Raises:
        ConfigError: they do not; the message says what is missing and who offers it.
    """
    held = {*turns.probes, *turns.parts}
    for name in needs(recipe) if len(turns) else ():
        if name == "state_key":
            missing = "" in turns.column("state")
        elif name == "tokens":
            missing = turns.tokens is None
        else:
            missing = name not in held and name not in _RARE
        if missing:
            lacking = f"credit: recipe {recipe.name} needs {name}, which these episodes do not hold"
            raise ConfigError(f"{lacking}; offered by {OFFERS[name]}")


def _needs(steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        for term in step.terms:
            yield from _needs(term.steps)
        if step.stage == "sum":
            continue
        function: Callable[..., Any] = STAGES[step.stage]
        yield from getattr(function, "needs", ())
        hints = get_type_hints(function, include_extras=True)
        for name, value in step.filled.items():
            if hints.get(name) == stages.Keys and "state" in value:
                yield "state_key"
            if hints.get(name) == stages.Quantity and value and value != LENGTH:
                yield "tokens" if value == LOGPROB else value
