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
    check_needs(recipe, {"state_key"})
    with pytest.raises(ConfigError, match="recipe inline needs state_key, which is missing; offered by a game whose"):
        check_needs(recipe, {"tokens"})
