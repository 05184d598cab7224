"""Recipes on the same turns: how far they agree."""

from rich.console import Console

from marl_llm.credit.agreement import agreement_json, agreement_table, agreements
from marl_llm.credit.audit import audit
from marl_llm.credit.load import load_recipe
from marl_llm.credit.recipe import credit_table
from marl_llm.credit.table import Row, table_of

TABLE = table_of(
    [Row(f"m{i}", 0, {"good": good, "bad": bad}) for i, (good, bad) in enumerate([(1.0, 0.0), (-2.0, 2.0), (1.0, 1.0)])]
)
GOOD = {"stages": [{"reward": {"weights": {"bad": 0}}}]}
BAD = {"stages": [{"reward": {"weights": {"good": 0}}}]}


def test_correlation_flips_and_the_greatest_of_them() -> None:
    rows = audit([credit_table(TABLE, load_recipe(spec)) for spec in (GOOD, BAD)])
    (pair,) = agreements(rows)
    assert (pair.one, pair.other, pair.turns) == ("inline", "inline_2", 3)
    # 1 -2 1 and -1 1 0 around their means: -3 / sqrt(6 * 2).
    assert pair.correlation is not None
    assert round(pair.correlation, 9) == round(-3 / 12**0.5, 9)
    assert (pair.flips, pair.silent, pair.example) == (1, 1, "m1#0")
    console = Console(width=160)
    with console.capture() as capture:
        console.print(agreement_table([pair]))
    assert "inline / inline_2" in capture.get()
    assert "1 (33.3%)" in capture.get()
    assert agreement_json([pair])[0]["flips"] == 1


def test_a_recipe_that_says_the_same_of_all_turns_correlates_with_nothing() -> None:
    flat = {"stages": [{"reward": {"others": 0}}]}
    (pair,) = agreements(audit([credit_table(TABLE, load_recipe(spec)) for spec in (GOOD, flat)]))
    assert (pair.correlation, pair.flips, pair.silent, pair.example) == (None, 0, 3, None)


def test_one_recipe_or_no_turns_make_no_pair() -> None:
    assert agreements(()) == ()
    assert agreements(audit([credit_table(TABLE, load_recipe("grpo"))])) == ()
