"""Rewards of CoMAS where scores are several, unreadable or expected, and what its recipes make of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from marl_llm.credit.load import load_recipe
from marl_llm.credit.recipe import Credited, credit_table
from marl_llm.credit.rewards import comas, comas_expected, comas_released
from marl_llm.credit.table import Row, table_of
from marl_llm.errors import ConfigError
from marl_llm.types import Episode, Match, Turn


def said(role: str, probes: Mapping[str, float] | None = None, *, model: bool = True) -> Turn:
    return Turn(
        agent="agent_0",
        role=role,
        policy="p",
        observation="",
        prompt=(1,) if model else None,
        reply="",
        action=None,
        legal=True,
        probes=probes or {},
    )


def discussed(*judgements: tuple[int, int | None, int, int | None], turns: tuple[Turn, ...] = ()) -> Episode:
    """`judgements`: turns of solution, evaluation and judge, and the score."""
    names = ("solution", "evaluation", "judge", "score")
    told = [dict(zip(names, judgement, strict=True)) for judgement in judgements]
    match = Match(id="m", game="discussion", seed=0, group="g", seats={})
    return Episode(match=match, turns=turns, returns={}, hidden={"judgements": told})


SEVERAL = discussed((0, 1, 4, 3), (0, 1, 5, None), (0, 2, 6, 1), (0, 2, 7, 2), (0, 3, 8, None), (0, 3, 9, None))
"""One solution with three evaluations, each scored by two: one score of the first and both of the last are unread."""


def test_an_evaluation_is_paid_by_the_scores_that_can_be_read_and_a_solution_by_its_evaluations() -> None:
    parts = comas(SEVERAL)
    # (3 + none): 0; (1 + 2): (1 + 1/2) / 2; the solution: the mean of 1 and (0 + 1/2) / 2, whose third is unknown.
    assert {turn: parts[turn] for turn in (0, 1, 2, 3)} == {
        0: {"solution": 0.625},
        1: {"evaluation": 0.0},
        2: {"evaluation": 0.75},
        3: {"evaluation": None},
    }
    assert 0.625 + (0.0 + 0.75) / 2 == 1.0, "a solution and its evaluations share 1, whoever was unreadable"
    scores = {turn: value["score"] for turn, value in parts.items() if "score" in value}
    assert scores == {4: 0.0, 5: -1.0, 6: 0.0, 7: 0.0, 8: -1.0, 9: -1.0}


def test_as_released_a_score_that_cannot_be_read_counts_as_nothing_for_both() -> None:
    parts = comas_released(SEVERAL)
    assert {turn: parts[turn] for turn in (0, 1, 2, 3)} == {
        0: {"solution": pytest.approx((0.5 + 0.25 + 0.0) / 3)},
        1: {"evaluation": 0.0},
        2: {"evaluation": 0.75},
        3: {"evaluation": 0.0},
    }


def test_without_evaluations_a_solution_is_paid_by_the_scores_that_can_be_read() -> None:
    parts = comas(discussed((0, None, 1, 3), (0, None, 2, None), (0, None, 3, 2)))
    assert parts == {0: {"solution": 0.75}, 1: {"score": 0.0}, 2: {"score": -1.0}, 3: {"score": 0.0}}


TORN = {"p/1": 0.5, "p/2": 0.3, "p/3": 0.2, "illegal_mass": 0.1}


def test_an_expected_score_is_the_mean_of_what_the_judge_might_have_given() -> None:
    """1 * 0.5 + 2 * 0.3 + 3 * 0.2 = 1.7, whatever was drawn, and 0.35 for the solution."""
    for score, paid in ((1, 0.0), (3, 0.0), (None, -1.0)):
        turns = (said("solver"), said("evaluator"), said("scorer", TORN))
        parts = comas_expected(discussed((0, 1, 2, score), turns=turns))
        assert parts[0]["solution"] == pytest.approx(0.35)
        assert parts[1]["evaluation"] == pytest.approx(0.65)
        assert parts[2] == {"score": paid}


def test_expected_scores_of_several_judges_are_averaged() -> None:
    sure = {"p/1": 0.0, "p/2": 0.0, "p/3": 1.0, "illegal_mass": 0.0}
    judges = (said("scorer", TORN), said("scorer", sure), said("scorer", {"illegal_mass": 1.0}))
    turns = (said("solver"), said("evaluator"), *judges, said("scorer", model=False))
    # 1.7, 3, nothing to be told, and a judge without a model that said 1: 1.9 on average.
    parts = comas_expected(discussed((0, 1, 2, 1), (0, 1, 3, 1), (0, 1, 4, 2), (0, 1, 5, 1), turns=turns))
    assert parts[0]["solution"] == pytest.approx((1.9 - 1) / 2)
    assert parts[1]["evaluation"] == pytest.approx((3 - 1.9) / 2)
    nobody = comas_expected(discussed((0, 1, 2, 3), turns=(said("solver"), said("evaluator"), judges[2])))
    assert nobody == {0: {"solution": None}, 1: {"evaluation": None}, 2: {"score": 0.0}}


def test_expected_scores_are_refused_where_nobody_measured_them() -> None:
    turns = (said("solver"), said("evaluator"), said("scorer"))
    with pytest.raises(ConfigError, match=r"probabilities of scores; play.probe must name 'scorer'$"):
        comas_expected(discussed((0, 1, 2, 3), turns=turns))


LENGTHS = {"solver": 500, "evaluator": 250, "scorer": 80}


def advantages(recipe: str) -> tuple[Credited, dict[str, Any]]:
    """Four solutions, each with an evaluation and a readable score; half of them are found right. By role."""
    rows = [
        Row(f"m{i}", turn, {role: value}, agent=f"agent_{turn}", role=role, num_tokens=LENGTHS[role])
        for i, right in enumerate((1.0, 0.0, 1.0, 0.0))
        for turn, (role, value) in enumerate({"solver": right, "evaluator": 1 - right, "scorer": 0.0}.items())
    ]
    credited = credit_table(table_of(rows), load_recipe(recipe))
    return credited, {role: credited.advantages[credited.table.role == role] for role in LENGTHS}


def test_over_all_tokens_of_a_policy_a_readable_score_is_a_mistake() -> None:
    """Mean (500 + 250) / 2 / 830 = 0.4518, standard deviation 0.4977: a 0 lies 0.908 below."""
    credited, by_role = advantages("comas")
    np.testing.assert_allclose(by_role["scorer"], [-0.9078] * 4, atol=1e-4)
    tokens = credited.table.num_tokens
    assert np.sum(credited.advantages * tokens) == pytest.approx(0.0, abs=1e-9)


def test_with_a_baseline_per_role_a_readable_score_is_neutral() -> None:
    _, by_role = advantages("comas_roles")
    np.testing.assert_array_equal(by_role["scorer"], [0.0] * 4)
    for role in ("solver", "evaluator"):
        assert np.mean(by_role[role]) == pytest.approx(0.0)
        assert np.ptp(by_role[role]) > 1
