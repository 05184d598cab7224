"""What a recipe needs is read off its stages, and what is missing is refused by name."""

import pytest

from marl_llm.credit.load import load_recipe
from marl_llm.credit.needs import check_needs, needs
from marl_llm.errors import ConfigError


def test_keys_and_units_tell_what_is_needed() -> None:
    stages = ["reward", {"center": {"keys": ["group", "state"]}}]
    assert needs(load_recipe({"stages": stages})) == ("state_key",)
    assert needs(load_recipe({"unit": "token", "stages": ["reward"]})) == ("tokens",)
    term = {"stages": stages}
    assert needs(load_recipe({"stages": [{"sum": [term]}]})) == ("state_key",)
    assert needs(load_recipe("grpo")) == ()


def test_what_is_missing_is_refused_with_who_offers_it() -> None:
    recipe = load_recipe({"stages": ["reward", {"center": {"keys": ["group", "state"]}}]})
    check_needs(recipe, {"state_key"}, set())
    with pytest.raises(ConfigError, match="recipe inline needs state_key, which is missing; offered by a game whose"):
        check_needs(recipe, {"tokens"}, set())


def test_a_recipe_about_a_reward_part_that_nobody_pays_is_refused() -> None:
    recipe = load_recipe("marti_margin")
    check_needs(recipe, set(), {"right"})
    check_needs(recipe, set(), None)  # a function of the user's may pay any
    with pytest.raises(ConfigError, match=r"needs the reward part right, .* marl_llm\.credit\.rewards:right"):
        check_needs(recipe, set(), {"outcome"})


def test_what_is_measured_of_tokens_needs_tokens_in_a_recipe_of_turns_too() -> None:
    assert needs(load_recipe("verl")) == ("er", "era", "erv", "tokens")
    assert needs(load_recipe("canon_entropy")) == ("entropy", "tokens")


def test_trees_need_forks() -> None:
    assert needs(load_recipe("malt")) == ("forks",)
    assert "forks" in needs(load_recipe("coma_mc"))
