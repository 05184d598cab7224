"""What several benchmarks share."""

import argparse

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 512


def make_model(vocabulary: int = VOCABULARY, hidden: int = 128) -> Qwen3ForCausalLM:
    """An untrained Qwen3, by default with about one million parameters; always the same."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=256,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen3ForCausalLM(config)


def parse_step_arguments(parser: argparse.ArgumentParser, *, steps: int) -> argparse.Namespace:
    """The arguments of a benchmark of whole training steps; `steps` is the default number of them."""
    parser.add_argument("--groups", type=int, default=32)
    parser.add_argument("--steps", type=int, default=steps, help="steps; the first is not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds: on a busy machine, with --threads 1"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.steps < 2:
        parser.error("--steps must be 2 or more: the first is not counted")
    return args
