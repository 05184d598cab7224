"""The engine `hf`: the contract on several architectures, and what is particular to it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from marl_llm.engines.hf import HFEngine
from marl_llm.errors import ModelError
from tests.engines.contract import (
    CHECKS,
    MODEL_CHECKS,
    POLICY,
    Bench,
    assert_plain,
    plain_logprobs,
    play,
    request,
    words,
)

VOCAB, EOS = 24, 3
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": EOS,
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}


def build(kind: Callable[[Any], PreTrainedModel], config: Any, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config).eval()


MODELS: dict[str, Callable[[int], PreTrainedModel]] = {
    "qwen3": partial(build, Qwen3ForCausalLM, Qwen3Config(**GROUPED, tie_word_embeddings=False)),
    "qwen3_tied": partial(build, Qwen3ForCausalLM, Qwen3Config(**GROUPED, tie_word_embeddings=True)),
    "llama": partial(build, LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False)),
    "gpt_neox": partial(build, GPTNeoXForCausalLM, GPTNeoXConfig(**SIZES, tie_word_embeddings=False)),
}


def make(model: PreTrainedModel, *, slots: int, context_tokens: int, cache_slots: int = 2) -> HFEngine:
    return HFEngine(
        model,
        policy=POLICY,
        slots=slots,
        cache_slots=cache_slots,
        context_tokens=context_tokens,
        eos_token_id=EOS,
    )


def bench(name: str) -> Bench:
    return Bench(make=make, model=MODELS[name], vocab=VOCAB, eos=EOS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Bench], None]) -> None:
    check(bench("qwen3"))


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"qwen3"}))
def test_contract_on_other_models(name: str, check: Callable[[Bench], None]) -> None:
    check(bench(name))


def test_a_group_reads_its_prompt_once_and_a_next_turn_only_what_is_new() -> None:
    engine = make(MODELS["qwen3"](0), slots=8, cache_slots=0, context_tokens=200)
    prompt = words(bench("qwen3"), 60, 0)
    done = play(engine, [request(i, prompt, seed=i, tokens=5) for i in range(8)])
    stats = engine.stats()
    assert (stats["prompt_tokens"], stats["reused_tokens"], stats["prefilled_tokens"]) == (480, 7 * 59, 60)
    sampled = sum(len(completion.tokens) for completion in done.values())
    assert stats["sampled_tokens"] == sampled
    play(engine, [request(i, (*prompt, *done[i].tokens, 1, 2), tokens=1) for i in range(8)])
    # The last token of each completion was sampled and never read: it is read now, with the two new ones.
    assert engine.stats()["prefilled_tokens"] == 60 + 8 * 3
    assert 0 < engine.stats()["forward_s"] < engine.stats()["total_s"]


def test_tokens_in_flight_follow_the_new_weights_exactly() -> None:
    old, new = MODELS["llama"](0), MODELS["llama"](1)
    engine = make(old, slots=2, context_tokens=100)
    asked = request("a", words(bench("llama"), 20, 0), tokens=30, seed=2)
    engine.submit(asked)
    done = dict(item for _ in range(3) for item in engine.poll())
    assert not done
    engine.load_weights(POLICY, new.state_dict(), version=1)
    while not done:
        done.update(engine.poll())
    tokens, versions = done["a"].tokens, done["a"].versions
    expected = [
        plain_logprobs(new if version else old, (*asked.prompt, *tokens[:i]), tokens[i : i + 1])[0]
        for i, version in enumerate(versions)
    ]
    assert versions[:4] == (0, 0, 0, 1)
    assert done["a"].logprobs == pytest.approx(expected, abs=1e-4)


def test_an_idle_engine_with_new_weights_is_as_good_as_new() -> None:
    model = MODELS["qwen3"](0)
    used, fresh = (make(model, slots=3, context_tokens=60) for _ in range(2))
    play(used, [request(i, words(bench("qwen3"), 3 * i + 1, i), seed=i) for i in range(9)])
    used.load_weights(POLICY, model.state_dict(), version=0)
    asked = [request(i, words(bench("qwen3"), 5 + i % 3, i % 2), seed=i) for i in range(9)]
    assert play(used, asked) == play(fresh, asked)


def test_a_prompt_beyond_the_budget_of_a_poll_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marl_llm.engines.hf._PREFILL_TOKENS", 16)
    model = MODELS["qwen3"](0)
    engine = make(model, slots=4, context_tokens=120)
    asked = [request(i, words(bench("qwen3"), 50 - i % 2, i // 2), seed=i) for i in range(6)]
    done = play(engine, asked)
    for one in asked:
        assert_plain(model, one, done[one.ticket])


def test_tied_weights_load_under_either_name() -> None:
    model, new = MODELS["qwen3_tied"](0), MODELS["qwen3_tied"](1)
    weights = dict(new.named_parameters())
    assert "lm_head.weight" not in weights
    one = request("a", words(bench("qwen3_tied"), 9, 0))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        engine = make(model, slots=1, context_tokens=40)
        rest = {key: value for key, value in weights.items() if key != "model.embed_tokens.weight"}
        engine.load_weights(POLICY, {**rest, name: weights["model.embed_tokens.weight"]}, version=1)
        assert_plain(new, one, play(engine, [one])["a"])


def test_the_model_that_was_given_stays_as_it_is() -> None:
    model = MODELS["qwen3"](0).train()
    implementation = model.config._attn_implementation
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine = make(model, slots=1, context_tokens=40)
    engine.load_weights(POLICY, MODELS["qwen3"](1).state_dict(), version=1)
    assert model.training
    assert model.config._attn_implementation == implementation
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_bfloat16_is_a_property_of_the_copy() -> None:
    model = MODELS["qwen3"](0)
    engine = HFEngine(
        model, policy=POLICY, slots=2, cache_slots=0, context_tokens=40, eos_token_id=EOS, dtype=torch.bfloat16
    )
    one = request("a", words(bench("qwen3"), 9, 0))
    completion = play(engine, [one])["a"]
    assert model.dtype == torch.float32
    assert completion.logprobs == pytest.approx(plain_logprobs(model, one.prompt, completion.tokens), abs=0.3)


def test_models_that_it_cannot_run_are_refused() -> None:
    window = MistralConfig(**GROUPED, sliding_window=16)
    with pytest.raises(ModelError, match="full attention"):
        make(build(MistralForCausalLM, window, 0), slots=1, context_tokens=40)
    with pytest.raises(ModelError, match="256 positions"):
        make(MODELS["qwen3"](0), slots=1, context_tokens=257)


@pytest.mark.parametrize("name", ["gpt2", "gemma"])
def test_other_architectures_run_as_they_are(name: str) -> None:
    gpt2 = GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3)
    model = {
        "gpt2": lambda: build(GPT2LMHeadModel, gpt2, 0),
        "gemma": lambda: build(GemmaForCausalLM, GemmaConfig(**GROUPED), 0),
    }[name]()
    engine = make(model, slots=2, context_tokens=60)
    one = request("a", words(bench("qwen3"), 9, 0))
    assert_plain(model, one, play(engine, [one])["a"])
