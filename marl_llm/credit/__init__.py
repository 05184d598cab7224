"""Credit: episodes go in, advantages come out.

`table` flattens episodes into one row per turn, `stages` are small pure functions over that table, `load` reads a
list of stages from YAML, `recipe` runs it, and `audit` shows where every number came from.
"""

from marl_llm.credit.load import load_recipe, recipe_names
from marl_llm.credit.recipe import Credited, Recipe, State, credit

__all__ = ["Credited", "Recipe", "State", "credit", "load_recipe", "recipe_names"]
