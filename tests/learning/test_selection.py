"""What the loss does to single tokens: worked numbers, and that it does not depend on how a batch is cut."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marl_llm.config import (
    CovarianceConfig,
    DiscriminateConfig,
    HapoConfig,
    LearnerConfig,
    ObjectiveConfig,
    SmoothConfig,
)
from marl_llm.learning.batch import flatten
from marl_llm.learning.discriminate import Discrimination
from marl_llm.learning.learner import Learner
from marl_llm.learning.objective import clipped_loss, group_mean, kl_estimate, policy_losses
from marl_llm.learning.selection import (
    TokenPlan,
    covariance,
    drawn_between,
    entropy_bounds,
    entropy_penalty,
    entropy_rank,
    largest,
    redistributed,
    smoothing,
)
from marl_llm.types import Sample
from tests.credit.cases import cases
from tests.learning.small import make_qwen3, together
from tests.learning.test_learner import copy_weights, make_learner, make_samples, same, timeless

CLIP_COV = ObjectiveConfig(covariance=CovarianceConfig(share=0.2, low=0.05, high=5.0), clip_low=1.0, clip_high=1.0)
KL_COV = ObjectiveConfig(covariance=CovarianceConfig(kind="kl", share=0.2, coef=3.0))
HAPO = ObjectiveConfig(hapo=HapoConfig())
EPO = ObjectiveConfig(entropy=0.1, smooth=SmoothConfig(low=0.95, high=1.05, penalty=50.0, weight=2.0))
BOUND = ObjectiveConfig(log_ratio_bound=0.01, importance_cap=None)
DRPO = ObjectiveConfig(discriminate=DiscriminateConfig(threshold=0.0, longest=12, tau=0.5))
METHODS = {"clip_cov": CLIP_COV, "kl_cov": KL_COV, "hapo": HAPO, "epo": EPO, "bound": BOUND}


def vector(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def near(actual: torch.Tensor, expected: Any) -> None:
    torch.testing.assert_close(actual, vector(expected), rtol=1e-6, atol=1e-6)


def lively(seed: int = 0) -> list[Sample]:
    """Samples with turns of an episode, four tokens each, whose advantages differ within a sequence."""
    draws = np.random.default_rng(seed)
    samples = []
    for sample in make_samples(seed):
        (span,) = sample.spans
        advantages = tuple(draws.standard_normal(3).tolist())
        samples.append(replace(sample, spans=(replace(span, advantages=advantages),)))
    return samples


@cases("ppo_clip")
def test_ppo_clip(case: Any) -> None:
    inputs = case["inputs"]
    bounds = inputs["clip_low"], inputs["clip_high"], inputs["dual_clip"]
    near(clipped_loss(vector(inputs["ratio"]), vector(inputs["adv"]), *bounds), case["outputs"]["loss"])


@cases("kl_estimators")
def test_kl_estimators(case: Any) -> None:
    inputs = case["inputs"]
    near(kl_estimate(inputs["kind"], vector(inputs["logp"]), vector(inputs["ref"])), case["outputs"]["kl"])


@cases("gspo")
def test_gspo(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    keep = vector(inputs["mask"]).bool()
    sequence = torch.nonzero(keep)[:, 0]
    objective = ObjectiveConfig(ratio="sequence", clip_low=inputs["clip_low"], clip_high=inputs["clip_high"])
    old = vector(inputs["old"])[keep]
    losses = policy_losses(objective, vector(inputs["logp"])[keep], old, old, vector(inputs["adv"])[sequence], sequence)
    near(losses.policy_M, vector(outputs["loss_tok"])[keep].tolist())
    near(losses.ratio_M, vector(outputs["seq_ratio"])[sequence].tolist())
    assert group_mean(losses.policy_M, sequence)[[0, 3]].mean().item() == pytest.approx(outputs["loss"], rel=1e-5)


@cases("rema_turn_ratio")
def test_rema_turn_ratio(case: Any) -> None:
    inputs = case["inputs"]
    now, old, turn = vector(inputs["logp"]), vector(inputs["logp_old"]), torch.tensor(inputs["turn"])
    losses = policy_losses(ObjectiveConfig(ratio="turn"), now, old, old, torch.ones_like(now), turn)
    near(losses.ratio_M, vector(case["outputs"]["ratio"])[turn].tolist())


@cases("stable_reinforce_preclip")
def test_stable_reinforce_preclip(case: Any) -> None:
    now = vector(case["inputs"]["log_ratio"])
    objective = ObjectiveConfig(log_ratio_bound=math.log(1000), clip_low=1.0, clip_high=math.inf)
    zeros = torch.zeros_like(now)
    losses = policy_losses(objective, now, zeros, zeros, torch.ones_like(now), None)
    near(losses.ratio_M, case["outputs"]["ratio"])
    near(losses.ratio_M.log(), case["outputs"]["log_ratio"])


@cases("clip_cov")
def test_clip_cov(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    draws = np.random.default_rng(0)
    if "n_valid" in inputs:
        cov = torch.ones(inputs["n_valid"])
        free = torch.zeros(inputs["n_valid"], dtype=torch.bool)
        chosen = drawn_between(cov, free, share=inputs["ratio"], low=0.5, high=2.0, draws=draws)
        assert int(chosen.sum()) == outputs["k"]
        return
    keep = vector(inputs["mask"]).bool()
    now, old, adv = (vector(inputs[name])[keep] for name in ("logp", "old", "adv"))
    cov = covariance(now, adv)
    near(cov, vector(outputs["cov"])[keep].tolist())
    objective = ObjectiveConfig(clip_low=inputs["clip_low"], clip_high=inputs["clip_high"])
    plain = policy_losses(objective, now, old, old, adv, None)
    near(plain.policy_M, vector(outputs["loss_tok"])[keep].tolist())
    between = {"low": inputs["lb"], "high": inputs["ub"], "draws": draws}
    candidates = torch.tensor(outputs["candidates"])[keep]
    two = drawn_between(cov, plain.clipped_M, share=inputs["ratio"], **between)
    assert int(two.sum()) == outputs["k"]
    assert not (two & ~candidates).any()
    every = drawn_between(cov, plain.clipped_M, share=1.0, **between)
    assert every.tolist() == candidates.tolist()
    all_out = policy_losses(objective, now, old, old, adv, None, TokenPlan(left_out_N=every))
    near(all_out.policy_M, vector(outputs["loss_tok_if_ratio_1"])[keep].tolist())


@cases("kl_cov")
def test_kl_cov(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    keep = vector(inputs["mask"]).bool()
    now, old, adv = (vector(inputs[name])[keep] for name in ("logp", "old", "adv"))
    cov = covariance(now, adv)
    near(cov, vector(outputs["cov"])[keep].tolist())
    pulled = largest(cov, inputs["ratio"])
    assert pulled.tolist() == torch.tensor(outputs["selected"])[keep].tolist()
    objective = ObjectiveConfig(covariance=CovarianceConfig(kind="kl", coef=inputs["coef"]))
    losses = policy_losses(objective, now, old, old, adv, None, TokenPlan(pulled_N=pulled))
    near(losses.policy_M, vector(outputs["loss_tok"])[keep].tolist())
    moved = policy_losses(objective, now - 0.5, now, now, adv, None, TokenPlan(pulled_N=pulled))
    near(moved.policy_M - (-adv * math.exp(-0.5)), (0.5 * pulled).tolist())


@cases("hapo_h")
def test_hapo_h(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    keep = vector(inputs["mask"]).bool()
    h = entropy_rank(
        vector(inputs["entropy"])[keep],
        quantile=inputs.get("pivot", 0.8),
        signed=inputs.get("signed", True),
    )
    near(h, vector(outputs["h"])[keep].tolist())
    if "scale_pos" in outputs:  # the standard deviation cancels: h is a share of the extreme on its side
        above = torch.log(vector(inputs["entropy"])[keep]) - outputs["pivot"]
        std = above.square().mean().sqrt().item()
        assert std == pytest.approx(outputs["std"])
        assert std / above.max().item() == pytest.approx(outputs["scale_pos"])
        assert std / -above.min().item() == pytest.approx(outputs["scale_neg"])


def test_h_is_zero_where_all_entropies_are_equal() -> None:
    assert entropy_rank(torch.full((4,), 0.7)).tolist() == [0.0] * 4


@cases("hapo_clip")
def test_hapo_clip(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    low, high = entropy_bounds(vector(inputs["h"]), inputs["clip_low"], inputs["clip_high"], inputs["alpha"])
    near(low, outputs["clip_low"])
    near(high, outputs["clip_high"])


@cases("hapo_redistribution")
def test_hapo_redistribution(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    h, ratio, adv = vector(inputs["h"]), vector(inputs["ratio"]), vector(inputs["adv"])
    bounds = vector(inputs["clip_low"]), vector(inputs["clip_high"])
    near(redistributed(adv, h, ratio, bounds, inputs["beta"]), outputs["adv"])
    # And in the loss: -A' times the ratio, which is clipped at the bounds of its h.
    objective = ObjectiveConfig(hapo=HapoConfig(redistribute=inputs["beta"]))
    zeros = torch.zeros_like(adv)
    losses = policy_losses(objective, ratio.log(), zeros, zeros, adv, None, TokenPlan(h_N=h))
    near(losses.policy_M, (-vector(outputs["adv"]) * torch.minimum(ratio, 1 + bounds[1])).tolist())


@cases("epo_penalty")
def test_epo_penalty(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    bounds = {"low": inputs["lo"], "high": inputs["hi"], "penalty": inputs["pen"]}
    entropy, usual = vector(inputs["entropy"]), vector(inputs["history"])[:, None].expand(2, 3)
    if inputs["mode"] == "seq":
        entropy = entropy.mean(1, keepdim=True).expand(2, 3)
    near(entropy_penalty(SmoothConfig(form="indicator", **bounds), entropy, usual), outputs["penalty"])
    hinge = entropy_penalty(SmoothConfig(form="hinge", **bounds), entropy.clone().requires_grad_(), usual)
    out = (vector(bounds["low"]) * usual - entropy).clamp(min=0) + (entropy - bounds["high"] * usual).clamp(min=0)
    near(hinge.detach(), (inputs["pen"] * out).tolist())
    assert ((hinge > 0) <= (vector(outputs["penalty"]) > 0)).all()
    hinge.sum().backward()


def test_only_the_hinge_has_a_gradient_and_what_is_not_known_costs_nothing() -> None:
    entropy, usual = vector([0.3, 1.4, 0.8, 9.0]).requires_grad_(), vector([0.8, 0.8, 0.8, math.nan])
    entropy_penalty(SmoothConfig(), entropy, usual).sum().backward()
    assert entropy.grad is not None
    near(entropy.grad, [-0.1, 0.1, 0.0, 0.0])
    told = entropy_penalty(SmoothConfig(form="indicator"), entropy, usual)
    assert not told.requires_grad
    near(told, [0.1, 0.1, 0.0, 0.0])


@cases("epo_weight")
def test_epo_weight(case: Any) -> None:
    assert smoothing(case["inputs"]["step"], case["inputs"]["total"]) == pytest.approx(case["outputs"]["weight"])


@cases("epo_loss")
def test_epo_loss(case: Any) -> None:
    inputs = case["inputs"]
    factor = smoothing(inputs["step"], inputs["total"])
    strayed = inputs["smooth"] * factor * inputs["penalty_mean"]
    loss = inputs["pg"] + inputs["coef"] * (strayed - inputs["entropy_mean"])
    assert loss == pytest.approx(case["outputs"]["loss"])


def replies(case: Any) -> tuple[list[Sample], torch.Tensor]:
    """One prompt with replies of these lengths, a hundredth of them, and log-probabilities of their means."""
    inputs = case["inputs"]
    template = make_samples()[0]
    samples, now = [], []
    for i, (score, right, length) in enumerate(zip(inputs["scores"], inputs["correct"], inputs["lengths"])):
        size = length // 100
        span = replace(
            template.spans[0], start=2, length=size, logprobs=(0.0,) * size, advantages=(float(right),) * size
        )
        tokens = (1, 2, *[i] * size)
        samples.append(replace(template, episode=f"e{i}", tokens=tokens, spans=(span,)))
        now += [score] * size
    return samples, vector(now)


@cases("drpo")
def test_drpo(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    samples, now = replies(case)
    # Lengths are whole hundreds, and so is the longest here, in effect: 8192 = 81.92 hundreds.
    lam = inputs["lam"] * inputs["l_max"] / 8200
    config = DiscriminateConfig(tau=inputs["tau"], lam=lam, longest=82)
    coefficient, told = Discrimination.make(samples, flatten(samples), config).coefficients(now, now)
    assert told["prompts"] == (not outputs["skip"])
    if outputs["skip"]:
        assert told["discriminative_loss"] == 0.0
        assert not coefficient.any()
        return
    assert told["discriminative_loss"] == pytest.approx(-outputs["objective"], rel=1e-6)
    lengths = [length // 100 for length in inputs["lengths"]]
    sums = torch.stack([part.sum() for part in torch.split(coefficient, lengths)])
    near(-sums, outputs["coef_on_mean_logp"])
    near(-sums.clamp(max=0), outputs["w_pos"])
    near(sums.clamp(min=0), outputs["w_neg"])
    moved, told = Discrimination.make(samples, flatten(samples), config).coefficients(now, now + 0.01)
    near(moved - coefficient, [-1000 * (0.01 - 1e-4) / len(now)] * len(now))
    assert told["moved"] == pytest.approx(0.01)
    slack = replace(config, drift=0.004, drift_coef=10.0)
    moved, _ = Discrimination.make(samples, flatten(samples), slack).coefficients(now, now + 0.01)
    near(moved - coefficient, [-10 * 0.006 / len(now)] * len(now))
    back, _ = Discrimination.make(samples, flatten(samples), slack).coefficients(now, now - 0.01)
    near(back, coefficient.tolist())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_changes_what_is_learned_and_how_the_batch_is_cut_does_not(name: str) -> None:
    def learned(objective: ObjectiveConfig, **settings: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        learner = make_learner(make_qwen3(), objective, epochs=2, **settings)
        learner.update(lively())
        metrics = learner.update(lively(1))
        return copy_weights(learner), metrics

    objective = METHODS[name]
    weights, metrics = learned(objective)
    cut, cut_metrics = learned(objective, row_tokens=1, micro_batch_tokens=1)
    for key, weight in weights.items():
        torch.testing.assert_close(cut[key], weight, rtol=1e-3, atol=2e-4)
    shared = ("loss", "policy_loss", "entropy_loss", "clip_fraction", "grad_norm")
    assert {k: cut_metrics[k] for k in shared} == pytest.approx({k: metrics[k] for k in shared}, rel=1e-3, abs=1e-4)
    off = replace(objective, covariance=None, hapo=None, smooth=None, log_ratio_bound=None)
    assert not same(learned(off)[0], weights)


def learned_by(processes: int, name: str) -> dict[str, float]:
    config = LearnerConfig(lr=0.01, row_tokens=30, micro_batch_tokens=60, processes=processes)
    learner = Learner(make_qwen3(), config, {**METHODS, "drpo": DRPO}[name], temperature=1.0, total_steps=10, seed=0)
    learner.update(lively())
    return timeless(learner.update(lively(1)))


@pytest.mark.parametrize("name", ["clip_cov", "epo"])
def test_several_processes_decide_what_one_does(name: str) -> None:
    alone = learned_by(1, name)
    for told in together(2, learned_by, name):
        shared = ("loss", "entropy_loss", "grad_norm", "entropy")
        assert {k: told[k] for k in shared} == pytest.approx({k: alone[k] for k in shared}, rel=1e-3, abs=1e-4)


def test_what_entropies_were_is_remembered_over_steps_and_a_saved_state(tmp_path: Path) -> None:
    learner = make_learner(make_qwen3(), EPO)
    first = learner.update(lively())
    plain = make_learner(make_qwen3(), replace(EPO, smooth=None)).update(lively())
    assert timeless(first) == timeless(plain), "there is nothing to be held against"
    learner.save_state(tmp_path / "state")
    weights = copy_weights(learner)
    second = learner.update(lively(1))
    model = make_qwen3()
    model.load_state_dict(weights)
    resumed = make_learner(model, EPO)
    resumed.load_state(tmp_path / "state")
    assert timeless(resumed.update(lively(1))) == timeless(second)
    assert learner.state()[1]["entropies"] == resumed.state()[1]["entropies"]
    assert [(place, count) for place, _, count in learner.state()[1]["entropies"]] == [(0, 12), (1, 12)]


@pytest.mark.parametrize("change", [{"level": "turn"}, {"form": "indicator"}, {"turns": 1}, {"high": 9.0, "low": 0.0}])
def test_every_setting_of_epo_changes_its_loss(change: dict[str, Any]) -> None:
    def told(smooth: SmoothConfig) -> float:
        learner = make_learner(make_qwen3(), replace(EPO, smooth=smooth))
        learner.update(lively())
        return learner.update(lively(1))["entropy_loss"]

    assert EPO.smooth is not None
    assert told(EPO.smooth) != pytest.approx(told(replace(EPO.smooth, **change)), rel=1e-4)


@pytest.mark.parametrize("change", [{"clip": 0.0}, {"redistribute": 0.0}, {"quantile": 0.2}, {"signed": False}])
def test_every_setting_of_hapo_changes_what_is_learned(change: dict[str, Any]) -> None:
    def learned(hapo: HapoConfig) -> dict[str, torch.Tensor]:
        learner = make_learner(make_qwen3(), ObjectiveConfig(hapo=hapo), epochs=4, lr=0.05)
        learner.update(lively())
        return copy_weights(learner)

    assert not same(learned(HapoConfig()), learned(HapoConfig(**change)))


def alike() -> list[Sample]:
    """Two prompts with six different replies each, of values from -1 to 1."""
    samples = lively()
    return [
        replace(s, tokens=(1, 2, 3 + i % 2, *s.tokens[-3:]), spans=(replace(s.spans[0], start=3),))
        for i, s in enumerate(samples)
    ]


def shortened(sample: Sample, length: int) -> Sample:
    (span,) = sample.spans
    assert span.advantages is not None
    cut = replace(span, length=length, logprobs=(-1.0,) * length, advantages=span.advantages[:length])
    return replace(sample, tokens=sample.tokens[: span.start + length], spans=(cut,))


def test_right_replies_become_likelier_than_wrong_ones() -> None:
    learner = make_learner(make_qwen3(), DRPO, lr=0.02)
    assert learner.by_pairs
    losses = [learner.update(alike())["discriminative_loss"] for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert learner.update(alike())["prompts"] == 2
    one = make_learner(make_qwen3(), DRPO, row_tokens=1, micro_batch_tokens=1).update(alike())
    assert timeless(one) == pytest.approx(timeless(make_learner(make_qwen3(), DRPO).update(alike())), rel=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"tau": 9.0},
        {"lam": 9.0},
        {"longest": 99},
        {"threshold": 0.9},
    ],
)
def test_every_setting_of_drpo_changes_what_is_learned(change: dict[str, Any]) -> None:
    def learned(config: DiscriminateConfig) -> dict[str, torch.Tensor]:
        learner = make_learner(make_qwen3(), ObjectiveConfig(discriminate=config), epochs=3)
        learner.update([shortened(sample, 1 + i % 3) for i, sample in enumerate(alike())])
        return copy_weights(learner)

    assert DRPO.discriminate is not None
    assert not same(learned(DRPO.discriminate), learned(replace(DRPO.discriminate, **change)))
