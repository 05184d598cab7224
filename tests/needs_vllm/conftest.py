"""What the tests with vLLM need."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from transformers import PreTrainedModel

from marl_llm.engines.vllm import VLLMEngine
from tests.engines.contract import POLICY
from tests.engines.test_hf import EOS

Make = Callable[..., VLLMEngine]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes engines, and closes them after the test."""
    made: list[VLLMEngine] = []

    def make(
        model: PreTrainedModel, *, slots: int = 4, context_tokens: int = 80, policy: str = POLICY, **more: Any
    ) -> VLLMEngine:
        sizes = {"slots": slots, "cache_slots": 2, "context_tokens": context_tokens}
        made.append(VLLMEngine(model, policy=policy, eos_token_id=EOS, **sizes, **more))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
