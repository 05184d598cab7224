"""Models of different size, family and tokenizer in one team."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from marl_llm.config import Config, load_config
from marl_llm.errors import ModelError
from marl_llm.models import END, LanguageModel, load_model
from marl_llm.run import checkpoint_path, read_episodes, read_metrics
from marl_llm.team import corpus, found
from marl_llm.text import Chat
from marl_llm.train import train
from tests.test_train import Silent
from tests.tiny import untrained

HETEROGENEOUS = Path(__file__).parents[1] / "configs" / "heterogeneous.yaml"
LLAMA_TEMPLATE = (
    "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


def llama(folder: Path) -> Path:
    """An untrained Llama with grouped heads, tied embeddings, and a tokenizer and template of its own."""
    tokenizer = untrained("tic_tac_toe").tokenizer
    tokenizer.chat_template = LLAMA_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=640,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = LlamaForCausalLM(config)
    LanguageModel(model=model, tokenizer=tokenizer).save(folder)
    return folder


def mixed(folder: Path, *overrides: str) -> Config:
    """The team of `configs/heterogeneous.yaml` with a Llama from a folder as the small model."""
    short = [f"policies.{name}.warmup.{key}" for name in ("small", "large") for key in ("steps=2", "games=8")]
    options = ["run.steps=2", "evaluation.games=0", "matchmaking.groups=2", "matchmaking.group_size=4"]
    options += ["play.max_reply_tokens=24", "play.context_tokens=512", f"policies.small.model={folder / 'llama'}"]
    return load_config(HETEROGENEOUS, [f"run.dir={folder}", *short, *options, *overrides])


def moved(path: Path, name: str) -> bool:
    first, last = (load_model(checkpoint_path(path, step) / name).model.state_dict() for step in (0, 2))
    return any(not first[key].equal(last[key]) for key in first)


def test_two_families_with_tokenizers_of_their_own_learn_in_one_run(tmp_path: Path) -> None:
    llama(tmp_path / "llama")
    config = mixed(tmp_path)
    path = train(config, Silent())
    rows = read_metrics(path)
    assert len(rows) == 2
    for name in ("small", "large"):
        assert all(math.isfinite(row[f"learn/{name}/loss"]) for row in rows)
        assert rows[0][f"learn/{name}/gap_max"] < 1e-3
        assert moved(path, name)
    assert rows[0]["learn/small/sampled_tokens"] > rows[0]["learn/large/sampled_tokens"] > 0, "two solvers, one boss"
    team = found(config, checkpoint_path(path, 2), learn=False)
    kinds = {name: type(member.language_model.model).__name__ for name, member in team.members.items()}
    assert kinds == {"small": "LlamaForCausalLM", "large": "Qwen3ForCausalLM"}
    chats = {name: member.policy.chat for name, member in team.members.items()}
    for turn in (turn for episode in read_episodes(path) for turn in episode.turns):
        told = chats[turn.policy].decode(turn.prompt)
        assert turn.observation in told
        assert ("<|im_start|>" in told) == (turn.policy == "large")


def test_tokenizers_of_one_corpus_differ_by_their_vocabulary() -> None:
    config = load_config(HETEROGENEOUS)
    assert {name for name, policy in config.policies.items() if policy.learns} == {"small", "large"}
    team = found(replace(config, play=replace(config.play, context_tokens=512)), learn=False)
    small, large = (team.members[name].language_model for name in ("small", "large"))
    assert len(small.tokenizer) < len(large.tokenizer)
    text = "\n".join(corpus(config, next(iter(config.policies)))[:20])
    assert len(small.tokenizer.encode(text)) > len(large.tokenizer.encode(text))
    assert small.model.num_parameters() < large.model.num_parameters()


@pytest.mark.parametrize("broken", ["no template", "no end"])
def test_a_model_that_cannot_hold_a_conversation_is_refused_in_one_line(tmp_path: Path, broken: str) -> None:
    made = load_model(llama(tmp_path / "llama"))
    changes: Mapping[str, str | None] = {"no template": None, "no end": LLAMA_TEMPLATE.replace(END, "!")}
    made.tokenizer.chat_template = changes[broken]
    made.save(tmp_path / "other")
    told = {
        "no template": "has no chat template; take a model for conversation",
        "no end": "its chat template cannot be",
    }
    with pytest.raises(ModelError, match=f"tokenizer {tmp_path / 'other'}: {told[broken]}") as refused:
        found(mixed(tmp_path, f"policies.small.model={tmp_path / 'other'}"))
    assert "\n" not in str(refused.value)


def test_each_chat_has_the_form_of_its_own_template(tmp_path: Path) -> None:
    chat = Chat(load_model(llama(tmp_path / "llama")).tokenizer)
    assert chat.decode(chat.start("Rules.", "Move?")) == "[system]Rules.[user]Move?[assistant]"
