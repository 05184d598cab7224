import json
from pathlib import Path

import pytest
import torch

from marl_llm.config import ObjectiveConfig
from marl_llm.learning.objective import (
    aggregation_weights,
    clipped_loss,
    group_mean,
    kl_estimate,
    policy_losses,
)

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def vector(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).flatten()


def weights(mode: str, *, sequence, turn=None, role=None, episode=None, turn_weight=None, constant=1.0) -> list[float]:
    ids = [torch.tensor(x if x is not None else [0] * len(sequence)) for x in (sequence, turn, role, episode)]
    turn_weight = vector(turn_weight or [1.0] * len(sequence))
    return aggregation_weights(mode, *ids, turn_weight, constant).tolist()


def test_clipping_matches_the_golden_case() -> None:
    (case,) = GOLDEN["ppo_clip"]
    inputs = case["inputs"]
    loss = clipped_loss(
        vector(inputs["ratio"]), vector(inputs["adv"]), inputs["clip_low"], inputs["clip_high"], inputs["dual_clip"]
    )
    torch.testing.assert_close(loss, vector(case["outputs"]["loss"]))


@pytest.mark.parametrize("case", GOLDEN["loss_aggregation"], ids=lambda case: case["inputs"]["mode"])
def test_aggregation_matches_the_golden_cases(case) -> None:
    inputs = case["inputs"]
    sampled = [(i, x) for i, row in enumerate(inputs["loss"]) for x, m in zip(row, inputs["mask"][i]) if m]
    sequence = [i for i, _ in sampled]
    mode = {"token-mean": "token", "seq-mean-token-mean": "sequence"}.get(inputs["mode"], "constant")
    share = vector(weights(mode, sequence=sequence, constant=inputs.get("const", 1.0)))
    assert (share @ vector([x for _, x in sampled])).item() == pytest.approx(case["outputs"]["loss"])


@pytest.mark.parametrize("case", GOLDEN["kl_estimators"], ids=lambda case: case["inputs"]["kind"])
def test_kl_estimators_match_the_golden_cases(case) -> None:
    inputs = case["inputs"]
    estimate = kl_estimate(inputs["kind"], vector(inputs["logp"]), vector(inputs["ref"]))
    torch.testing.assert_close(estimate, vector(case["outputs"]["kl"]))


def test_a_sequence_ratio_is_the_geometric_mean_of_its_tokens_ratios() -> None:
    (case,) = GOLDEN["gspo"]
    inputs, outputs = case["inputs"], case["outputs"]
    keep = vector(inputs["mask"]).bool()
    sequence = torch.tensor([0, 0, 0, 1, 1])
    config = ObjectiveConfig(ratio="sequence", clip_low=inputs["clip_low"], clip_high=inputs["clip_high"])
    old = vector(inputs["old"])[keep]
    advantages = vector(inputs["adv"])[sequence]
    losses = policy_losses(config, vector(inputs["logp"])[keep], old, old, advantages, sequence)
    torch.testing.assert_close(losses.ratio_M, vector(outputs["seq_ratio"])[sequence])
    torch.testing.assert_close(losses.policy_M, vector(outputs["loss_tok"])[keep])
    share = vector(weights("sequence", sequence=sequence.tolist()))
    assert (share @ losses.policy_M).item() == pytest.approx(outputs["loss"])


def test_a_turn_ratio_matches_the_golden_case() -> None:
    (case,) = GOLDEN["turn_ratio"]
    inputs = case["inputs"]
    turn = torch.tensor(inputs["turn"])
    ratio = torch.exp(group_mean(vector(inputs["logp"]) - vector(inputs["logp_old"]), turn))
    torch.testing.assert_close(ratio, vector(case["outputs"]["ratio"])[turn], rtol=1e-6, atol=1e-6)


def test_turns_count_equally_however_long_they_are() -> None:
    # turn 0 has one token, turn 1 three
    assert weights("turn", sequence=[0, 0, 0, 0], turn=[0, 1, 1, 1]) == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])


def test_the_nested_mean_weighs_roles_episodes_turns_and_tokens_equally_at_each_level() -> None:
    # role 0: episode 0 has turns 0 (2 tokens) and 1 (1 token), episode 1 has turn 2 (1 token); role 1: turn 3 (2).
    result = weights(
        "nested",
        sequence=[0, 0, 0, 1, 2, 2],
        role=[0, 0, 0, 0, 1, 1],
        episode=[0, 0, 0, 1, 1, 1],
        turn=[0, 0, 1, 2, 3, 3],
    )
    assert result == pytest.approx([1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 4, 1 / 4])
    assert sum(result) == pytest.approx(1)


def test_the_weight_of_a_turn_multiplies_and_leaves_the_divisor_alone() -> None:
    result = weights("token", sequence=[0, 0, 1, 1], turn=[0, 0, 1, 1], turn_weight=[1.0, 1.0, 0.0, 0.0])
    assert result == [0.25, 0.25, 0.0, 0.0]


def test_aggregation_does_not_depend_on_the_order_of_tokens() -> None:
    ids = {"sequence": [0, 0, 1, 1, 2], "turn": [0, 1, 2, 2, 3], "role": [0, 1, 0, 0, 1], "episode": [0, 0, 1, 1, 1]}
    order = [3, 0, 4, 2, 1]
    straight = weights("nested", **ids)
    shuffled = weights("nested", **{name: [values[i] for i in order] for name, values in ids.items()})
    assert shuffled == pytest.approx([straight[i] for i in order])


def test_the_importance_weight_corrects_the_gap_and_is_truncated() -> None:
    proximal, behaviour = vector([-1.0, -1.0]), torch.log(vector([0.5, 0.01])) - 1.0
    config = ObjectiveConfig(importance_cap=3.0)
    losses = policy_losses(config, proximal, proximal, behaviour, vector([1.0, 1.0]), None)
    torch.testing.assert_close(losses.policy_M, vector([-2.0, -3.0]))  # the ratio itself is 1; 100 is cut to 3
    assert losses.ratio_M.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("case", GOLDEN["importance"], ids=lambda case: case["inputs"]["mode"])
def test_the_importance_weight_matches_the_golden_cases_and_what_is_masked_still_counts(case) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    proximal = torch.full((5,), -1.0, dtype=torch.float64)
    config = ObjectiveConfig(importance=inputs["mode"], importance_cap=inputs["cap"])
    behaviour = proximal - torch.log(vector(inputs["weight"]))
    losses = policy_losses(config, proximal, proximal, behaviour, vector(inputs["adv"]), None)
    torch.testing.assert_close(losses.policy_M, vector(outputs["loss_tok"]))
    assert losses.masked_M.tolist() == outputs["masked"]
    share = vector(weights("token", sequence=[0] * 5))  # a fifth each, of masked ones too
    assert (share @ losses.policy_M).item() == pytest.approx(outputs["loss"])


def test_where_the_ratio_is_that_of_a_sequence_all_of_it_is_masked() -> None:
    config = ObjectiveConfig(importance="mask", importance_cap=2.0, ratio="sequence")
    proximal, sequence = vector([0.0] * 4), torch.tensor([0, 0, 1, 1])
    behaviour = -torch.log(vector([9.0, 1.0, 3.0, 1.0]))  # geometric means 3 and 1.73
    losses = policy_losses(config, proximal, proximal, behaviour, vector([1.0] * 4), sequence)
    assert losses.masked_M.tolist() == [True, True, False, False]
    torch.testing.assert_close(losses.policy_M, vector([0.0, 0.0, -(3**0.5), -(3**0.5)]))


def test_without_a_cap_the_ratio_is_taken_against_the_behaviour() -> None:
    now, behaviour = vector([0.0, 0.0]), torch.log(vector([2.0, 0.5]))
    losses = policy_losses(ObjectiveConfig(importance_cap=None), now, now, behaviour, vector([1.0, 1.0]), None)
    torch.testing.assert_close(losses.policy_M, vector([-0.5, -1.2]))  # ratios 0.5 and 2, the second clipped
    assert losses.clipped_M.tolist() == [False, True]


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient"), [(1.3, 1.0, 0.0), (1.3, -1.0, 1.3), (0.7, 1.0, -0.7), (0.7, -1.0, 0.0)]
)
def test_clipping_stops_the_gradient_only_where_the_ratio_has_gone_far_enough(ratio, advantage, gradient) -> None:
    now = torch.log(vector([ratio])).requires_grad_()
    losses = policy_losses(ObjectiveConfig(), now, vector([0.0]), vector([0.0]), vector([advantage]), None)
    losses.policy_M.sum().backward()
    assert now.grad is not None
    assert now.grad.item() == pytest.approx(gradient)
    assert losses.clipped_M.item() == (gradient == 0)


def test_neither_the_proximal_policy_nor_the_importance_weight_carries_gradient() -> None:
    now = vector([-1.0]).requires_grad_()
    losses = policy_losses(ObjectiveConfig(), now, now, vector([-1.5]), vector([2.0]), None)
    losses.policy_M.sum().backward()
    assert now.grad is not None
    assert now.grad.item() == pytest.approx(-2.0 * torch.tensor(0.5).exp().item())
