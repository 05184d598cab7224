import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from marl_llm.config import KLConfig, LearnerConfig, ObjectiveConfig
from marl_llm.errors import ConfigError, RunError, TrainingError
from marl_llm.learning import state
from marl_llm.learning.learner import Learner, learning_rate
from marl_llm.types import Sample, Span

PLAIN = ObjectiveConfig()
EMA = ObjectiveConfig(kl=KLConfig(reference="ema", coef=0.5, decay=0.9), entropy=0.01)


def make_learner(model, objective=PLAIN, total_steps=10, seed=0, temperature=1.0, **settings) -> Learner:
    config = LearnerConfig(**{"lr": 0.01, "row_tokens": 30, "micro_batch_tokens": 60} | settings)
    return Learner(model, config, objective, temperature=temperature, total_steps=total_steps, seed=seed)


def make_samples(seed: int = 0, episodes: int = 6) -> list[Sample]:
    """Two agents per episode; prompts share their first tokens; behaviour log-probabilities are rough guesses."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(2 * episodes):
        tokens = [1, 2, 3, *rng.integers(20, size=rng.integers(5, 12)).tolist()]
        span = Span(
            start=len(tokens) - 3,
            length=3,
            logprobs=tuple((-3 + 0.2 * rng.standard_normal(3)).tolist()),
            advantages=(float(rng.standard_normal()),) * 3,
            role=f"player_{index % 2}",
            turn=index % 2,
        )
        names = {"episode": f"e{index // 2}", "agent": f"player_{index % 2}"}
        samples.append(Sample(policy="p", game="g", tokens=tuple(tokens), spans=(span,), **names))
    return samples


def timeless(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that do not depend on the clock."""
    return {name: value for name, value in metrics.items() if name != "model_s"}


def copy_weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in learner.weights().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def gradients(learner: Learner) -> list[torch.Tensor]:
    return [parameter.grad for parameter in learner.model.parameters()]


def test_the_gradient_is_that_of_the_plain_loss_on_separate_sequences(make_model, separate_logprobs) -> None:
    samples = make_samples()
    behaviour = torch.tensor([x for s in samples for x in s.spans[0].logprobs])
    advantages = torch.tensor([x for s in samples for x in s.spans[0].advantages])
    plain = make_model()
    now = separate_logprobs(plain, samples)
    importance = torch.exp(now.detach() - behaviour).clamp(max=2.0)
    (-importance * advantages * torch.exp(now - now.detach())).mean().backward()
    learner = make_learner(make_model(), grad_clip=1e9)
    metrics = learner.update(samples)
    for mine, theirs in zip(gradients(learner), (p.grad for p in plain.parameters())):
        torch.testing.assert_close(mine, theirs)
    gap = (now.detach() - behaviour).abs()
    assert metrics["gap_mean"] == pytest.approx(gap.mean().item(), rel=1e-4)
    assert metrics["gap_max"] == pytest.approx(gap.max().item(), rel=1e-4)
    assert metrics["ratio_max"] == 1.0
    assert metrics["sampled_tokens"] == 36
    assert metrics["tokens"] == sum(len(s.tokens) for s in samples)


@pytest.mark.parametrize("aggregation", ["token", "sequence", "turn", "constant", "nested"])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_how_samples_are_packed_and_cut_into_micro_batches_changes_nothing(make_model, aggregation, ratio) -> None:
    objective = replace(EMA, aggregation=aggregation, ratio=ratio)
    one, many = (
        make_learner(make_model(), objective, row_tokens=row, micro_batch_tokens=budget, grad_clip=1e9)
        for row, budget in ((10_000, 10_000), (1, 1))
    )
    metrics = [learner.update(make_samples()) for learner in (one, many)]
    assert metrics[0]["packed_tokens"] < metrics[1]["packed_tokens"]
    for name in ("loss", "policy_loss", "kl", "entropy", "grad_norm", "gap_mean"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-4, abs=1e-6)
    for a, b in zip(gradients(one), gradients(many)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_order_of_samples_changes_nothing_but_rounding(make_model) -> None:
    learners = make_learner(make_model(), EMA, grad_clip=1e9), make_learner(make_model(), EMA, grad_clip=1e9)
    for learner, samples in zip(learners, (make_samples(), make_samples()[::-1])):
        learner.update(samples)
    for a, b in zip(*map(gradients, learners)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_equal_runs_are_bit_identical_and_seeds_differ(make_model) -> None:
    def run(seed: int):
        learner = make_learner(make_model(), EMA, epochs=2, minibatches=3, seed=seed)
        return [timeless(learner.update(make_samples(step))) for step in range(2)], copy_weights(learner)

    metrics, weights = run(0)
    again, weights_again = run(0)
    assert metrics == again
    assert same(weights, weights_again)
    assert not same(weights, run(1)[1])


def test_an_update_uses_no_global_random_state(make_model) -> None:
    learner = make_learner(make_model(), EMA, epochs=2, minibatches=3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    learner.update(make_samples())
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


@pytest.mark.parametrize("reference", ["none", "frozen", "ema", "snapshot"])
def test_a_resumed_learner_goes_on_bit_for_bit(make_model, tmp_path, reference) -> None:
    kl = KLConfig(reference=reference, coef=0.0 if reference == "none" else 0.3, decay=0.9, every=2)
    settings = {"objective": ObjectiveConfig(kl=kl), "schedule": "cosine", "warmup_steps": 2, "minibatches": 2}
    whole = make_learner(make_model(), **settings)
    expected = [timeless(whole.update(make_samples(step))) for step in range(3)][1:]
    first = make_learner(make_model(), **settings)
    first.update(make_samples(0))
    first.save_state(tmp_path / "state")
    model = make_model(seed=5)
    resumed = make_learner(model, **settings)
    model.load_state_dict(copy_weights(first))
    resumed.load_state(tmp_path / "state")
    assert [timeless(resumed.update(make_samples(step))) for step in (1, 2)] == expected
    assert resumed.version == 3
    assert same(copy_weights(resumed), copy_weights(whole))


def test_a_large_state_is_in_several_files(make_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(state, "FILE_BYTES", 20_000)  # 6,128 float32 weights with two moments each: 49,024 bytes
    learner, other = make_learner(make_model()), make_learner(make_model())
    learner.update(make_samples())
    learner.save_state(tmp_path / "state")
    assert len(list((tmp_path / "state").glob("*.safetensors"))) == 3
    other.load_state(tmp_path / "state")
    assert same(learner.state()[0], other.state()[0])


@pytest.mark.parametrize("objective", [PLAIN, EMA], ids=["plain", "ema"])
def test_the_state_of_a_learner_that_has_not_trained_loads_too(make_model, tmp_path, objective) -> None:
    make_learner(make_model(), objective).save_state(tmp_path / "state")
    learner = make_learner(make_model(), objective)
    learner.load_state(tmp_path / "state")
    assert learner.version == 0
    learner.update(make_samples())


def test_a_learner_that_begins_anew_is_like_a_new_one_but_for_its_version(make_model, tmp_path) -> None:
    settings = {"objective": ObjectiveConfig(kl=KLConfig(reference="ema", coef=0.3)), "schedule": "constant"}
    first = copy_weights(make_learner(make_model()))
    learner, fresh = make_learner(make_model(), **settings), make_learner(make_model(), **settings)
    learner.update(make_samples(0))
    learner.restart(first)
    assert learner.version == 1
    learner.save_state(tmp_path / "state")
    restored = make_learner(make_model(), **settings)
    restored.load_state(tmp_path / "state")
    for other in (learner, restored):
        other.update(make_samples(1))
    fresh.update(make_samples(1))
    assert same(copy_weights(learner), copy_weights(fresh))
    assert same(copy_weights(restored), copy_weights(fresh))


def test_a_state_without_what_the_settings_need_is_refused_and_changes_nothing(make_model, tmp_path) -> None:
    plain, fresh = make_learner(make_model()), make_learner(make_model())
    plain.update(make_samples())
    plain.save_state(tmp_path / "plain")
    fresh.save_state(tmp_path / "fresh")
    learner = make_learner(make_model(), EMA)
    with pytest.raises(RunError, match=r"plain: reference.model.embed_tokens.weight is missing or has another shape"):
        learner.load_state(tmp_path / "plain")
    assert learner.state()[1] == fresh.state()[1]
    (tmp_path / "fresh" / "learner.json").write_text('{"version": 1, "stepped": true}')
    with pytest.raises(RunError, match=r"optimizer.model.embed_tokens.weight.step is missing"):
        fresh.load_state(tmp_path / "fresh")
    wider = make_learner(make_model(vocab_size=24))
    with pytest.raises(RunError, match=r"optimizer.model.embed_tokens.weight.exp_avg is missing or has another shape"):
        wider.load_state(tmp_path / "plain")
    with pytest.raises(RunError, match=r"nowhere: learner.json is missing"):
        learner.load_state(tmp_path / "nowhere")


def test_the_frozen_reference_stays_and_the_ema_follows(make_model) -> None:
    start = dict(make_model().named_parameters())
    for kind, share in (("frozen", 0.0), ("ema", 0.1)):
        objective = ObjectiveConfig(kl=KLConfig(reference=kind, coef=0.1, decay=0.9))
        learner = make_learner(make_model(), objective)
        learner.update(make_samples())
        tensors, _ = learner.state()
        for name, weight in learner.model.named_parameters():
            expected = start[name] + share * (weight - start[name])
            torch.testing.assert_close(tensors[f"reference.{name}"], expected.detach())


def test_a_snapshot_is_taken_every_so_many_steps(make_model) -> None:
    learner = make_learner(make_model(), ObjectiveConfig(kl=KLConfig(reference="snapshot", coef=0.1, every=2)))
    kl = [learner.update(make_samples(step))["kl"] for step in range(4)]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert kl[1] > 1e-4
    assert kl[2] == pytest.approx(0, abs=1e-6)
    assert kl[3] > 1e-4


def test_a_strong_pull_keeps_the_policy_near_the_reference(make_model) -> None:
    def final_kl(coef: float, kind: str) -> float:
        kl = KLConfig(reference="frozen", coef=coef, kind=kind)
        learner = make_learner(make_model(), ObjectiveConfig(kl=kl), schedule="constant", lr=0.003)
        return [learner.update(make_samples())["kl"] for _ in range(12)][-1]

    free = final_kl(0.0, "full")
    assert final_kl(10.0, "full") < 0.2 * free
    assert final_kl(10.0, "k2") < 0.2 * final_kl(0.0, "k2")


def test_the_entropy_bonus_goes_in_a_straight_line_to_its_final_weight(make_model) -> None:
    learner = make_learner(make_model(), ObjectiveConfig(entropy=1.0, entropy_final=0.0), total_steps=2, lr=0.0)
    first, second, third = (learner.update(make_samples()) for _ in range(3))
    assert first["entropy_loss"] == pytest.approx(-first["entropy"], rel=1e-5)
    assert second["entropy_loss"] == pytest.approx(-second["entropy"] / 2, rel=1e-5)
    assert third["entropy_loss"] == 0


def test_the_entropy_bonus_raises_entropy(make_model) -> None:
    silent = [replace(s, spans=tuple(replace(x, advantages=(0.0,) * 3) for x in s.spans)) for s in make_samples()]
    learner = make_learner(make_model(), ObjectiveConfig(entropy=1.0), schedule="constant")
    entropies = [learner.update(silent)["entropy"] for _ in range(5)]
    assert entropies == sorted(entropies)
    assert entropies[-1] > entropies[0] + 0.05


def test_later_optimizer_steps_clip_against_the_policy_before_the_update(make_model) -> None:
    learner = make_learner(make_model(), epochs=4, lr=0.03, schedule="constant")
    metrics = learner.update(make_samples())
    assert metrics["ratio_max"] > 1.2
    assert metrics["clip_fraction"] > 0
    again = make_learner(make_model(), epochs=1).update(make_samples())
    assert metrics["gap_mean"] == pytest.approx(again["gap_mean"], rel=1e-5)


def test_masked_tokens_have_no_policy_loss_and_are_counted(make_model, separate_logprobs) -> None:
    samples = make_samples()
    now = separate_logprobs(make_model(), samples).detach()
    behaviour = torch.tensor([x for s in samples for x in s.spans[0].logprobs])
    outside = (now - behaviour).abs() > math.log(1.5)
    assert 0 < outside.sum() < len(outside)
    advantages = torch.tensor([x for s in samples for x in s.spans[0].advantages])
    objective = replace(EMA, importance="mask", importance_cap=1.5)
    metrics = make_learner(make_model(), objective).update(samples)
    assert metrics["masked_fraction"] == pytest.approx(outside.float().mean().item())
    expected = -(torch.exp(now - behaviour) * advantages * ~outside).mean().item()
    assert metrics["policy_loss"] == pytest.approx(expected, rel=1e-4)
    truncated = make_learner(make_model(), replace(objective, importance="truncate")).update(samples)
    assert truncated["masked_fraction"] == 0
    assert metrics["entropy_loss"] == truncated["entropy_loss"]


def test_keeping_only_what_goes_into_layers_changes_no_gradient_and_little_stays(make_model) -> None:
    def run(**settings):
        learner = make_learner(make_model(), EMA, grad_clip=1e9, micro_batch_tokens=10**6, row_tokens=10**6, **settings)
        kept = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            metrics = learner.update(make_samples(episodes=40))
        return timeless(metrics), gradients(learner), sum(kept)

    metrics, grads, kept = run()
    again, same_grads, few = run(checkpoint_activations=True)
    assert again == metrics
    assert all(a.equal(b) for a, b in zip(grads, same_grads))
    assert few < kept / 4


def test_how_many_positions_have_logits_at_a_time_changes_nothing_but_rounding(make_model) -> None:
    one, few = (make_learner(make_model(), EMA, grad_clip=1e9, logit_tokens=tokens) for tokens in (None, 3))
    metrics = [learner.update(make_samples()) for learner in (one, few)]
    assert metrics[0]["loss"] == pytest.approx(metrics[1]["loss"], rel=1e-5)
    for a, b in zip(*map(gradients, (one, few))):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_positive_advantages_make_the_sampled_tokens_likelier(make_model, separate_logprobs) -> None:
    good = [replace(s, spans=tuple(replace(x, advantages=(1.0,) * 3) for x in s.spans)) for s in make_samples()]
    learner = make_learner(make_model(tied=True), schedule="constant")
    before = separate_logprobs(learner.model, good).mean().item()
    for _ in range(5):
        learner.update(good)
    assert separate_logprobs(learner.model, good).mean().item() > before + 0.3


def test_imitation_lowers_the_loss_and_leaves_version_optimizer_and_reference_fresh(make_model) -> None:
    learner = make_learner(make_model(), EMA)
    losses = [learner.imitate(make_samples(), lr=0.01) for _ in range(20)]
    assert losses[0] == pytest.approx(-math.log(1 / 20), abs=1.5)
    assert losses[-1] < 0.5 * losses[0]
    tensors, values = learner.state()
    assert values == {"version": 0, "stepped": False}
    assert not any(name.startswith("optimizer.") for name in tensors)
    assert all(torch.equal(tensors[f"reference.{n}"], p) for n, p in learner.model.named_parameters())


def test_imitation_reads_demonstrations_and_an_update_refuses_them(make_model) -> None:
    demonstrations = [
        replace(s, spans=tuple(replace(x, logprobs=None, advantages=None) for x in s.spans)) for s in make_samples()
    ]
    learner = make_learner(make_model())
    assert learner.imitate(demonstrations, lr=0.0) == make_learner(make_model()).imitate(make_samples(), lr=0.0)
    with pytest.raises(ValueError, match="demonstration"):
        learner.update(demonstrations)


def spoiled(field: str, value: float) -> list[Sample]:
    """Samples of which the last token of episode e3, player_1 has a bad number."""
    samples = make_samples()
    span = samples[7].spans[0]
    samples[7] = replace(samples[7], spans=(replace(span, **{field: (*getattr(span, field)[:-1], value)}),))
    return samples


@pytest.mark.parametrize(
    ("field", "value", "term"),
    [
        ("advantages", math.nan, "policy loss"),
        ("advantages", math.inf, "policy loss"),
        ("logprobs", -math.inf, "gap between engine and learner"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_step_and_names_the_turn(make_model, field, value, term) -> None:
    learner = make_learner(make_model(), EMA)
    learner.update(make_samples())
    before = copy_weights(learner)
    with pytest.raises(TrainingError, match=f"step 1: not finite: {term}.*episode e3, agent player_1, turn 1$"):
        learner.update(spoiled(field, value))
    assert same(before, copy_weights(learner))
    assert learner.version == 1
    learner.update(make_samples())  # nothing of the bad step is left


def test_a_gradient_that_is_not_finite_stops_the_step_and_names_the_turn(make_model) -> None:
    learner = make_learner(make_model())
    before = copy_weights(learner)
    with pytest.raises(TrainingError, match=r"gradient.*not finite alone: episode e3, agent player_1, turn 1$"):
        learner.update(spoiled("advantages", 3e38))  # finite, and so is the loss; the squares of the gradient are not
    assert same(before, copy_weights(learner))
    assert learner.version == 0


def test_broken_weights_are_reported_as_log_probabilities(make_model) -> None:
    learner = make_learner(make_model())
    with torch.no_grad():
        learner.model.lm_head.weight[0] = math.inf
    with pytest.raises(TrainingError, match="step 0: not finite: log-probability; no step was taken; in episode e0"):
        learner.imitate(make_samples(), lr=0.1)


def test_an_update_without_sampled_tokens_is_refused(make_model) -> None:
    learner = make_learner(make_model())
    for act in (lambda: learner.update([]), lambda: learner.imitate([], lr=0.1)):
        with pytest.raises(TrainingError, match="no sample"):
            act()


def test_an_unknown_or_missing_device_is_refused(make_model) -> None:
    with pytest.raises(ConfigError, match=r"learner.device: 'abacus' is not available"):
        make_learner(make_model(), device="abacus")


def test_bfloat16_stays_close_and_keeps_float32_weights(make_model) -> None:
    exact, rough = make_learner(make_model()), make_learner(make_model(), dtype="bfloat16")
    a, b = exact.update(make_samples()), rough.update(make_samples())
    assert b["gap_mean"] == pytest.approx(a["gap_mean"], rel=0.05)
    assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=0.1)
    assert {weight.dtype for weight in rough.weights().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.55, 0.1]),
        ("cosine", [0.5, 1.0, 1.0, 0.55, 0.1]),
    ],
)
def test_the_learning_rate_rises_then_decays(schedule: str, expected: list[float]) -> None:
    config = LearnerConfig(lr=2.0, schedule=schedule, final=0.1, warmup_steps=2)
    rates = [learning_rate(config, step, total_steps=10) for step in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([2 * rate for rate in expected])


def test_a_learning_rate_of_zero_changes_nothing(make_model) -> None:
    learner = make_learner(make_model(), lr=0.0)
    before = copy_weights(learner)
    learner.update(make_samples())
    assert same(before, copy_weights(learner))
