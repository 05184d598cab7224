"""Algebra: the equations have one solution, the text has their numbers, and each story is worked out by hand once."""

import re
from collections import Counter

import pytest
import sympy

from games.tasks import task_set
from games.tasks.algebra_stories import LEVELS


def solved(equations):
    """What x is, by sympy; none or one value."""
    unknowns = sorted({name for equation in equations for name in re.findall("[xyz]", equation)})
    sides = [equation.split("=") for equation in equations]
    system = [sympy.Eq(sympy.sympify(left), sympy.sympify(right)) for left, right in sides]
    solutions = sympy.linsolve(system, *map(sympy.Symbol, unknowns))
    return [dict(zip(unknowns, solution))["x"] for solution in solutions]


def numbers_of(text):
    return re.findall("[0-9]+", text)


@pytest.mark.parametrize("level", range(1, 6))
def test_the_answer_is_the_one_solution_of_the_equations(level):
    for task in task_set("algebra", level=level, size=120):
        assert solved(task.metadata["equations"]) == [sympy.Integer(task.answer)]
        assert int(task.answer) >= 1


@pytest.mark.parametrize("level", range(1, 6))
def test_the_text_gives_the_numbers_of_the_equations_and_no_others(level):
    for task in task_set("algebra", level=level, size=120):
        told, used = set(numbers_of(task.prompt)), set(numbers_of(" ".join(task.metadata["equations"])))
        assert told <= used
        assert used - told <= {"3"}, "three people grow older at once"
        assert not re.search(r"[{}]", task.prompt)


def test_levels_have_more_unknowns_and_more_equations():
    def size(level):
        tasks = task_set("algebra", level=level, size=100)
        texts = [" ".join(task.metadata["equations"]) for task in tasks]
        return sum(len(set(re.findall("[xyz]", text))) + len(re.findall(r"[-+*=]", text)) for text in texts)

    sizes = [size(level) for level in range(1, 6)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 5


@pytest.mark.parametrize("level", range(1, 6))
def test_every_story_is_told_with_different_names_and_things(level):
    tasks = task_set("algebra", level=level, size=300)
    stories = Counter(task.metadata["story"] for task in tasks)
    assert sorted(stories) == list(range(len(LEVELS[level - 1])))
    assert min(stories.values()) > 30
    assert len({re.sub("[0-9]+", "N", task.prompt) for task in tasks}) > 100


@pytest.mark.parametrize(
    ("level", "story", "drawn", "given", "x"),
    [
        (1, 0, {"a": 3, "b": 4}, {}, 7),
        (1, 1, {"a": 9, "b": 4}, {}, 5),
        (1, 2, {"x": 5, "b": 4}, {"c": 9}, 5),
        (1, 3, {"x": 9, "b": 4}, {"c": 5}, 9),
        (2, 0, {"a": 3, "b": 4, "c": 5}, {}, 7),  # 3 boxes of 4, less 5
        (2, 1, {"a": 3, "x": 4, "b": 5}, {"c": 17}, 4),  # 3 at 4 coins and a bag for 5: 17 coins
        (2, 2, {"a": 5, "b": 4, "c": 2}, {}, 22),  # 5 children, 4 each, 2 left over
        (2, 3, {"a": 3, "x": 7, "b": 5}, {"c": 16}, 7),  # 3 * 7 - 5
        (3, 0, {"x": 4, "b": 5, "c": 2, "e": 3}, {"a": 5, "d": 17}, 4),  # 5 * 4 + 5 = 2 * 4 + 17 = 25
        (3, 1, {"x": 5, "a": 3}, {"b": 20}, 5),  # 5 and 15
        (3, 2, {"x": 12, "a": 4}, {"y": 8, "b": 20}, 12),  # 12 and 8
        (3, 3, {"x": 4, "a": 10, "d": 2, "e": 3}, {"b": 5, "c": 22}, 4),  # 10 + 5 * 4 = 22 + 2 * 4 = 30
        (4, 0, {"x": 3, "y": 4, "a": 2, "b": 3, "c": 5, "d": 2}, {"m": 18, "n": 23, "k": 11}, 3),  # 6 + 12, 15 + 8
        (4, 1, {"x": 6, "d": 4, "a": 3}, {"b": 20}, 6),  # 26 and 6: in 4 years 30 and 10
        (4, 2, {"x": 3, "y": 5}, {"m": 8, "n": 22}, 3),  # 3 cows, 5 hens: 12 + 10 legs
        (4, 3, {"y": 7, "a": 4}, {"x": 15, "m": 22}, 15),  # 15 and 7: 11 each after 4 are given
        (5, 0, {"z": 4, "a": 3, "b": 5}, {"x": 17, "y": 12, "m": 33}, 17),  # 12, 4 and 17
        (5, 1, {"x": 3, "y": 4, "z": 6}, {"k": 7, "m": 10, "n": 9}, 3),
        (5, 2, {"y": 3, "z": 4, "a": 2, "b": 3, "c": 5, "n": 6}, {"x": 9, "k": 18, "m": 29, "i": 7}, 9),
        (5, 3, {"z": 5, "a": 3, "b": 4, "c": 2}, {"x": 11, "y": 15, "m": 37}, 11),  # 15, 5, 11; in 2 years 17 + 7 + 13
    ],
)
def test_a_problem_of_each_story_worked_out_by_hand(level, story, drawn, given, x):
    chosen = LEVELS[level - 1][story]
    values = drawn | chosen.rest(**drawn)
    assert values == drawn | given | {"x": x}
    assert solved([equation.format(**values) for equation in chosen.equations]) == [x]
