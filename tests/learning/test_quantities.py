"""What a learner tells of sampled tokens is what a plain pass of each sequence alone says."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from marl_llm.config import KLConfig, LearnerConfig, ObjectiveConfig
from marl_llm.learning.learner import Learner
from marl_llm.learning.quantities import MEASURED, effective_rank, ranks
from marl_llm.types import Sample
from tests.credit.cases import cases
from tests.learning.small import make_qwen3, together
from tests.learning.test_learner import make_learner, make_samples

REFERENCE = ObjectiveConfig(kl=KLConfig(reference="frozen", coef=0.1))
TEMPERATURE = 0.7


def trees() -> list[Sample]:
    """Sequences that share their beginnings, the first of them with two turns."""
    samples = make_samples()
    first = samples[0]
    turn = replace(first.spans[0], start=4, length=2, turn=7, logprobs=(-1.0,) * 2, advantages=(0.0,) * 2)
    return [replace(first, spans=(turn, replace(first.spans[0], start=first.spans[0].start))), *samples[1:]]


def plain(name: str, model: Any, samples: list[Sample]) -> list[float]:
    """The quantity by a pass of each whole sequence alone."""
    result: list[float] = []
    for sample in samples:
        ids = torch.tensor([sample.tokens])
        with torch.no_grad():
            raw_TV = model(input_ids=ids, use_cache=False).logits[0]
            hidden_TH = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        logprobs_TV = torch.log_softmax(raw_TV / TEMPERATURE, dim=-1)
        for span in sample.spans:
            before = range(span.start - 1, span.start + span.length - 1)
            said = [sample.tokens[t + 1] for t in before]
            probs_TV = logprobs_TV[list(before)].exp()
            certainty_T = torch.logsumexp(raw_TV / TEMPERATURE, dim=-1) - (raw_TV / TEMPERATURE).mean(-1)
            result += {
                "entropy": lambda: (-probs_TV * probs_TV.log()).sum(-1).tolist(),  # noqa: B023
                "certainty": lambda: certainty_T[list(before)].tolist(),  # noqa: B023
                "logit": lambda: raw_TV[list(before), said].tolist(),  # noqa: B023
                "logprob_now": lambda: logprobs_TV[list(before), said].tolist(),  # noqa: B023
                "reference": lambda: logprobs_TV[list(before), said].tolist(),  # noqa: B023
                "er": lambda: [effective_rank(hidden_TH[list(before)])] * span.length,  # noqa: B023
            }[name]()
    return result


@pytest.mark.parametrize("name", [name for name in MEASURED if name not in ("erv", "era")])
def test_what_is_measured_is_what_a_plain_pass_of_each_sequence_says(name: str) -> None:
    samples = trees()
    learner = make_learner(make_qwen3(), REFERENCE, temperature=TEMPERATURE, logit_tokens=2)
    learner.update(make_samples(seed=3))
    found = learner.measure(samples, [name])
    model = make_qwen3() if name == "reference" else learner.model
    assert list(found) == [name]
    torch.testing.assert_close(
        torch.tensor(found[name]), torch.tensor(plain(name, model, samples)), rtol=1e-4, atol=2e-5
    )
    assert len(set(found[name])) > 5
    whole = make_learner(make_qwen3(), REFERENCE, temperature=TEMPERATURE, row_tokens=500, micro_batch_tokens=1000)
    apart = make_learner(make_qwen3(), REFERENCE, temperature=TEMPERATURE, row_tokens=1, micro_batch_tokens=1)
    assert whole.measure(samples, [name])[name] == pytest.approx(apart.measure(samples, [name])[name], abs=2e-4)


def measuring(processes: int) -> dict[str, list[float]]:
    config = LearnerConfig(row_tokens=30, micro_batch_tokens=60, processes=processes)
    learner = Learner(make_qwen3(), config, REFERENCE, temperature=TEMPERATURE, total_steps=10, seed=0)
    return learner.measure(trees(), MEASURED)


def test_several_processes_measure_what_one_does() -> None:
    alone = measuring(1)
    for told in together(2, measuring):
        assert told.keys() == alone.keys() == set(MEASURED)
        for name, values in told.items():
            assert values == pytest.approx(alone[name], abs=2e-4), name


@cases("verl_rank")
def test_ranks_match_the_golden_cases(case: Any) -> None:
    states_TH, outputs = torch.tensor(case["inputs"]["hidden"], dtype=torch.float64), case["outputs"]
    stride = case["inputs"]["stride"]
    prefixes = [effective_rank(states_TH[: t + 1]) for t in range(stride, len(states_TH), stride)]
    assert prefixes == pytest.approx(outputs["prefix"])
    assert ranks(states_TH, stride) == pytest.approx((outputs["ER"], outputs["ERV"], outputs["ERA"]), rel=1e-6)


def test_states_without_spread_have_no_rank() -> None:
    assert ranks(torch.ones(5, 3)) == (0.0, 0.0, 0.0)
