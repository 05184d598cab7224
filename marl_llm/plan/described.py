"""Sizes of models that a forecast knows without their files, for machines that cannot reach the hub.

From the `config.json` of each on the hub; what has no weight in memory or time is left out.
"""

from typing import Any

VOCABULARY = 8192
"""Entries at most of the tokenizer that stands for the model's own: about a token a word of the games' texts."""

_QWEN3: dict[str, Any] = {"vocab_size": 151936, "head_dim": 128, "num_key_value_heads": 8, "tie_word_embeddings": True}


def _sizes(hidden: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return dict(zip(names, (hidden, inner, layers, heads))) | more


DESCRIBED: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen/Qwen3-0.6B": ("qwen3", _QWEN3 | _sizes(1024, 3072, 28, 16)),
    "Qwen/Qwen3-1.7B": ("qwen3", _QWEN3 | _sizes(2048, 6144, 28, 16)),
    "Qwen/Qwen3-4B": ("qwen3", _QWEN3 | _sizes(2560, 9728, 36, 32)),
    "Qwen/Qwen3-8B": ("qwen3", _QWEN3 | _sizes(4096, 12288, 36, 32, tie_word_embeddings=False)),
    "Qwen/Qwen3-14B": ("qwen3", _QWEN3 | _sizes(5120, 17408, 40, 40, tie_word_embeddings=False)),
    "Qwen/Qwen3-32B": ("qwen3", _QWEN3 | _sizes(5120, 25600, 64, 64, tie_word_embeddings=False)),
    "Qwen/Qwen3-30B-A3B": (
        "qwen3_moe",
        _QWEN3
        | _sizes(2048, 6144, 48, 32, num_key_value_heads=4, tie_word_embeddings=False)
        | {"moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8},
    ),
}
"""Hub name to architecture and sizes."""
