"""Sampled tokens per second on a self-play load: our engine against transformers `generate`; and, where vLLM is
installed, our engine with vLLM and vLLM's own offline batch.

Conversations come in groups that share their first prompt. Every turn adds observation tokens and samples until the
conversation's budget for that turn, which is drawn once and is the same for all contenders (as if an end token came
there), so that all sample equally many tokens. `generate` gets its best batch size, and prompts sorted by length.

    python scripts/bench/rollout.py [--threads 2] [--json]
    make bench-vllm
"""

import argparse
import gc
import importlib.util
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from common import VOCABULARY, make_model
from transformers import GenerationConfig, PreTrainedModel, Qwen3ForCausalLM, StoppingCriteria
from transformers.generation import StoppingCriteriaList

from marl_llm.engines.base import Engine, Request
from marl_llm.engines.hf import HFEngine
from marl_llm.engines.vllm import VLLMEngine
from marl_llm.types import Tokens

NEVER = VOCABULARY
"""An end token outside the vocabulary: budgets alone decide."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What happens to one conversation in one turn."""

    observation: Tokens
    """Appended to the conversation; in the first turn, the whole prompt."""
    samples: int
    """Tokens that are sampled then."""


Load = list[list[Turn]]
"""Conversations, as their turns."""


def make_load(*, conversations: int, group: int, turns: int, prompt: int, observation: int, samples: int) -> Load:
    rng = random.Random(0)

    def tokens(mean: int) -> Tokens:
        return tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(mean - mean // 5, mean + mean // 5)))

    load = []
    for _ in range(conversations // group):
        first = tokens(prompt)
        for _ in range(group):
            load.append(
                [
                    Turn(observation=tokens(observation) if t else first, samples=rng.randint(samples // 2, samples))
                    for t in range(turns)
                ]
            )
    return load


def make_player() -> Qwen3ForCausalLM:
    model = make_model().eval()
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0)
    return model


def play_engine(engine: Engine, load: Load) -> int:
    """Each conversation goes on as soon as its turn is sampled; nothing is cached at the start. Sampled tokens."""
    sequences: list[Tokens] = [()] * len(load)

    def submit(conversation: int, turn: int) -> None:
        step = load[conversation][turn]
        sequences[conversation] += step.observation
        engine.submit(
            Request(
                ticket=(conversation, turn),
                policy="p",
                prompt=sequences[conversation],
                max_tokens=step.samples,
                seed=conversation * 100 + turn,
            )
        )

    for conversation in range(len(load)):
        submit(conversation, 0)
    sampled = 0
    open_turns = len(load) * len(load[0])
    while open_turns:
        for ticket, completion in engine.poll():
            assert isinstance(ticket, tuple)
            conversation, turn = ticket
            sequences[conversation] += completion.tokens
            sampled += len(completion.tokens)
            open_turns -= 1
            if turn + 1 < len(load[conversation]):
                submit(conversation, turn + 1)
    return sampled


class Budgets(StoppingCriteria):  # type: ignore[misc]
    """Ends each row of a batch when its budget is sampled."""

    def __init__(self, prompt_tokens: int, budgets: list[int]) -> None:
        self._ends_B = prompt_tokens + torch.tensor(budgets)

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return input_ids.shape[1] >= self._ends_B


def play_generate(model: PreTrainedModel, load: Load, batch: int) -> int:
    """Turn by turn; each turn's prompts sorted by length and cut into batches, left-padded. Sampled tokens."""
    sequences: list[Tokens] = [()] * len(load)
    sampled = 0
    for turn in range(len(load[0])):
        for i, conversation in enumerate(load):
            sequences[i] += conversation[turn].observation
        order = sorted(range(len(load)), key=lambda i: len(sequences[i]))
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            width = max(len(sequences[i]) for i in rows)
            tokens_BT = torch.tensor([[0] * (width - len(sequences[i])) + list(sequences[i]) for i in rows])
            mask_BT = torch.tensor([[0] * (width - len(sequences[i])) + [1] * len(sequences[i]) for i in rows])
            budgets = [load[i][turn].samples for i in rows]
            out_BT = model.generate(
                tokens_BT,
                attention_mask=mask_BT,
                max_new_tokens=max(budgets),
                stopping_criteria=StoppingCriteriaList([Budgets(width, budgets)]),
            )
            for i, budget, row in zip(rows, budgets, out_BT.tolist()):
                sequences[i] += tuple(row[width : width + budget])
                sampled += budget
    return sampled


def play_vllm(model: PreTrainedModel, load: Load) -> Callable[[], int]:
    """A contender that keeps vLLM's processes; its prefix cache is on. All prompts of a turn are one batch."""
    import tempfile

    # In processes of its own, as LLM is by default, and on as many cores as the others have.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{torch.get_num_threads() - 1}"
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    from vllm import LLM, SamplingParams

    folder = tempfile.mkdtemp()
    model.save_pretrained(folder)
    llm = LLM(
        folder,
        skip_tokenizer_init=True,
        dtype="float32",
        max_model_len=1024,
        max_num_seqs=len(load),
        kv_cache_memory_bytes=2**30,
    )

    def play() -> int:
        llm.reset_prefix_cache()
        sequences: list[Tokens] = [()] * len(load)
        sampled = 0
        for turn in range(len(load[0])):
            for i, conversation in enumerate(load):
                sequences[i] += conversation[turn].observation
            outputs = llm.generate(
                [{"prompt_token_ids": list(tokens)} for tokens in sequences],
                [
                    SamplingParams(max_tokens=c[turn].samples, ignore_eos=True, logprobs=0, detokenize=False)
                    for c in load
                ],
                use_tqdm=False,
            )
            for i, output in enumerate(outputs):
                sequences[i] += tuple(output.outputs[0].token_ids)
                sampled += len(output.outputs[0].token_ids)
        return sampled

    return play


def measure(contenders: dict[str, Callable[[], int]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Best tokens per second of each. All take turns, so that a busy machine is busy for all of them."""
    rates = dict.fromkeys(contenders, 0.0)
    for _ in range(rounds):
        for name, play in contenders.items():
            gc.collect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            began = clock()
            sampled = play()
            rate = sampled / (clock() - began)
            rates[name] = max(rates[name], rate)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(
                f"{name:20s} {rate:7.0f} tokens/s, {sampled} sampled, "
                f"peak memory {peak / 2**10:.0f} MiB (+{(peak - before) / 2**10:.0f})",
                file=sys.stderr,
                flush=True,
            )
    return rates


def best_ratios(rates: dict[str, float]) -> dict[str, float]:
    """Our rates over vLLM's and over that of the best batch size of `generate`, as far as they took part."""
    generate = [name for name in rates if name.startswith("generate")]
    others = [name for name in rates if name == "vllm"] + sorted(generate, key=rates.__getitem__)[-1:]
    ours = [name for name in rates if name.startswith("engine")]
    ratios = {f"{mine} / {name}": rates[mine] / rates[name] for mine in ours for name in others}
    if "engine vllm" in rates:
        ratios["engine vllm / engine hf"] = rates["engine vllm"] / rates["engine hf"]
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--conversations", type=int, default=256)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--cache-slots", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds: on a busy machine, with --threads 1 (not for vLLM)"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = make_player()
    load = make_load(
        conversations=args.conversations, group=8, turns=args.turns, prompt=100, observation=20, samples=32
    )
    print(
        f"{args.conversations} conversations x {args.turns} turns, {model.num_parameters():,} parameters, "
        f"{args.threads} threads",
        file=sys.stderr,
    )
    engine = HFEngine(
        model,
        policy="p",
        slots=args.slots,
        cache_slots=args.cache_slots,
        context_tokens=1024,
        eos_token_id=NEVER,
    )

    def play_ours() -> int:
        engine.load_weights("p", model.state_dict(), version=0)
        return play_engine(engine, load)

    contenders: dict[str, Callable[[], int]] = {"engine hf": play_ours}
    for batch in args.batches:
        contenders[f"generate, batch {batch}"] = partial(play_generate, model, load, batch)
    if importlib.util.find_spec("vllm"):
        contenders["vllm"] = play_vllm(model, load)
        sizes = {"slots": args.slots, "cache_slots": args.cache_slots, "context_tokens": 1024}
        with_vllm = VLLMEngine(model, policy="p", eos_token_id=NEVER, **sizes)

        def play_with_vllm() -> int:
            with_vllm.forget()
            return play_engine(with_vllm, load)

        contenders["engine vllm"] = play_with_vllm
    rates = measure(contenders, args.rounds, time.process_time if args.cpu_time else time.perf_counter)
    counters = engine.stats()
    outside = 1 - counters["forward_s"] / counters["total_s"]
    reused = counters["reused_tokens"] / counters["prompt_tokens"]
    ratios = best_ratios(rates)
    if args.json:
        print(json.dumps({"tokens_per_s": rates, "ratios": ratios, "outside": outside, "reused": reused}))
        return
    print(f"engine hf: {outside:.1%} of its time outside the model's forward; {reused:.1%} of prompt tokens reused")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
