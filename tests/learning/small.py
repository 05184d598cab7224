"""A model of next to no size, and work for it that several processes do together."""

import multiprocessing
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from marl_llm.learning import sharding

SIZE = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
}


def make_qwen3(*, tied: bool = False, seed: int = 0, **settings: Any) -> Qwen3ForCausalLM:
    """A Qwen3 with 20 tokens, 2 layers and grouped keys; equal calls give equal weights."""
    config = Qwen3Config(**SIZE | settings, initializer_range=0.3, tie_word_embeddings=tied)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).eval()


def make_experts() -> Qwen3MoeForCausalLM:
    """One of whose eight experts only one sees a token."""
    config = Qwen3MoeConfig(
        **SIZE, moe_intermediate_size=8, num_experts=8, num_experts_per_tok=1, initializer_range=0.3
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen3MoeForCausalLM(config).eval()


def together(processes: int, act: Callable[..., Any], *arguments: Any, timeout_s: float = 120.0) -> list[Any]:
    """What `act(processes, *arguments)` returns in each of several processes that make up one learner."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.learning.small", "marl_llm.learning.learner", "marl_llm.models"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    started = [
        context.Process(target=_run, args=(address, rank, processes, there, act, arguments))
        for rank, (_, there) in enumerate(pipes)
    ]
    for process in started:
        process.start()
    try:
        told = [pickle.loads(here.recv_bytes()) if here.poll(timeout_s) else (False, "no answer") for here, _ in pipes]
    finally:
        for process in started:
            process.terminate()
            process.join()
    failures = [text for fine, text in told if not fine]
    assert not failures, "\n".join(failures)
    return [result for _, result in told]


def _run(address: str, rank: int, processes: int, pipe: Any, act: Callable[..., Any], arguments: Any) -> None:
    torch.set_num_threads(1)
    try:
        sharding.join(address, rank=rank, processes=processes, device="cpu", timeout_s=60.0)
        pipe.send_bytes(pickle.dumps((True, act(processes, *arguments))))
        sharding.leave()
    except BaseException:
        pipe.send_bytes(pickle.dumps((False, f"process {rank}: {traceback.format_exc()}")))
