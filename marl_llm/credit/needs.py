"""What a recipe cannot do without, and who offers it: refused before a run begins, not in the middle of it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, get_type_hints

from marl_llm.credit import rewards, stages
from marl_llm.credit.load import STAGES, Recipe, Step
from marl_llm.credit.table import LENGTH, LOGPROB, TurnTable
from marl_llm.errors import ConfigError

_BRANCHES = "play.branches"
_CRITIC = "policies.NAME.critic (of every policy that learns), kind"
OF_TOKENS = ("entropy", "certainty", "logit", "logprob_now", "reference", "er", "erv", "era", "implicit")
"""Quantities that are measured of tokens; a turn has the mean."""
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
    "forks": "play.tree, or play.branches.alternatives with keep_alternatives",
    **dict.fromkeys(("gold", "gold_before"), "games whose episodes tell the gold answer, to policies of kind llm"),
    "value": f"{_BRANCHES}.values (of tokens: {_BRANCHES}.segments) or {_CRITIC} value, prefix or progress",
    "q": f"{_BRANCHES}.options or {_CRITIC} prefix",
    "baseline": f"{_BRANCHES}.alternatives",
    "budget": f"{_BRANCHES}.budgets",
    "difference": f"play.replays, with a game in which agents call others, or {_BRANCHES}.coalitions",
    "shapley": f"{_BRANCHES}.coalitions",
    "wait": f"{_CRITIC} prefix, with wait: a reply that does nothing in the game",
    **dict.fromkeys(("q1", "q2", "v1", "v2"), f"{_CRITIC} twin"),
    "progress": f"{_CRITIC} progress",
    **dict.fromkeys(("informed", "informed_before"), f"{_CRITIC} privileged"),
}
"""What may be needed, and who offers it. Quantities that are not here are reward parts of a game, which may be rare."""


PAYS: Mapping[str, str] = {
    **{
        part: f"play.rewards: marl_llm.credit.rewards:{name}"
        for name, function in vars(rewards).items()
        for part in getattr(function, "pays", ())
    },
    "challenge": "the game proposer_solver",
}
"""Reward parts that a recipe may be about, and who of ours pays them."""
_WITHOUT_PROBE = ("state_key", "tokens", "forks", "legal")
_KEYED = {"state": "state_key", "parent": "forks", "node": "forks"}
"""What a column of a key needs."""


def needs(recipe: Recipe) -> tuple[str, ...]:
    """What the recipe needs of `OFFERS`, sorted."""
    found = set(_needs(recipe.stages)) | ({"tokens"} if recipe.by_token else set())
    return tuple(sorted(found & OFFERS.keys()))


def check_needs(recipe: Recipe, offered: Collection[str], paid: Collection[str] | None) -> None:
    """Refuse a recipe that needs something else. `paid`: all reward parts that may be paid; None: any.

    Raises:
        ConfigError: it does; the message says what is missing and who offers it.
    """
    for name in needs(recipe):
        if name not in offered:
            raise ConfigError(f"credit: recipe {recipe.name} needs {name}, which is missing; offered by {OFFERS[name]}")
    for part in recipe.parts:
        if paid is not None and part not in paid and part not in offered:
            raise ConfigError(
                f"credit: recipe {recipe.name} needs the reward part {part}, which nobody pays here; offered by "
                f"{PAYS.get(part) or OFFERS.get(part, 'a function of yours as play.rewards')}, or a game with it in "
                "metadata['reward_parts']"
            )


def lacking(recipe: Recipe, turns: TurnTable) -> set[str]:
    """Quantities and reward parts that the recipe needs and these turns have none of."""
    held = {*turns.probes, *turns.parts, *_WITHOUT_PROBE}
    return {*needs(recipe), *recipe.parts} - held if len(turns) else set()


def check_table(recipe: Recipe, turns: TurnTable) -> None:
    """Refuse episodes without the state keys or tokens that the recipe needs.

    Raises:
        ConfigError: they have none; the message says who offers them.
    """
    if not len(turns):
        return
    missing = {"state_key": "" in turns.column("state"), "tokens": turns.tokens is None}
    for name in needs(recipe):
        if missing.get(name, False):
            raise refused(recipe, name)


def refused(recipe: Recipe, name: str) -> ConfigError:
    """What is said where episodes do not hold what a recipe needs."""
    lacks = f"credit: recipe {recipe.name} needs {name}, which these episodes do not hold"
    return ConfigError(f"{lacks}; offered by {OFFERS.get(name) or PAYS.get(name, 'play.rewards')}")


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
            if hints.get(name) == stages.Keys:
                yield from (_KEYED[column] for column in value if column in _KEYED)
            if hints.get(name) == stages.Quantity and value and value != LENGTH:
                yield value
                if value == LOGPROB or value in OF_TOKENS:
                    yield "tokens"
