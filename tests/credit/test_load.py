"""What a recipe may say, and how each mistake is refused."""

from pathlib import Path
from typing import Any

import pytest

from marl_llm.credit.load import RECIPES, load_recipe, recipe_names
from marl_llm.errors import ConfigError

FIRST = {"stages": ["reward"]}


def stage(name: str, params: Any) -> dict[str, Any]:
    return {"stages": ["reward", {name: params}]}


def test_the_named_recipes_are_those_of_the_folder() -> None:
    assert recipe_names() == sorted(file.stem for file in (Path(__file__).parents[2] / "configs" / "credit").iterdir())


@pytest.mark.parametrize("name", recipe_names())
def test_every_named_recipe_loads_and_says_where_it_comes_from(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert "(arXiv " in recipe.about or "(ours)" in recipe.about or "in arXiv" in recipe.about
    assert recipe == load_recipe(RECIPES / f"{name}.yaml") == load_recipe(str(RECIPES / f"{name}.yaml"))


def test_a_recipe_may_be_written_out() -> None:
    recipe = load_recipe({"about": "mine", "stages": ["reward", {"center": {"keys": ["group"]}}, {"clip": None}]})
    assert (recipe.name, recipe.about) == ("inline", "mine")
    assert [step.label for step in recipe.stages] == ["reward", "center", "clip"]
    assert recipe.stages[1].params == {"keys": ("group",)}


def test_repeated_and_nested_stages_get_labels_of_their_own() -> None:
    term = {"stages": ["reward", "returns", "returns"]}
    recipe = load_recipe({"stages": [{"sum": [term, term]}, "broadcast", "broadcast"]})
    assert [step.label for step in recipe.stages] == ["sum", "broadcast", "broadcast_2"]
    inner = [step.label for term in recipe.stages[0].terms for step in term.steps]
    assert inner == [f"sum.{n}.{name}" for n in (1, 2) for name in ("reward", "returns", "returns_2")]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("marz", r"credit: unknown recipe 'marz'; nearest valid name: mars; allowed: archer, "),
        ("nowhere/mars.yaml", r"credit recipe nowhere/mars\.yaml: no such file"),
        (3, r"credit: 3 is not allowed; it must be a recipe's name, a path or a mapping"),
        ({**FIRST, "stage": []}, r"unknown key 'stage'; nearest valid name: stages"),
        ({}, r"stages: None is not allowed; it must be a list of stages"),
        ({"stages": []}, r"stages: \[\] is not allowed"),
        ({"stages": ["centre"]}, r"stage 1: unknown stage 'centre'; nearest valid name: center"),
        (
            {"stages": ["returns"]},
            r"stage 1: 'returns' is not allowed; the first stage must be one of reward, .*, sum",
        ),
        ({"stages": ["reward", "reward"]}, r"stage 2: 'reward' is not allowed; only the first stage may be"),
        (
            {"stages": [{"reward": {}, "returns": {}}]},
            r"it must be a stage's name, or one stage with its parameters",
        ),
        (stage("center", {"key": ["group"]}), r"stage 2 \(center\): unknown parameter 'key'; .*name: keys"),
        (stage("center", {}), r"stage 2 \(center\): parameter keys is missing"),
        (
            stage("center", [1]),
            r"stage 2 \(center\): \[1\] is not allowed; it must be a mapping of parameters",
        ),
        (stage("center", {"keys": ["grup"]}), r"keys: unknown column 'grup'; nearest valid name: group"),
        (stage("center", {"keys": "group"}), r"keys: 'group' is not allowed; it must be a list of columns"),
        (
            stage("center", {"keys": [], "per": "game"}),
            r"per: unknown value 'game'; .*allowed: turn, episode, token",
        ),
        (
            stage("center", {"keys": [], "decimals": 1.5}),
            r"decimals: 1\.5 is not allowed; it must be of type int",
        ),
        (stage("center", {"keys": [], "include_zero": 1}), r"include_zero: 1 is not allowed; .* type bool"),
        (stage("scale", {"keys": [], "ddof": 2}), r"ddof: 2 is not allowed; it must be one of \[0, 1\]"),
        (
            stage("scale", {"keys": [], "eps": -1}),
            r"eps: -1 is not allowed; it must be a number of 0 or more",
        ),
        (
            stage("returns", {"gamma": 1.5}),
            r"gamma: 1\.5 is not allowed; it must be a number between 0 and 1",
        ),
        (stage("returns", {"gamma": True}), r"gamma: True is not allowed"),
        (stage("clip", {"low": float("nan")}), r"low: nan is not allowed; it must be a number"),
        (
            {"stages": [{"reward": {"weights": {"a": "b"}}}]},
            r"weights\.a: 'b' is not allowed; it must be a number",
        ),
        (
            {"stages": [{"reward": {"weights": 2}}]},
            r"weights: 2 is not allowed; it must be a mapping of parts",
        ),
        ({"stages": [{"sum": {}}]}, r"\(sum\): \{\} is not allowed; it must be a list of terms"),
        (
            {"stages": [{"sum": [1]}]},
            r"term 1: 1 is not allowed; it must be a mapping with weight and stages",
        ),
        (
            {"stages": [{"sum": [{**FIRST, "wait": 1}]}]},
            r"term 1: unknown key 'wait'; nearest valid name: weight",
        ),
        ({"stages": [{"sum": [{**FIRST, "weight": "x"}]}]}, r"term 1: weight: 'x' is not allowed"),
        (
            {"stages": [{"sum": [{"stages": ["clip"]}]}]},
            r"term 1: stage 1: 'clip' is not allowed; the first stage",
        ),
    ],
)
def test_a_mistake_is_refused_with_its_place_and_what_is_allowed(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["stages: [", "a: 1\na: 2", "\tx"])
def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml: not valid YAML: "):
        load_recipe(path)


def test_a_file_that_holds_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("- reward")
    with pytest.raises(
        ConfigError, match="recipe mine: must be a mapping of about, unit, parts, with, checked, stages, not list"
    ):
        load_recipe(path)


def test_small_numbers_may_be_written_as_in_python(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("stages: [reward, {scale: {keys: [], eps: 1e-6}}]")
    assert load_recipe(path).stages[1].params["eps"] == 1e-6
