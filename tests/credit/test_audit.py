import json

from rich.console import Console

from marl_llm.credit.audit import as_json, audit, table
from marl_llm.credit.load import load_recipe
from marl_llm.credit.recipe import credit_table
from marl_llm.credit.table import Row, table_of

TABLE = table_of(
    [
        Row("a", 0, {"outcome": 1.0, "format": 0.5}, group="g", action="bet [x]"),
        Row("b", 0, {"outcome": 0.5}, group="g"),
        Row("c", 0, {"outcome": None}, group="h"),
    ]
)


def test_a_row_shows_rewards_stages_members_and_every_recipes_advantage() -> None:
    rows = audit([credit_table(TABLE, load_recipe(name)) for name in ("dr_grpo", "rloo", "rloo")])
    first = rows[0]
    assert (first.episode, first.turn, first.group, first.action) == ("a", 0, "g", "bet [x]")
    assert first.rewards == {"format": 0.5, "outcome": 1.0}
    assert first.stages["dr_grpo"] == {"reward": 1.5, "broadcast": 1.5, "center": 0.5}
    assert first.advantages == {"dr_grpo": 0.5, "rloo": 1.0, "rloo_2": 1.0}
    assert first.keys["rloo"] == "group=g role=agent_0 policy=policy"
    assert first.members["rloo"] == ("a#0", "b#0")
    assert rows[1].rewards == {"outcome": 0.5}
    assert rows[2].stages["rloo"] == {"reward": None, "broadcast": None, "center": None}
    assert rows[2].advantages["rloo"] == 0.0


def test_who_is_compared_is_that_of_the_first_stage_that_compares() -> None:
    nested = {"stages": [{"sum": [{"stages": ["reward", {"center": {"keys": []}}]}]}]}
    (row, *_) = audit([credit_table(TABLE, load_recipe(spec)) for spec in ({"stages": ["reward"]}, nested)])
    assert row.keys == {"inline_2": "all"}
    assert row.members == {"inline_2": ("a#0", "b#0", "c#0")}


def test_json_holds_the_members_of_a_key_once() -> None:
    plain = as_json(audit([credit_table(TABLE, load_recipe("mars"))]))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["recipes"] == ["mars"]
    assert plain["groups"] == {"mars": {"game=game role=agent_0 policy=policy": ["a#0", "b#0", "c#0"]}}
    assert [row["advantages"]["mars"] for row in plain["rows"]] == [0.5, -0.5, 0.0]
    assert "members" not in plain["rows"][0]


def shown(*recipes: str) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table(audit([credit_table(TABLE, load_recipe(name)) for name in recipes])))
    return capture.get()


def test_the_table_shows_each_recipe_in_a_column_and_text_as_it_is() -> None:
    text = shown("grpo", "mars")
    for part in ("a#0", "grpo", "mars", "bet [x]", "format +0.5 outcome +1", "outcome ?"):
        assert part in text
    assert "broadcast" not in text


def test_the_table_of_one_recipe_has_its_stages_and_how_many_are_compared() -> None:
    text = shown("grpo")
    for part in ("broadcast", "scale", "2 turns"):
        assert part in text


def test_an_audit_of_nothing_is_empty() -> None:
    assert audit([]) == ()
    assert as_json(()) == {"recipes": [], "rows": [], "groups": {}}
    assert table(()).row_count == 0
