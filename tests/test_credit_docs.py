"""The page about credit says what the recipes say, and every worked number is checked somewhere."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from marl_llm.config import load_config
from marl_llm.credit.load import load_recipe, recipe_names
from tests.credit.cases import GOLDEN

ROOT = Path(__file__).parents[1]
NOT_MADE = {"hapo_temperature"}
"""A temperature of its own for every token: engines and learners have one for all."""
SCRIPT = ROOT / "scripts" / "credit_docs.py"


def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_the_page_is_up_to_date() -> None:
    assert script()["page"]() == script()["PAGE"].read_text(), "run scripts/credit_docs.py"


def test_every_recipe_says_what_it_is_and_where_it_comes_from() -> None:
    for name in recipe_names():
        about = load_recipe(name).about
        assert "arXiv" in about or "(ours)" in about, name


def test_every_recipe_is_checked_against_numbers_that_there_are() -> None:
    for name in recipe_names():
        assert set(load_recipe(name).checked) <= GOLDEN.keys(), name


def test_every_worked_number_is_looked_at_by_a_test() -> None:
    sources = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    used = set(re.findall(r'(?:cases\(|GOLDEN\[)"(\w+)"', sources))
    assert GOLDEN.keys() - used == NOT_MADE


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).settings])
def test_what_a_recipe_goes_with_is_a_setting(name: str) -> None:
    load_config(ROOT / "configs" / "kuhn.yaml", [*load_recipe(name).settings, f"credit={name}"])
