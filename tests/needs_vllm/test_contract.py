"""The contract of every engine, kept by `vllm`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from tests.engines.contract import CHECKS, Bench, logprobs_are_those_of_a_teacher_forced_pass
from tests.engines.contract import weights_are_swapped_between_polls as weights_are_swapped
from tests.engines.test_hf import EOS, GROUPED, VOCAB, build
from tests.needs_vllm.conftest import Make

SIZES: dict[str, Any] = {**GROUPED, "head_dim": 32}
"""vLLM's attention on a CPU wants heads of a multiple of 32."""
MODELS: dict[str, Callable[[int], PreTrainedModel]] = {
    "qwen3": partial(build, Qwen3ForCausalLM, Qwen3Config(**SIZES, tie_word_embeddings=False)),
    "qwen3_tied": partial(build, Qwen3ForCausalLM, Qwen3Config(**SIZES, tie_word_embeddings=True)),
    "llama": partial(build, LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False)),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Bench], None], make: Make) -> None:
    check(Bench(make=make, model=MODELS["qwen3"], vocab=VOCAB, eos=EOS))


@pytest.mark.parametrize("check", [logprobs_are_those_of_a_teacher_forced_pass, weights_are_swapped])
@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"qwen3"}))
def test_contract_on_other_models(name: str, check: Callable[[Bench], None], make: Make) -> None:
    check(Bench(make=make, model=MODELS[name], vocab=VOCAB, eos=EOS))
