"""Adapters (LoRA, arXiv 2106.09685) on the linear layers of a model. PEFT lives here only, and is imported when needed.

An adapted model is a tree of modules of its own around parameters that all who share the base have in common.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from marl_llm.config import LoraConfig
from marl_llm.errors import ConfigError, ModelError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files of an adapter in PEFT's format."""
_NAME = "default"
"""What PEFT calls a model's only adapter."""
_PREFIX = "base_model.model."
"""In front of every name in PEFT's files."""

Parameters = Mapping[str, torch.nn.Parameter]


def adapt(base: PreTrainedModel, settings: LoraConfig, *, seed: int) -> PreTrainedModel:
    """The model with an adapter that changes nothing yet; its other parameters are those of `base`, and are frozen.

    Raises:
        ConfigError: PEFT is not installed, or a target is no linear layer.
    """
    peft = _peft()
    targets = _targets(base, settings)
    model = copy.deepcopy(base, _kept(dict(base.named_parameters())))
    config = peft.LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model, _NAME)
    return model


def write_adapter(
    model: PreTrainedModel, folder: Path, *, base: str, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write the adapter alone, in PEFT's format; `base` says where its base is, from the folder if it is a path.

    `weights`: those to write, by their names in the model; None: its own.
    """
    config = model.peft_config[_NAME].to_dict()
    config |= {"base_model_name_or_path": base, "inference_mode": True}
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True))
    write_weights(_trained(model) if weights is None else weights, folder)


def write_weights(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write an adapter's weights, by their names in an adapted model, beside its settings."""
    whole = {_PREFIX + _outside(name): tensor.detach().contiguous() for name, tensor in weights.items()}
    save_file(whole, folder / WEIGHTS)


def read_adapter(folder: Path) -> dict[str, torch.Tensor]:
    """An adapter's weights, by their names in an adapted model.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        weights = load_file(folder / WEIGHTS)
    except Exception as error:  # safetensors has classes of its own beside OSError
        raise ModelError(f"adapter {folder}: cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    return {_inside(name.removeprefix(_PREFIX)): tensor for name, tensor in weights.items()}


def load_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Copy the weights of a folder into an adapted model's adapter.

    Raises:
        ModelError: they are not there, or belong to another model or other settings.
    """
    weights, mine = read_adapter(folder), _trained(model)
    wrong = sorted(name for name in weights.keys() | mine.keys() if not _fits(weights.get(name), mine.get(name)))
    if wrong:
        raise ModelError(f"adapter {folder}: {_outside(wrong[0])} does not fit the model ({len(wrong)} such weights)")
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(weights[name])


def adapter_settings(folder: Path) -> tuple[str, LoraConfig]:
    """Where an adapter's base is, as it was written, and its settings.

    Raises:
        ModelError: it is no LoRA adapter, or one with what `LoraConfig` does not know.
    """
    try:
        found = json.loads((folder / CONFIG).read_text())
        targets = found["target_modules"]
        plain = found["peft_type"] == "LORA" and isinstance(targets, list) and found.get("bias", "none") == "none"
        base = str(found["base_model_name_or_path"])
        settings = LoraConfig(rank=found["r"], alpha=found["lora_alpha"], targets=targets)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"adapter {folder}: {CONFIG} cannot be read: {error}") from error
    other = [key for key in _VARIANTS if found.get(key)]
    if not plain or other:
        raise ModelError(
            f"adapter {folder}: only plain LoRA of linear layers can be used, not {', '.join(other) or 'this'}"
        )
    return base, settings


_VARIANTS = ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform")


def merge(base: PreTrainedModel, adapted: PreTrainedModel) -> PreTrainedModel:
    """A plain model that computes what the adapted one does, in tensors of its own."""
    model = copy.deepcopy(base)
    with torch.no_grad():
        for name, module in adapted.named_modules():
            if hasattr(module, "get_delta_weight"):
                model.get_submodule(name).weight.add_(module.get_delta_weight(_NAME))
    return model


def shared(model: PreTrainedModel, other: Parameters) -> dict[str, torch.nn.Parameter]:
    """Name in `model` to the parameter of `other` for what an adapter leaves alone: both have the same base.

    `other` is adapted itself or not.
    """
    plain = {plain_name(name): parameter for name, parameter in other.items()}
    return {name: plain[plain_name(name)] for name, p in model.named_parameters() if not is_adapter(name)}


def is_adapter(name: str) -> bool:
    """Whether a weight of an adapted model is the adapter's."""
    return ".lora_A." in name or ".lora_B." in name


def plain_name(name: str) -> str:
    """The name that a weight has in the base, by its name in an adapted model."""
    return name.replace(".base_layer.", ".")


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("lora: needs the package peft: pip install 'marl-llm[lora]'") from error
    module: ModuleType = peft
    return module


def _targets(model: PreTrainedModel, settings: LoraConfig) -> list[str]:
    """Layers to adapt: by the last part of their names, as other programs expect it, or in full where that is more."""
    head = model.get_output_embeddings()
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    found = {name for name, layer in linear.items() if layer is not head and not settings.targets}
    for target in settings.targets:
        named = {name for name in linear if f".{name}".endswith(f".{target}")}
        if not named:
            known = sorted({_last(name) for name in linear})
            raise ConfigError(f"lora.targets: {target!r} is not allowed; it must be one of the linear layers {known}")
        found |= named
    if not found:
        raise ConfigError(f"lora: {type(model).__name__} has no linear layers")
    short = {_last(name) for name in found}
    return sorted(short if {name for name in linear if _last(name) in short} == found else found)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _kept(parameters: Parameters) -> dict[int, Any]:
    """For `deepcopy`: these are not copied."""
    return {id(parameter): parameter for parameter in parameters.values()}


def _trained(model: PreTrainedModel) -> Parameters:
    return {name: parameter for name, parameter in model.named_parameters() if is_adapter(name)}


def _fits(given: torch.Tensor | None, mine: torch.Tensor | None) -> bool:
    return given is not None and mine is not None and given.shape == mine.shape


def _outside(name: str) -> str:
    return name.replace(f".{_NAME}.weight", ".weight")


def _inside(name: str) -> str:
    return name.removesuffix(".weight") + f".{_NAME}.weight"
