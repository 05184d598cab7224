"""Worked numbers of what critics and estimators are held against, and of the pairs that are made of their values."""

from typing import Any

import numpy as np
import pytest
import torch

from marl_llm.config import PreferenceConfig
from marl_llm.learning.batch import flatten
from marl_llm.learning.preferences import Preferences
from marl_llm.learning.worth import pair_loss, progress_loss, squared_error, twin_targets, value_targets
from marl_llm.types import Sample, Span
from tests.credit.cases import GOLDEN, cases


def candidates(values: dict[str, float]) -> list[Sample]:
    """Replies of several agents to one prompt, each of one token, with their values."""
    return [
        Sample(
            policy="p",
            game="g",
            episode=f"m{i}",
            agent=agent,
            tokens=(1, 2, 10 + i),
            spans=(Span(start=2, length=1, logprobs=(-1.0,), advantages=(value,), role="a", turn=0),),
        )
        for i, (agent, value) in enumerate(values.items())
    ]


def pairs(samples: list[Sample], config: PreferenceConfig) -> list[tuple[int, int]]:
    made = Preferences.make(samples, flatten(samples), config)
    return list(zip(made.chosen_P.tolist(), made.rejected_P.tolist(), strict=True))


@cases("archer")
def test_archer_targets_are_rewards_and_discounted_values_and_what_is_said(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    value_N = np.array([0.0, *inputs["V_next_target"][:-1]])  # V of a row is that of the state before it
    last_N = np.array(inputs["done"], dtype=np.bool_)
    quality_N = np.array(inputs["Q_target_at_pi"])
    targets = twin_targets(np.array(inputs["r"], dtype=np.float64), last_N, value_N, quality_N, inputs["gamma"])
    for target_N, name in zip(targets, ("y_Q", "y_V"), strict=True):
        np.testing.assert_allclose(target_N, outputs[name], atol=6e-7)


def test_a_linear_estimator_of_progress_finds_the_weights_that_sum_to_the_returns() -> None:
    inputs, outputs = (GOLDEN["spa"][0][name] for name in ("inputs", "outputs"))
    features_NF = torch.tensor([step for path in inputs["features"] for step in path], dtype=torch.float64)
    of_N = torch.tensor([place for place, path in enumerate(inputs["features"]) for _ in path])
    weights_F = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([weights_F], max_iter=50, tolerance_grad=1e-12)

    def loss() -> torch.Tensor:
        descent.zero_grad()
        error = progress_loss(features_NF @ weights_F, of_N, torch.tensor(inputs["R"], dtype=torch.float64))
        error.backward()
        return error

    descent.step(loss)
    assert weights_F.tolist() == pytest.approx(outputs["w"], abs=1e-5)
    parts = [part for path in outputs["c_hat"] for part in path]
    assert (features_NF @ weights_F).tolist() == pytest.approx(parts, abs=1e-5)


def test_sweet_holds_the_sum_of_the_better_episode_against_that_of_the_other() -> None:
    inputs, outputs = (GOLDEN["sweet"][1][name] for name in ("inputs", "outputs"))
    parts_N = torch.tensor([*inputs["adv_pos"], *inputs["adv_neg"]])
    of_N = torch.tensor([0] * len(inputs["adv_pos"]) + [1] * len(inputs["adv_neg"]))
    loss = pair_loss(parts_N, of_N, torch.tensor([[0, 1]]), inputs["beta"], 2)
    assert loss.item() == pytest.approx(outputs["loss"], abs=1e-6)
    assert pair_loss(parts_N, of_N, torch.zeros(0, 2, dtype=torch.int64), 0.1, 2).item() == 0.0


def test_sweet_prefers_the_better_half_to_the_worse() -> None:
    scores, outputs = GOLDEN["sweet"][2]["inputs"]["scores"], GOLDEN["sweet"][2]["outputs"]
    samples = candidates({f"a{i}": score for i, score in enumerate(scores)})
    expected = {(one, other) for one in outputs["chosen_pool"] for other in outputs["rejected_pool"]}
    assert set(pairs(samples, PreferenceConfig(rule="halves"))) == expected
    good = Preferences.make(samples, flatten(samples), PreferenceConfig(rule="halves")).good_T
    assert set(good.nonzero().flatten().tolist()) == set(outputs["chosen_pool"])


@pytest.mark.parametrize("scores", [[0.3], [0.3, 0.3], [0.3, 0.3, 0.3]])
def test_who_is_no_better_is_neither_preferred_nor_imitated(scores: list[float]) -> None:
    samples = candidates({f"a{i}": score for i, score in enumerate(scores)})
    made = Preferences.make(samples, flatten(samples), PreferenceConfig(rule="halves"))
    assert not len(made.chosen_P)
    assert not made.good_T.any()


def test_the_middle_of_an_odd_number_is_in_neither_half() -> None:
    samples = candidates({"a": 0.1, "b": 0.5, "c": 0.9})
    assert pairs(samples, PreferenceConfig(rule="halves")) == [(2, 0)]


@cases("collabui")
def test_collabui_prefers_agents_above_the_threshold_at_the_same_step_and_context(case: Any) -> None:
    scores = case["inputs"]["scores"]
    names = list(scores)
    found = [[names[one], names[other]] for one, other in pairs(candidates(scores), PreferenceConfig(threshold=0.5))]
    assert sorted(found) == sorted(case["outputs"]["pairs"])


def test_targets_are_values_and_what_gae_adds_to_them() -> None:
    (case,) = (case for case in GOLDEN["egae"] if not case["inputs"]["truncated"])  # others are not learned from
    inputs = case["inputs"]
    rewards_N, values_N = (np.array(inputs[name], dtype=np.float64) for name in ("rewards", "values"))
    last_N = np.arange(len(values_N)) == len(values_N) - 1
    targets_N = value_targets(rewards_N, values_N, last_N, inputs["gamma"], inputs["lam"])
    np.testing.assert_allclose(targets_N - values_N, case["outputs"]["adv"], atol=6e-7)


def test_targets_with_lam_1_are_what_came_and_unknown_where_that_is() -> None:
    rewards_N, values_N = np.array([1.0, 2.0, 4.0, np.nan, 8.0]), np.array([9.0, -9.0, 3.0, 1.0, 1.0])
    last_N = np.array([False, True, False, False, True])
    found = value_targets(rewards_N, values_N, last_N, 0.5, 1.0)
    np.testing.assert_allclose(found, [2.0, 2.0, np.nan, np.nan, 8.0])


def test_an_error_is_held_against_a_value_that_moved_too_far() -> None:
    values_N, before_N = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])
    targets_N, weights_N = torch.tensor([1.0, float("nan")]), torch.tensor([2.0, 1.0])
    assert squared_error(values_N, targets_N, weights_N).item() == 0.0
    # Held at 0.2 its error is 0.8.
    assert squared_error(values_N, targets_N, weights_N, before_N=before_N, clip=0.2).item() == pytest.approx(0.64)
