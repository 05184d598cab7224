"""What is particular to the engine `vllm`: adapters, weights in place, and what it leaves behind."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from marl_llm.adapters import adapt, merge
from marl_llm.config import LoraConfig
from marl_llm.engines.base import Request
from marl_llm.engines.share import Share
from marl_llm.engines.vllm import VLLMEngine
from marl_llm.errors import ConfigError, ModelError
from tests.engines.contract import POLICY, TOLERANCE, assert_plain, plain_logprobs, play, request
from tests.engines.test_hf import EOS
from tests.engines.test_hf import MODELS as NARROW
from tests.needs_vllm.conftest import Make
from tests.needs_vllm.test_contract import MODELS

PROMPT, REPLY = (5, 6, 7, 8, 9), (4, 1, 2)


def adapted(base: PreTrainedModel, seed: int, **lora: object) -> PreTrainedModel:
    """The model with an adapter that changes much."""
    model = adapt(base, LoraConfig(**{"rank": 4} | lora), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def learned(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_adapters_of_one_base_are_played_together_and_each_is_replaced_alone(make: Make) -> None:
    base = MODELS["qwen3"](0)
    one, two = adapted(base, 1), adapted(base, 2, rank=2, targets=["q_proj", "v_proj"])
    engine = make(base, policy="base", ranks=[4, 2])
    engine.add("one", one)
    engine.add("two", two)

    def all_say(**models: PreTrainedModel) -> None:
        asked = [
            Request(ticket=(name, i), policy=name, prompt=(*PROMPT, i), max_tokens=6, seed=i)
            for i in range(3)
            for name in models
        ]
        done = play(engine, asked)
        for each in asked:
            assert_plain(models[each.policy], each, done[each.ticket])
        for name, model in models.items():
            expected = plain_logprobs(model, PROMPT, REPLY, 0.7)
            assert engine.score(name, [(PROMPT, REPLY)], 0.7)[0] == pytest.approx(expected, abs=TOLERANCE)

    all_say(base=base, one=one, two=two)
    later = adapted(base, 3)
    engine.load_weights("one", learned(later), 5)
    all_say(base=base, one=later, two=two)
    ask = Request(ticket="a", policy="one", prompt=PROMPT, max_tokens=4, seed=0)
    assert set(play(engine, [ask])["a"].versions) == {5}
    taught = MODELS["qwen3"](4)
    engine.load_weights("base", taught.state_dict(), 1)
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            parameter.copy_(taught.get_parameter(name))
    all_say(base=base, one=later, two=two)


def test_a_model_that_comes_with_an_adapter_is_both_and_takes_both(make: Make) -> None:
    base = MODELS["qwen3_tied"](0)
    model, later = adapted(base, 1), adapted(base, 2)
    engine = make(model, ranks=[4])
    expected = plain_logprobs(merge(base, model), PROMPT, REPLY)
    assert engine.score(POLICY, [(PROMPT, REPLY)])[0] == pytest.approx(expected, abs=TOLERANCE)
    engine.load_weights(POLICY, learned(later), 1)
    expected = plain_logprobs(later, PROMPT, REPLY)
    assert engine.score(POLICY, [(PROMPT, REPLY)])[0] == pytest.approx(expected, abs=TOLERANCE)
    other = adapted(MODELS["qwen3_tied"](3), 3)
    engine.load_weights(POLICY, other.state_dict(), 2)
    expected = plain_logprobs(other, PROMPT, REPLY)
    assert engine.score(POLICY, [(PROMPT, REPLY)])[0] == pytest.approx(expected, abs=TOLERANCE)


def test_adapters_that_do_not_belong_are_refused_and_change_nothing(make: Make) -> None:
    base = MODELS["qwen3"](0)
    one = adapted(base, 1)
    engine = make(base, policy="base", ranks=[4])
    with pytest.raises(ModelError, match="policy plain: its model has no adapter on that of base"):
        engine.add("plain", MODELS["qwen3"](1))
    with pytest.raises(ModelError, match="policy other: its model has no adapter on that of base"):
        engine.add("other", adapted(MODELS["llama"](0), 1))
    engine.add("one", one)
    name, tensor = next(iter(learned(one).items()))
    for weights, message in (
        ({}, "missing .*lora_A"),
        (one.state_dict(), "unknown 'lm_head.weight' and"),
        (learned(one) | {name: tensor[:-1]}, r"has shape \(3, 32\); the model's is \(4, 32\)"),
    ):
        with pytest.raises(ModelError, match=message):
            engine.load_weights("one", weights, 1)
    assert engine.score("one", [(PROMPT, REPLY)])[0] == pytest.approx(plain_logprobs(one, PROMPT, REPLY), abs=TOLERANCE)


def test_views_of_one_engine_give_everybody_his_own(make: Make) -> None:
    base = MODELS["qwen3"](0)
    one = adapted(base, 1)
    engine = make(base, policy="base", ranks=[4])
    engine.add("one", one)
    first = Share(engine, "base")
    second = Share(engine, "one", beside=first)
    asked = [Request(ticket=i, policy="base", prompt=PROMPT, max_tokens=1 + i, seed=i) for i in range(3)]
    late = Request(ticket=0, policy="one", prompt=PROMPT, max_tokens=6, seed=7)
    for each in asked:
        first.submit(each)
    second.submit(late)
    (ticket, completion), *more = play_one(second)
    assert ticket == 0
    assert not more
    assert_plain(one, late, completion)
    done = dict(first.poll())
    assert done.keys() == {0, 1, 2}
    for each in asked:
        assert_plain(base, each, done[each.ticket])
    with pytest.raises(ValueError, match="unknown policy 'one'; this engine has base"):
        first.submit(late)


def play_one(share: Share) -> list:
    while not (done := share.poll()):
        pass
    return done


def test_tokens_in_flight_follow_the_new_weights_exactly(make: Make) -> None:
    old, new = MODELS["llama"](0), MODELS["llama"](1)
    engine = make(old, slots=2, context_tokens=100)
    asked = request("a", tuple(range(4, 24)), tokens=30, seed=2)
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
    assert done["a"].logprobs == pytest.approx(expected, abs=TOLERANCE)


def test_tied_weights_load_under_either_name_and_are_copied(make: Make) -> None:
    model, new = MODELS["qwen3_tied"](0), MODELS["qwen3_tied"](1)
    weights = {name: tensor.detach().clone() for name, tensor in new.named_parameters()}
    embedding = weights.pop("model.embed_tokens.weight")
    engine = make(model)
    expected = pytest.approx(plain_logprobs(new, PROMPT, REPLY), abs=TOLERANCE)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        engine.load_weights(POLICY, model.state_dict(), version=0)
        assert engine.score(POLICY, [(PROMPT, REPLY)])[0] != expected
        engine.load_weights(POLICY, {**weights, name: embedding}, version=1)
        assert engine.score(POLICY, [(PROMPT, REPLY)])[0] == expected
    for tensor in (embedding, *weights.values()):
        tensor.zero_()
    engine.forget()
    assert engine.score(POLICY, [(PROMPT, REPLY)])[0] == expected


def test_nothing_of_an_earlier_sequence_is_used_under_other_weights(make: Make) -> None:
    """Long enough for vLLM's cache on a CPU, whose blocks have 128 tokens."""
    old, new = MODELS["qwen3"](0), MODELS["qwen3"](1)
    engine = make(old, context_tokens=200)
    asked = request("a", tuple(4 + i % 19 for i in range(140)), tokens=5)
    assert_plain(old, asked, play(engine, [asked])["a"])
    assert_plain(old, asked, play(engine, [asked])["a"])
    engine.load_weights(POLICY, new.state_dict(), version=1)
    assert_plain(new, asked, play(engine, [asked])["a"])


def test_prompts_beyond_the_budget_of_a_step_wait_whole(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marl_llm.engines.vllm._STEP_TOKENS", 16)
    model = MODELS["qwen3"](0)
    engine = make(model, context_tokens=80)
    asked = [request(i, tuple(4 + (i + j) % 19 for j in range(50)), seed=i) for i in range(6)]
    done = play(engine, asked)
    for one in asked:
        assert_plain(model, one, done[one.ticket])


def test_many_actions_are_scored_after_one_context(make: Make) -> None:
    """More than the 128 tokens that vLLM scores in one request would be cut into several; here all 24 fit one."""
    model = MODELS["qwen3"](0)
    engine = make(model)
    pairs = [(PROMPT, (token,)) for token in range(24)]
    expected = [plain_logprobs(model, *pair)[0] for pair in pairs]
    assert [logprob for (logprob,) in engine.score(POLICY, pairs)] == pytest.approx(expected, abs=TOLERANCE)


def test_bfloat16_is_a_property_of_the_engine(make: Make) -> None:
    model = MODELS["qwen3"](0)
    engine = make(model, dtype=torch.bfloat16)
    assert model.dtype == torch.float32
    expected = plain_logprobs(model, PROMPT, REPLY)
    assert engine.score(POLICY, [(PROMPT, REPLY)])[0] == pytest.approx(expected, abs=0.3)


def test_what_it_cannot_run_is_refused_in_one_line(make: Make) -> None:
    with pytest.raises(ModelError, match=r"^engine vllm cannot run Qwen3ForCausalLM: .*head_dim=8"):
        make(NARROW["qwen3"](0))
    with pytest.raises(ModelError, match="the model knows 256 positions, fewer than the 257 tokens of context"):
        make(MODELS["qwen3"](0), context_tokens=257)
    with pytest.raises(ConfigError, match=r"^engine.device: 'cuda' is not allowed; the vLLM .* runs on cpu"):
        make(MODELS["qwen3"](0), device="cuda")


def test_sleep_and_wake_change_nothing_on_a_cpu(make: Make) -> None:
    model = MODELS["qwen3"](0)
    engine = make(model)
    asked = request("a", PROMPT, tokens=20)
    engine.submit(asked)
    done = dict(item for _ in range(3) for item in engine.poll())
    engine.sleep()
    engine.wake()
    while not done:
        done.update(engine.poll())
    assert_plain(model, asked, done["a"])


def test_one_engine_is_closed_and_another_plays_on(make: Make) -> None:
    first, second = MODELS["qwen3"](0), MODELS["qwen3_tied"](1)
    stays, goes = make(first), make(second)
    asked = request("a", PROMPT, tokens=20)
    stays.submit(asked)
    done = dict(stays.poll())
    assert_plain(second, asked, play(goes, [asked])["a"])
    goes.close()
    while not done:
        done.update(stays.poll())
    assert_plain(first, asked, done["a"])


def test_a_forgotten_engine_is_closed_while_the_next_is_made(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = MODELS["qwen3"](0), request("a", PROMPT)
    forgotten = [VLLMEngine(model, policy=POLICY, slots=2, cache_slots=0, context_tokens=40, eos_token_id=EOS)]
    start = VLLMEngine._start

    def start_late(self: VLLMEngine, *arguments: object) -> object:
        engine = start(self, *arguments)
        forgotten.clear()
        gc.collect()
        return engine

    monkeypatch.setattr(VLLMEngine, "_start", start_late)
    engine = make(model)
    assert_plain(model, asked, play(engine, [asked])["a"])


SCRIPT = """
import os, signal, sys
from tests.needs_vllm.test_contract import MODELS
from marl_llm.engines.vllm import VLLMEngine
engine = VLLMEngine(MODELS["qwen3"](0), policy="a", slots=2, cache_slots=0, context_tokens=40, eos_token_id=3)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leftovers() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def test_nothing_is_left_in_shared_memory_and_who_was_killed_is_cleared_away_by_the_next(make: Make) -> None:
    before = leftovers()
    for end in ("ended", "killed"):
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, end],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            check=False,
        )
        assert process.returncode == (-9 if end == "killed" else 0), process.stderr
        assert len(leftovers() - before) == (end == "killed")
    make(MODELS["qwen3"](0)).close()
    assert leftovers() == before
