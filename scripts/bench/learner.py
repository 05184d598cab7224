"""Learner throughput: packed rows against a plain padded loop, same samples, same loss, same process.

    python scripts/bench/learner.py [--repeats 5] [--threads 1] [--json]

The unit is tokens per second, counting every token of every sample, prompts included, through forward, backward and
optimizer step. The plain loop pads each 16 sequences, in the order they come, to their longest.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import VOCABULARY, make_model

from marl_llm.config import LearnerConfig, ObjectiveConfig
from marl_llm.learning.learner import Learner
from marl_llm.types import Sample, Span


def make_sample(rng: np.random.Generator, name: str, prompt: Sequence[int], reply: int) -> Sample:
    """A prompt followed by `reply` random sampled tokens."""
    tokens = (*prompt, *rng.integers(VOCABULARY, size=reply).tolist())
    span = Span(
        start=len(prompt),
        length=reply,
        logprobs=tuple((-6.2 + 0.1 * rng.standard_normal(reply)).tolist()),
        advantages=(float(rng.standard_normal()),) * reply,
        role="player",
        turn=0,
    )
    return Sample(policy="p", game="bench", episode=name, agent="player_0", tokens=tokens, spans=(span,))


def ragged(rng: np.random.Generator) -> list[Sample]:
    """Sequences of 30 to 400 tokens without shared prefixes; the second half of each is sampled."""
    samples = []
    for index in range(256):
        length = int(rng.integers(30, 401))
        prompt = rng.integers(VOCABULARY, size=length - length // 2).tolist()
        samples.append(make_sample(rng, f"e{index}", prompt, length // 2))
    return samples


def self_play(rng: np.random.Generator) -> list[Sample]:
    """Groups of 8 that share a prompt of 100 to 250 tokens, its first 60 common to all; replies of 4 to 32 tokens."""
    samples = []
    rules = rng.integers(VOCABULARY, size=60).tolist()
    for group in range(32):
        prompt = [*rules, *rng.integers(VOCABULARY, size=int(rng.integers(40, 191))).tolist()]
        for member in range(8):
            samples.append(make_sample(rng, f"e{group}.{member}", prompt, int(rng.integers(4, 33))))
    return samples


def padded_step(model: Any, optimizer: torch.optim.Optimizer, samples: Sequence[Sample]) -> None:
    """One update as it is commonly written: PPO's clipped loss, mean over sampled tokens."""
    total = sum(sample.spans[0].length for sample in samples)
    optimizer.zero_grad()
    for start in range(0, len(samples), 16):
        part = samples[start : start + 16]
        width = max(len(sample.tokens) for sample in part)
        tokens_BT = torch.zeros(len(part), width, dtype=torch.int64)
        real_BT = torch.zeros(len(part), width, dtype=torch.int64)
        behaviour_BT, advantages_BT, mask_BT = torch.zeros(3, len(part), width)
        for line, sample in enumerate(part):
            span = sample.spans[0]
            tokens_BT[line, : len(sample.tokens)] = torch.tensor(sample.tokens)
            real_BT[line, : len(sample.tokens)] = 1
            behaviour_BT[line, span.start : len(sample.tokens)] = torch.tensor(span.logprobs)
            advantages_BT[line, span.start : len(sample.tokens)] = torch.tensor(span.advantages)
            mask_BT[line, span.start : len(sample.tokens)] = 1
        logits_BTV = model(input_ids=tokens_BT, attention_mask=real_BT, use_cache=False).logits[:, :-1]
        logprobs_BT = logits_BTV.log_softmax(-1).gather(-1, tokens_BT[:, 1:, None]).squeeze(-1)
        ratio_BT = torch.exp(logprobs_BT - behaviour_BT[:, 1:])
        advantages_BT, mask_BT = advantages_BT[:, 1:], mask_BT[:, 1:]
        loss_BT = torch.maximum(-advantages_BT * ratio_BT, -advantages_BT * ratio_BT.clamp(0.8, 1.2))
        (loss_BT * mask_BT).sum().div(total).backward()
    optimizer.step()


def largest_difference(mine: Any, theirs: Any) -> float:
    """Largest difference between two models' gradients, relative to the largest entry of the gradient."""
    pairs = list(zip(mine.parameters(), theirs.parameters()))
    scale = max(float(b.grad.abs().max()) for _, b in pairs)
    return max(float((a.grad - b.grad).abs().max()) for a, b in pairs) / scale


def compare(samples: Sequence[Sample], repeats: int) -> dict[str, float]:
    """Time both, in turns, and compare their gradients in the first step, from equal weights."""
    plain = make_model()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-5)
    learner = Learner(
        copy.deepcopy(plain),
        LearnerConfig(lr=1e-5, schedule="constant", grad_clip=1e9),
        ObjectiveConfig(importance_cap=None),
        temperature=1.0,
        total_steps=1000,
        seed=0,
    )
    metrics = learner.update(samples)
    padded_step(plain, optimizer, samples)
    difference = largest_difference(learner.model, plain)
    packed_s, padded_s = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        learner.update(samples)
        middle = time.perf_counter()
        padded_step(plain, optimizer, samples)
        packed_s.append(middle - start)
        padded_s.append(time.perf_counter() - middle)
    return {
        "packed_tokens_per_s": metrics["tokens"] / statistics.median(packed_s),
        "padded_tokens_per_s": metrics["tokens"] / statistics.median(padded_s),
        "ratio": statistics.median(slow / fast for slow, fast in zip(padded_s, packed_s)),
        "computed_share": metrics["packed_tokens"] / metrics["tokens"],
        "padding_share": metrics["padding_share"],
        "gradient_difference": difference,
    }


def main() -> None:
    """Run both kinds of data and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {
        name: compare(make(np.random.default_rng(0)), arguments.repeats)
        for name, make in (("ragged", ragged), ("self_play", self_play))
    }
    if arguments.json:
        print(json.dumps(results))
        return
    print(
        f"{'data':<10} {'packed tok/s':>13} {'padded tok/s':>13} {'ratio':>6} {'computed':>9} {'padding':>8} gradient"
    )
    for name, row in results.items():
        print(
            f"{name:<10} {row['packed_tokens_per_s']:>13.0f} {row['padded_tokens_per_s']:>13.0f} {row['ratio']:>6.2f} "
            f"{row['computed_share']:>9.1%} {row['padding_share']:>8.1%} differs by {row['gradient_difference']:.1e}"
        )


if __name__ == "__main__":
    main()
