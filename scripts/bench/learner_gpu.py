"""Learner throughput on a GPU, for Qwen3 shapes with random weights, packed to rows of 4,096 tokens.

    python scripts/bench/learner_gpu.py [--models 0.6B 1.7B 4B] [--tokens 4096] [--rows 16] [--micro-batch 8192]
        [--steps 5] [--peak 989e12] [--no-checkpointing] [--out FILE]

Prints one JSON object per model: tokens per second through forward, backward and optimizer step, model FLOP utilisation
(MFU: operations of the model, what is computed again not counted, over the card's peak), and peak memory. Half of each
sequence is sampled; float32 master weights, bfloat16 passes, AdamW, no reference. The first step is not counted.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from marl_llm.config import LearnerConfig, ObjectiveConfig
from marl_llm.learning.learner import Learner
from marl_llm.types import Sample, Span

VOCABULARY = 151_936
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bfloat16 operations per second, by a part of the card's name."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of a Qwen3."""

    hidden: int
    """Width."""
    layers: int
    """Number of layers."""
    heads: int
    """Attention heads."""
    inner: int
    """Inner width of the feed-forward part."""
    keys: int = 8
    """Key/value heads."""
    dim: int = 128
    """Width of a head."""
    vocabulary: int = VOCABULARY
    """Number of tokens; the embedding is tied to the head."""

    def config(self) -> Qwen3Config:
        """For transformers."""
        return Qwen3Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.keys,
            head_dim=self.dim,
            intermediate_size=self.inner,
            max_position_embeddings=40_960,
            tie_word_embeddings=True,
        )


SIZES = {
    "0.6B": Size(hidden=1024, layers=28, heads=16, inner=3072),
    "1.7B": Size(hidden=2048, layers=28, heads=16, inner=6144),
    "4B": Size(hidden=2560, layers=36, heads=32, inner=9728),
}


def operations(size: Size, tokens: int, sampled: int) -> int:
    """Of forward and backward for one sequence: six per token and weight of the layers, six per sampled token and
    weight of the head, and those of causal attention, in which a token meets half of the others on average."""
    attention = size.hidden * size.dim * (2 * size.heads + 2 * size.keys)
    layers = size.layers * (attention + 3 * size.hidden * size.inner)
    head = size.vocabulary * size.hidden
    meetings = size.layers * size.heads * size.dim * tokens * (tokens + 1) // 2
    return 6 * (tokens * layers + sampled * head) + 12 * meetings


def sample(rng: np.random.Generator, index: int, tokens: int, vocabulary: int) -> Sample:
    """A random sequence whose second half was sampled; its last token is read by nobody."""
    length = tokens // 2
    return Sample(
        policy="p",
        game="bench",
        episode=f"e{index}",
        agent="player_0",
        tokens=tuple(rng.integers(vocabulary, size=tokens + 1).tolist()),
        spans=(
            Span(
                start=tokens + 1 - length,
                length=length,
                logprobs=(-11.9,) * length,
                advantages=(float(rng.standard_normal()),) * length,
                role="player",
                turn=0,
            ),
        ),
    )


def measure(size: Size, arguments: argparse.Namespace, peak: float, device: str = "cuda") -> dict[str, Any]:
    """Time updates of a model of that size."""
    with torch.device(device), torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(size.config())
    learner = Learner(
        model,
        LearnerConfig(
            device=device,
            dtype="bfloat16",
            lr=1e-6,
            schedule="constant",
            row_tokens=arguments.tokens,
            micro_batch_tokens=arguments.micro_batch,
            checkpoint_activations=not arguments.no_checkpointing,
        ),
        ObjectiveConfig(),
        temperature=1.0,
        total_steps=100,
        seed=0,
    )
    rng = np.random.default_rng(0)
    samples = [sample(rng, index, arguments.tokens, size.vocabulary) for index in range(arguments.rows)]
    learner.update(samples)
    seconds, model_s = [], []
    for _ in range(arguments.steps):
        began = time.perf_counter()
        model_s.append(learner.update(samples)["model_s"])
        seconds.append(time.perf_counter() - began)
    step_s, tokens = statistics.median(seconds), arguments.rows * arguments.tokens
    done = arguments.rows * operations(size, arguments.tokens, arguments.tokens // 2)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_per_s": tokens / step_s,
        "mfu": done / step_s / peak,
        "step_s": step_s,
        "model_s": statistics.median(model_s),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
    }


def peak_of(name: str) -> float:
    """Operations per second of a card by its name."""
    for part, peak in PEAKS.items():
        if part in name:
            return peak
    raise SystemExit(f"error: the peak of {name} is not known here; give it as --peak OPERATIONS_PER_SECOND")


def main() -> None:
    """Measure the models and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--peak", type=float)
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("error: learner_gpu.py needs a CUDA device, and this machine has none that PyTorch can use")
    card = torch.cuda.get_device_name()
    results: dict[str, Any] = {"card": card, "settings": {k: str(v) for k, v in vars(arguments).items()}, "models": {}}
    for name in arguments.models:
        torch.cuda.reset_peak_memory_stats()
        try:
            results["models"][name] = measure(SIZES[name], arguments, arguments.peak or peak_of(card))
        except torch.cuda.OutOfMemoryError as error:
            results["models"][name] = {"error": str(error).splitlines()[0]}
        print(json.dumps({name: results["models"][name]}), file=sys.stderr, flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    print(json.dumps(results))
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
