"""The reward model of PRIME, by the functions that a critic of kind implicit is made of."""

from typing import Any

import pytest
import torch

from marl_llm.learning.worth import implicit_rewards, outcome_loss
from tests.credit.cases import cases


@cases("prime_implicit_reward")
def test_the_reward_of_a_token_is_its_log_ratio_times_beta(case: Any) -> None:
    inputs = case["inputs"]
    rewards_N = implicit_rewards(torch.tensor(inputs["logp_prm"]), torch.tensor(inputs["logp_ref"]), inputs["beta"])
    assert rewards_N.tolist() == pytest.approx(case["outputs"]["reward"], abs=1e-7)


@cases("prime_prm_loss")
def test_the_sum_of_the_rewards_is_held_against_the_outcome(case: Any) -> None:
    """The sum of each response in three tokens; a response whose outcome is unknown changes nothing."""
    inputs = case["inputs"]
    shares = torch.tensor([0.5, 0.7, -0.2])
    sums_I = torch.tensor([*inputs["sum_q"], 3.0])
    rewards_N = implicit_rewards((sums_I[:, None] * shares).flatten(), torch.zeros(9), inputs["beta"])
    of_N = torch.arange(3).repeat_interleave(3)
    loss = outcome_loss(rewards_N, of_N, torch.tensor([*inputs["acc"], float("nan")]))
    assert loss.item() == pytest.approx(case["outputs"]["loss"], abs=1e-7)
