"""Models and tokenizers in the Hugging Face format: load, save, and make a tiny one on the spot."""

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import is_offline_mode
from huggingface_hub.constants import ENDPOINT
from safetensors import SafetensorError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils.logging import disable_progress_bar

from marl_llm import adapters
from marl_llm.config import LoraConfig, TinyModelConfig
from marl_llm.errors import ModelError

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
disable_progress_bar()  # its bars would tear the live view apart
END, PAD = "<|im_end|>", "<|endoftext|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A causal language model and the tokenizer that belongs to it."""

    model: Any
    """A transformers causal language model, float32."""
    tokenizer: Any
    """Its tokenizer, with chat template and end token."""
    base: "LanguageModel | None" = None
    """What `model` has an adapter on: a plain model that owns the same tensors. None: `model` has no adapter."""

    def adapted(self, settings: LoraConfig, *, seed: int) -> "LanguageModel":
        """This model with an adapter that changes nothing yet; its own tensors are shared, and frozen.

        Raises:
            ConfigError: see `adapters.adapt`.
        """
        model = adapters.adapt(self.model, settings, seed=seed)
        return LanguageModel(model=model, tokenizer=self.tokenizer, base=self)

    def save(self, folder: Path, *, base: str = "", weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write both in the Hugging Face format (safetensors); of an adapted model the adapter alone.

        `base`: where the base of an adapted model is, from the folder if it is a path. `weights`: what
        `Learner.weights` gives, if the model's own tensors are not those that are meant.
        """
        if self.base is not None:
            adapters.write_adapter(self.model, folder, base=base, weights=weights)
            return
        self.model.save_pretrained(folder, state_dict=None if weights is None else dict(weights))
        self.tokenizer.save_pretrained(folder)


def load_model(path: str | Path) -> LanguageModel:
    """Load a model folder, or a model of the hub by its name; an adapter's folder is merged with its base.

    Raises:
        ModelError: there is no model or no tokenizer there, one of them is damaged or incomplete, or the tokenizer
            has no end token.
    """
    if is_adapter(path):
        return _load_merged(Path(path))
    with _readable(path, weights=True) as cached:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=cached)
        model, loading = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, output_loading_info=True, local_files_only=cached
        )
    if loading["missing_keys"]:  # transformers would draw them at random
        missing = sorted(loading["missing_keys"])
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"model {path}: its weights lack {missing[0]}{more}")
    return LanguageModel(model=model, tokenizer=_ending(tokenizer, path))


def outline(path: str | Path) -> LanguageModel:
    """The model without its weights (on the device `meta`), and its tokenizer; an adapter's folder gives its base's.

    Raises:
        ModelError: see `load_model`.
    """
    if is_adapter(path):
        return outline(_base_of(Path(path)))
    with _readable(path, weights=False) as cached:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=cached)
        config = AutoConfig.from_pretrained(path, local_files_only=cached)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with suppress(OSError):  # not every model has one
            model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=cached)
    return LanguageModel(model=model, tokenizer=_ending(tokenizer, path))


@contextmanager
def _readable(path: str | Path, *, weights: bool) -> Iterator[bool]:
    """Refuse in one line what transformers cannot load; gives whether only what is on this disk can be had."""
    folder = Path(path).is_dir()
    if folder:
        _require_files(Path(path), weights=weights)
    elif not HUB_NAME.fullmatch(str(path)):
        raise ModelError(f"model {path}: there is no such folder")
    cached = folder or not _hub_answers()
    try:
        yield cached
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        if cached and not folder:
            raise ModelError(
                f"model {path}: there is no such folder, it is not in the cache of the hub, and {ENDPOINT} cannot be "
                "reached"
            ) from error
        raise ModelError(f"model {path}: cannot be loaded: {' '.join(str(error).split())[:300]}") from error


def _hub_answers() -> bool:
    """Whether it is worth to ask the hub, which is asked five times over; one behind a proxy is taken to be there."""
    if is_offline_mode():
        return False
    address = urlsplit(ENDPOINT)
    if getproxies().get(address.scheme):
        return True
    try:
        with socket.create_connection((address.hostname or "", address.port or 443), timeout=5):
            return True
    except OSError:
        return False


def _ending(tokenizer: Any, path: str | Path) -> Any:
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model {path}: its tokenizer names no end token (eos_token)")
    return tokenizer


def is_adapter(path: str | Path) -> bool:
    """Whether this is the folder of an adapter."""
    return (Path(path) / adapters.CONFIG).is_file()


def saved_weights(folder: Path) -> Mapping[str, torch.Tensor]:
    """What is trained, from a folder that `LanguageModel.save` wrote: an adapter's weights, or the whole model's.

    Raises:
        ModelError: it cannot be loaded.
    """
    if is_adapter(folder):
        return adapters.read_adapter(folder)
    weights: Mapping[str, torch.Tensor] = load_model(folder).model.state_dict()
    return weights


def _load_merged(folder: Path) -> LanguageModel:
    _, settings = adapters.adapter_settings(folder)
    base = load_model(_base_of(folder))
    adapted = base.adapted(settings, seed=0)
    adapters.load_adapter(adapted.model, folder)
    return LanguageModel(model=adapters.merge(base.model, adapted.model), tokenizer=base.tokenizer)


def _base_of(folder: Path) -> str | Path:
    place, _ = adapters.adapter_settings(folder)
    return folder / place if (folder / place).is_dir() else place


def _require_files(folder: Path, *, weights: bool) -> None:
    wanted = {
        "model": ("config.json",),
        "weights": ("model.safetensors", "model.safetensors.index.json"),
        "tokenizer": ("tokenizer.json", "tokenizer_config.json"),
    }
    for what, names in wanted.items():
        if (weights or what != "weights") and not any((folder / name).is_file() for name in names):
            raise ModelError(f"model {folder}: the folder has no {what}; needed: {' or '.join(names)}")


def make_tiny(config: TinyModelConfig, texts: Iterable[str], *, context_tokens: int, seed: int) -> LanguageModel:
    """A small untrained chat model whose tokenizer has learned the given texts."""
    tokenizer = _train_tokenizer(config.vocabulary, texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(_tiny_config(config, tokenizer, context_tokens))
    # Left to its defaults, generate() would sample from a truncated distribution and never stop.
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
    )
    return LanguageModel(model=model, tokenizer=tokenizer)


def make_reader(config: TinyModelConfig, policy: LanguageModel, *, context_tokens: int, seed: int) -> Any:
    """A small untrained model without a tokenizer of its own, which reads the tokens of another."""
    size = _tiny_config(config, policy.tokenizer, context_tokens)
    size.vocab_size = policy.model.get_input_embeddings().num_embeddings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(size)


def outline_tiny(config: TinyModelConfig, texts: Iterable[str], *, context_tokens: int) -> LanguageModel:
    """What `make_tiny` makes, without its weights (on the device `meta`)."""
    tokenizer = _train_tokenizer(config.vocabulary, texts)
    with torch.device("meta"):
        model = Qwen3ForCausalLM(_tiny_config(config, tokenizer, context_tokens))
    return LanguageModel(model=model, tokenizer=tokenizer)


def outline_like(
    architecture: str, sizes: Mapping[str, Any], texts: Iterable[str], *, vocabulary: int
) -> LanguageModel:
    """A model of a transformers architecture and of given sizes, without weights; its tokenizer, with that many entries
    at most, has learned the texts, and only stands for the model's own."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes), dtype=torch.float32)
    return LanguageModel(model=model, tokenizer=_train_tokenizer(vocabulary, texts))


def _tiny_config(config: TinyModelConfig, tokenizer: Any, context_tokens: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        head_dim=config.hidden // config.heads,
        max_position_embeddings=context_tokens,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def _train_tokenizer(vocabulary: int, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(tokenizer_models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\d"), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    bpe.decoder = decoders.ByteLevel()
    special = [PAD, "<|im_start|>", END]
    trainer = BpeTrainer(
        vocab_size=vocabulary - len(special) - len(TAGS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
