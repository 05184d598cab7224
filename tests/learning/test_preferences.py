"""Preference pairs: which they are, the gradient of their loss, and that learning from them prefers what is better."""

from dataclasses import replace

import pytest
import torch

from marl_llm.config import KLConfig, LearnerConfig, ObjectiveConfig, PolicyConfig, PreferenceConfig
from marl_llm.errors import ConfigError
from marl_llm.learning.batch import flatten
from marl_llm.learning.learner import Learner
from marl_llm.learning.preferences import Preferences
from marl_llm.types import Sample, Span

FROZEN = KLConfig(reference="frozen")
BOTH = ObjectiveConfig(kl=FROZEN, preference=PreferenceConfig(beta=0.5, imitation=0.2))


def said(episode: str, prompt: tuple[int, ...], reply: tuple[int, ...], value: float) -> Sample:
    span = Span(
        start=len(prompt),
        length=len(reply),
        logprobs=(-3.0,) * len(reply),
        advantages=(value,) * len(reply),
        role="verifier",
        turn=1,
    )
    return Sample(policy="p", game="g", episode=episode, agent="a_0", tokens=prompt + reply, spans=(span,))


ONE, OTHER = (1, 2, 3), (1, 4)
SAMPLES = [
    said("a", ONE, (5, 6), 1.0),
    said("b", ONE, (7, 8, 9), 0.0),
    said("c", ONE, (5, 6), 0.5),  # not above the threshold, but what `a` says
    said("d", OTHER, (5, 6, 7, 8), 0.75),
    said("e", OTHER, (9,), 2 / 3),
]


def make(model, objective=BOTH, **settings) -> Learner:
    config = LearnerConfig(**{"lr": 0.01, "grad_clip": 1e9} | settings)
    return Learner(model, config, objective, temperature=1.0, total_steps=10, seed=0)


def test_pairs_are_of_one_prompt_on_both_sides_of_the_threshold_and_differ() -> None:
    pairs = Preferences.make(SAMPLES, flatten(SAMPLES), PreferenceConfig())
    assert list(zip(pairs.chosen_P.tolist(), pairs.rejected_P.tolist())) == [(0, 1)]
    assert pairs.good_T.tolist() == [True, False, False, True, True]
    low = Preferences.make(SAMPLES, flatten(SAMPLES), PreferenceConfig(threshold=0.7))
    assert list(zip(low.chosen_P.tolist(), low.rejected_P.tolist())) == [(0, 1), (3, 4)]


def test_coefficients_are_those_worked_out_by_hand() -> None:
    """One pair with margin 2 ((-1) - (-2)) - ((-3) - (-2)), one token each: loss log(1 + exp(-0.5 * 2))."""
    samples = [said("a", ONE, (5,), 1.0), said("b", ONE, (6,), 0.0)]
    pairs = Preferences.make(samples, flatten(samples), PreferenceConfig(beta=0.5, imitation=0.2))
    coefficients_N, metrics = pairs.coefficients(torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -2.0]))
    push = 0.5 / (1 + torch.e)
    assert coefficients_N.tolist() == pytest.approx([-push - 0.2, push])
    assert metrics == pytest.approx(
        {"preference_loss": 0.31326, "imitation_loss": 1.0, "pairs": 1.0, "preferred": 1.0, "margin": 2.0}, abs=1e-5
    )


def test_the_gradient_is_that_of_the_loss_on_separate_sequences(make_model, separate_logprobs) -> None:
    plain = make_model()
    reference_N = separate_logprobs(make_model(), SAMPLES).detach() + 0.1  # as the reference is not the policy
    now = torch.split(separate_logprobs(plain, SAMPLES), [2, 3, 2, 4, 1])
    gain = [n.sum() - r.sum() for n, r in zip(now, torch.split(reference_N, [2, 3, 2, 4, 1]))]
    loss = -torch.nn.functional.logsigmoid(0.5 * (gain[0] - gain[1]))
    loss = loss - 0.2 * (now[0].mean() + now[3].mean() + now[4].mean()) / 3
    loss.backward()
    learner = make(make_model(), row_tokens=8, micro_batch_tokens=8)
    table = flatten(SAMPLES)
    coefficients_N, _ = Preferences.make(SAMPLES, table, BOTH.preference).coefficients(
        torch.cat(now).detach(), reference_N
    )
    learner._weighted_step(coefficients_N, table.tokens_N, SAMPLES, learner._micro_batches(SAMPLES), 0.01)
    for mine, theirs in zip(learner.model.parameters(), plain.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_what_is_preferred_becomes_likelier_than_what_is_not(make_model) -> None:
    learner = make(make_model(), lr=0.001)
    first = learner.update(SAMPLES)
    for _ in range(9):
        last = learner.update(SAMPLES)
    assert first["pairs"] == last["pairs"] == 1.0
    assert last["preferred"] == 1.0
    assert last["margin"] > 1
    assert first["margin"] == 0.0  # the reference is what it begins as
    assert last["preference_loss"] < first["preference_loss"]
    assert learner.version == 10


def test_without_a_pair_the_weights_stay(make_model) -> None:
    alike = ObjectiveConfig(kl=FROZEN, preference=PreferenceConfig())
    learner = make(make_model(), alike)
    before = {name: weight.clone() for name, weight in learner.weights().items()}
    metrics = learner.update([replace(sample) for sample in SAMPLES[3:]])
    assert metrics["pairs"] == 0.0
    assert all(torch.equal(before[name], weight) for name, weight in learner.weights().items())


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.kl\.reference: 'none'"):
        ObjectiveConfig(preference=PreferenceConfig())
    with pytest.raises(ConfigError, match=r"objective\.preference\.beta: 0\.0"):
        PreferenceConfig(beta=0.0)
    with pytest.raises(ConfigError, match=r"learner\.minibatches: 2"):
        PolicyConfig(objective=BOTH, learner=LearnerConfig(minibatches=2))
