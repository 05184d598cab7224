"""The learner: throughput of packed rows against a plain padded loop, and what the logits of a large vocabulary take.

    python scripts/bench/learner.py [--repeats 5] [--threads 1] [--vocabulary 151936] [--positions 1024] [--json]

Throughput: same samples, same loss, same process. The unit is tokens per second, counting every token of every sample,
prompts included, through forward, backward and optimizer step. The plain loop pads each 16 sequences, in the order they
come, to their longest.

Memory: how much an update adds to what its process holds (peak of the resident set, VmHWM, less what was resident
before; a process of its own for each), with logits of all sampled positions at once and with as many as
`learner.logit_tokens` has by default.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import VOCABULARY, make_model

from marl_llm.config import KLConfig, LearnerConfig, ObjectiveConfig
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


OBJECTIVES = {
    "policy": ObjectiveConfig(),
    "with full KL and entropy": ObjectiveConfig(kl=KLConfig(reference="frozen", coef=0.1), entropy=0.01),
}


def resident(key: str) -> int:
    """Bytes of this process in memory: now (`VmRSS`), or at most so far (`VmHWM`)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def added(objective: ObjectiveConfig, logit_tokens: int | None, vocabulary: int, positions: int) -> int:
    """Bytes that an update adds at most to what this process has had in memory, with a narrow model."""
    model = make_model(vocabulary, hidden=32)
    rng = np.random.default_rng(0)
    samples = [make_sample(rng, f"e{index}", [1, 2], 64) for index in range(positions // 64)]
    learner = Learner(
        model, LearnerConfig(logit_tokens=logit_tokens), objective, temperature=1.0, total_steps=9, seed=0
    )
    learner.update([make_sample(rng, "first", [1, 2], 2)])  # so that gradients and moments are there
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    learner.update(samples)
    return resident("VmHWM") - before


def logit_memory(vocabulary: int, positions: int, threads: int) -> dict[str, dict[str, float]]:
    """MiB that an update adds, by objective, with all logits at once and with the default."""
    found: dict[str, dict[str, float]] = {}
    for name in OBJECTIVES:
        found[name] = {}
        for label in ("at once", "in chunks"):
            options = ["--threads", str(threads), "--vocabulary", str(vocabulary), "--positions", str(positions)]
            command = [sys.executable, __file__, *options, "--added", name, label]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name][label] = float(done.stdout) / 2**20
    return found


def main() -> None:
    """Run everything and print tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--added", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.added:
        name, label = arguments.added
        tokens = arguments.positions if label == "at once" else None
        print(added(OBJECTIVES[name], tokens, arguments.vocabulary, arguments.positions))
        return
    results: dict[str, Any] = {
        name: compare(make(np.random.default_rng(0)), arguments.repeats)
        for name, make in (("ragged", ragged), ("self_play", self_play))
    }
    memory = logit_memory(arguments.vocabulary, arguments.positions, arguments.threads)
    if arguments.json:
        print(json.dumps(results | {"logits_mib": memory}))
        return
    print(
        f"{'data':<10} {'packed tok/s':>13} {'padded tok/s':>13} {'ratio':>6} {'computed':>9} {'padding':>8} gradient"
    )
    for name, row in results.items():
        print(
            f"{name:<10} {row['packed_tokens_per_s']:>13.0f} {row['padded_tokens_per_s']:>13.0f} {row['ratio']:>6.2f} "
            f"{row['computed_share']:>9.1%} {row['padding_share']:>8.1%} differs by {row['gradient_difference']:.1e}"
        )
    print(f"\nMiB added by an update, {arguments.positions} sampled positions, vocabulary {arguments.vocabulary:,}")
    for name, sizes in memory.items():
        print(f"{name:<26} at once {sizes['at once']:>8.0f}   in chunks {sizes['in chunks']:>8.0f}")


if __name__ == "__main__":
    main()
