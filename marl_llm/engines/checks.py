"""What every engine refuses, and in which words."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from math import inf
from typing import Any

import torch

from marl_llm.engines.base import Request
from marl_llm.errors import ModelError
from marl_llm.types import Tokens


def check_policy(policy: str, policies: Sequence[str]) -> None:
    """Refuse a policy that the engine does not have."""
    if policy not in policies:
        raise ValueError(f"unknown policy {policy!r}; this engine has {', '.join(policies)}")


def check_request(request: Request, context_tokens: int, in_flight: Collection[Hashable]) -> None:
    """Refuse a request that leaves no room for a token, has impossible settings, or whose ticket is in use."""
    if not 1 <= len(request.prompt) < context_tokens:
        raise ValueError(
            f"ticket {request.ticket!r}: the prompt has {len(request.prompt)} tokens; "
            f"1 to {context_tokens - 1} leave room for one more in {context_tokens}"
        )
    if request.max_tokens < 1 or not 0 <= request.temperature < inf or not 0 <= request.seed < 2**63:
        raise ValueError(
            f"ticket {request.ticket!r}: max_tokens must be 1 or more, temperature 0 or more and seed "
            f"in [0, 2**63), not {request.max_tokens}, {request.temperature} and {request.seed}"
        )
    if request.ticket in in_flight:
        raise ValueError(f"ticket {request.ticket!r} is already in flight")


def check_flying(ticket: Hashable, in_flight: Collection[Hashable]) -> None:
    """Refuse a ticket that nobody has."""
    if ticket not in in_flight:
        raise ValueError(f"ticket {ticket!r} is not in flight")


def check_pairs(pairs: Sequence[tuple[Tokens, Tokens]], context_tokens: int, temperature: float) -> None:
    """Refuse what cannot be scored."""
    if not 0 < temperature < inf:
        raise ValueError(f"temperature must be more than 0 where tokens are scored, not {temperature}")
    for prompt, continuation in pairs:
        if not prompt or len(prompt) + len(continuation) > context_tokens:
            raise ValueError(
                f"a prompt of {len(prompt)} and a continuation of {len(continuation)} tokens cannot be scored: "
                f"the prompt needs one or more, and both must fit {context_tokens}"
            )


def check_positions(config: Any, context_tokens: int) -> None:
    """Refuse a context that is longer than the positions that the model knows."""
    known = getattr(config, "max_position_embeddings", None)
    if known is not None and context_tokens > known:
        raise ModelError(f"the model knows {known} positions, fewer than the {context_tokens} tokens of context")


def check_weights(
    parameters: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], needed: Collection[str]
) -> None:
    """Refuse weights with unknown names, without some of those needed, or of other shapes than `parameters`.

    Tied parameters are one tensor under several names, any of which will do.
    """
    unknown = sorted(weights.keys() - parameters.keys())
    given = {id(parameters[name]) for name in weights.keys() & parameters.keys()}
    missing = sorted(name for name in needed if name in parameters and id(parameters[name]) not in given)
    if unknown or missing:
        parts = [
            f"{what} {names[0]!r} and {len(names) - 1} more"
            for what, names in (("unknown", unknown), ("missing", missing))
            if names
        ]
        raise ModelError(f"these are not the model's weights: {'; '.join(parts)}")
    for name, tensor in weights.items():
        if tensor.shape != parameters[name].shape:
            raise ModelError(
                f"weight {name!r} has shape {tuple(tensor.shape)}; the model's is {tuple(parameters[name].shape)}"
            )
