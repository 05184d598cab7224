import pytest
import torch

from tests.learning.small import make_qwen3


@pytest.fixture
def make_model():
    """A Qwen3 with 20 tokens, 2 layers and grouped keys; equal calls give equal weights."""
    return make_qwen3


@pytest.fixture
def separate_logprobs():
    """Log-probabilities of all sampled tokens, each sample run alone through the whole model, in flat order."""

    def run(model, samples, temperature: float = 1.0):
        parts = []
        for sample in samples:
            logits_TV = model(input_ids=torch.tensor([sample.tokens]), use_cache=False).logits[0]
            logprobs_TV = torch.log_softmax(logits_TV / temperature, dim=-1)
            for span in sample.spans:
                where = range(span.start, span.start + span.length)
                parts += [logprobs_TV[t - 1, sample.tokens[t]] for t in where]
        return torch.stack(parts)

    return run
