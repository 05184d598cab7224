"""Models and tokenizers on disk and made on the spot."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from marl_llm.errors import ModelError
from marl_llm.models import LanguageModel, load_model
from marl_llm.text import Chat
from tests.tiny import CONTEXT, TINY, untrained


def encode(model: LanguageModel, text: str) -> list[int]:
    ids: list[int] = model.tokenizer.encode(text, add_special_tokens=False)
    return ids


def weights(model: LanguageModel) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = model.model.state_dict()
    return state


def same(one: LanguageModel, two: LanguageModel) -> bool:
    a, b = weights(one), weights(two)
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved tiny model."""
    untrained().save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_comes_back_with_its_weights_template_and_end_token(folder: Path) -> None:
    made, loaded = untrained(), load_model(folder)
    assert same(made, loaded)
    assert {tensor.dtype for tensor in weights(loaded).values()} == {torch.float32}
    assert loaded.tokenizer.chat_template == made.tokenizer.chat_template
    assert loaded.tokenizer.eos_token == made.tokenizer.eos_token == "<|im_end|>"
    assert loaded.model.generation_config.to_dict() == made.model.generation_config.to_dict()
    one, two = Chat(made.tokenizer), Chat(loaded.tokenizer)
    assert one.eos_token_id == two.eos_token_id == made.tokenizer.eos_token_id
    assert one.start("Rules: 12 cards.", "Your card: K — 10") == two.start("Rules: 12 cards.", "Your card: K — 10")


def test_a_seed_fixes_the_weights_and_leaves_other_draws_alone() -> None:
    torch.manual_seed(5)
    undisturbed = torch.rand(3)
    torch.manual_seed(5)
    one = untrained(seed=1)
    assert torch.rand(3).equal(undisturbed)
    assert same(one, untrained(seed=1))
    assert not same(one, untrained(seed=2))
    assert encode(one, "Your card: K.") == encode(untrained(seed=2), "Your card: K.")


def test_a_tiny_model_has_the_size_that_was_asked_for() -> None:
    made = untrained()
    config = made.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (32, 1, 64)
    assert (config.num_attention_heads, config.head_dim) == (2, 16)
    assert config.max_position_embeddings == CONTEXT
    assert config.vocab_size == len(made.tokenizer) <= TINY.vocabulary


def test_numbers_are_read_digit_by_digit_and_tags_are_one_token() -> None:
    made = untrained("tic_tac_toe")
    assert [made.tokenizer.decode([token]) for token in encode(made, "1234567")] == list("1234567")
    assert encode(made, "a 10 ")[-3:-1] == encode(made, "10")
    for tag in ("<think>", "</think>", "<answer>", "</answer>", "<|im_end|>"):
        assert len(encode(made, tag)) == 1


@pytest.mark.parametrize("text", ["", "Héllo — “quotes”\u2028\n\t 42", "  two  spaces ", "<answer>check</answer>"])
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    made = untrained()
    assert made.tokenizer.decode(encode(made, text)) == text


@pytest.mark.parametrize(
    ("file", "what"),
    [("config.json", "model"), ("model.safetensors", "weights"), ("tokenizer", "tokenizer")],
)
def test_a_folder_that_lacks_a_part_is_refused_by_its_name(folder: Path, file: str, what: str) -> None:
    for path in folder.glob(f"{file}*"):
        path.unlink()
    with pytest.raises(ModelError, match=f"model {folder}: the folder has no {what}"):
        load_model(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_refused_in_one_line(folder: Path, file: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=f"model {folder}: cannot be loaded: ") as refused:
        load_model(folder)
    assert "\n" not in str(refused.value)


def test_weights_of_another_shape_or_with_gaps_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({**whole, name: torch.zeros(3, 32)}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(folder)
    save_file({key: tensor for key, tensor in whole.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"its weights lack {name}"):
        load_model(folder)


def test_a_tokenizer_without_end_token_is_refused(tmp_path: Path) -> None:
    made = untrained()
    made.tokenizer.eos_token = None
    made.save(tmp_path / "model")
    with pytest.raises(ModelError, match="names no end token"):
        load_model(tmp_path / "model")


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"model {tmp_path / 'nowhere'}: there is no such folder"):
        load_model(tmp_path / "nowhere")
