"""Where the number of one turn comes from."""

import pytest
from rich.console import Console

from marl_llm.credit.load import load_recipe
from marl_llm.credit.origin import origins, origins_json, origins_tree
from marl_llm.credit.recipe import credit_table
from marl_llm.credit.table import Row, table_of
from marl_llm.errors import ConfigError

TABLE = table_of(
    [Row("a", 0, {"r": 0.0}), Row("a", 1, {"r": 1.0}), Row("b", 0, {"r": -1.0}), Row("c", 0, {"r": 8.0}, group="h")]
)


def test_every_stage_with_whom_it_compares_and_the_baseline() -> None:
    stages = origins(credit_table(TABLE, load_recipe("dr_grpo")), "a", 0)
    assert [(stage.label, stage.before, stage.after) for stage in stages] == [
        ("reward", None, 0.0),
        ("broadcast", 0.0, 1.0),
        ("center", 1.0, 1.0),
    ]
    assert stages[1].members == (("a#0", 0.0), ("a#1", 1.0))
    assert stages[2].key == "group=group role=agent_0 policy=policy"
    assert stages[2].members == (("a#0", 1.0), ("a#1", 1.0), ("b#0", -1.0))
    assert stages[2].baseline == 0.0  # the mean of 1 and -1: each episode counts once
    assert origins_json(stages)[2]["key"] == stages[2].key


def test_the_terms_of_a_sum_come_before_it() -> None:
    terms = [{"stages": ["reward"]}, {"weight": 2.0, "stages": ["reward", "broadcast"]}]
    stages = origins(credit_table(TABLE, load_recipe({"stages": [{"sum": terms}]})), "a", 1)
    labels = ["sum.1.reward", "sum.2.reward", "sum.2.broadcast", "sum"]
    assert [(stage.label, stage.after) for stage in stages] == list(zip(labels, [1.0, 1.0, 1.0, 3.0], strict=True))


def test_the_tree_names_members_and_a_turn_that_is_not_there_is_refused() -> None:
    credited = credit_table(TABLE, load_recipe("dr_grpo"))
    console = Console(width=200)
    with console.capture() as capture:
        console.print(origins_tree("dr_grpo", "r +1", 1.0, origins(credited, "a", 1), by_token=False))
    assert "3 turns share group=group role=agent_0 policy=policy: a#0 +1, a#1 +1, b#0 -1" in capture.get()
    with pytest.raises(ConfigError, match="there is no turn a#7"):
        origins(credited, "a", 7)
