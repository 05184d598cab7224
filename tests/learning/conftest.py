import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM


@pytest.fixture
def make_model():
    """A Qwen3 with 20 tokens, 2 layers and grouped keys; equal calls give equal weights."""

    def make(*, tied: bool = False, seed: int = 0, **settings):
        size = {
            "vocab_size": 20,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 24,
        }
        config = Qwen3Config(**size | settings, initializer_range=0.3, tie_word_embeddings=tied)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Qwen3ForCausalLM(config).eval()

    return make


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
