"""The contract of every engine, kept by `vllm`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from marl_llm.engines.vllm import VLLMEngine
from tests.engines.contract import CHECKS, MODEL_CHECKS, POLICY, Bench
from tests.engines.test_hf import EOS, GROUPED, VOCAB, build

SIZES: dict[str, Any] = {**GROUPED, "head_dim": 32}
"""vLLM's attention on a CPU wants heads of a multiple of 32."""
MODELS: dict[str, Callable[[int], PreTrainedModel]] = {
    "qwen3": partial(build, Qwen3ForCausalLM, Qwen3Config(**SIZES, tie_word_embeddings=False)),
    "qwen3_tied": partial(build, Qwen3ForCausalLM, Qwen3Config(**SIZES, tie_word_embeddings=True)),
    "llama": partial(build, LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False)),
}


@pytest.fixture
def make() -> Iterator[Callable[..., VLLMEngine]]:
    """Makes engines, and closes them after the test."""
    made: list[VLLMEngine] = []

    def make(model: PreTrainedModel, *, slots: int, context_tokens: int) -> VLLMEngine:
        made.append(
            VLLMEngine(
                model, policy=POLICY, slots=slots, cache_slots=2, context_tokens=context_tokens, eos_token_id=EOS
            )
        )
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Bench], None], make: Callable[..., VLLMEngine]) -> None:
    check(Bench(make=make, model=MODELS["qwen3"], vocab=VOCAB, eos=EOS))


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"qwen3"}))
def test_contract_on_other_models(name: str, check: Callable[[Bench], None], make: Callable[..., VLLMEngine]) -> None:
    check(Bench(make=make, model=MODELS[name], vocab=VOCAB, eos=EOS))
