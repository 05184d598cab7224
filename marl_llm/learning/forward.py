"""From a micro-batch to log-probabilities, entropies and divergences, as if sequences were run one by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from marl_llm.errors import ModelError
from marl_llm.learning.batch import MicroBatch, attention_mask

CHUNK_LOGITS = 2**25
"""Most logits that exist at a time (128 MiB in float32), unless it is said how many positions have theirs."""


class Trunk(torch.nn.Module):
    """A causal language model up to the head, which is applied to its output in parts (`token_values`).

    One module, so that all that the model's own parameters need before and after a pass can hang on it.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        """Last hidden states (K x H) of the nodes that predict sampled tokens."""
        kwargs: dict[str, Any] = {}
        if batch.ends_BT is not None:
            kwargs = {
                "attention_mask": attention_mask(batch.ends_BT, self.model.dtype),
                "position_ids": batch.depths_BT,
            }
        hidden_BTH = self.model.base_model(input_ids=batch.tokens_BT, use_cache=False, **kwargs).last_hidden_state
        states_KH: torch.Tensor = hidden_BTH.flatten(0, 1).index_select(0, batch.nodes_K)
        return states_KH

    @property
    def head(self) -> torch.nn.Module:
        """From hidden states to logits."""
        head = self.model.get_output_embeddings()
        assert isinstance(head, torch.nn.Module)
        return head


def layers_of(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The transformer layers, which are all alike and follow each other."""
    count = model.config.get_text_config().num_hidden_layers
    lists = (module for module in model.base_model.modules() if isinstance(module, torch.nn.ModuleList))
    return next(layers for layers in lists if len(layers) == count)


def checkpoint_layers(model: PreTrainedModel) -> None:
    """From now on each layer keeps its input alone, and runs again in the backward pass."""
    for layer in layers_of(model):
        again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        setattr(layer, "forward", again)  # noqa: B010


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenValues:
    """What the models say about each sampled token of a micro-batch."""

    logprobs_M: torch.Tensor
    """Log-probabilities (nats) at the given temperature."""
    entropy_M: torch.Tensor
    """Entropy (nats) of the distribution that the token comes from."""
    reference_M: torch.Tensor | None
    """The reference's log-probabilities, without gradient; None without a reference."""
    kl_M: torch.Tensor | None
    """KL(policy || reference) over the whole vocabulary; None unless asked for."""


def check_model(model: PreTrainedModel) -> None:
    """Refuse a model whose attention or head the packing would get wrong.

    Known causes are read from its config; then a small tree is compared with separate sequences. The model
    must be in float32 or float64.

    Raises:
        ModelError: some layers do not use full attention, logits are capped, or the comparison fails.
    """
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds is None and getattr(config, "sliding_window", None) is not None:
        kinds = ["sliding_attention"]
    other = sorted(set(kinds or ()) - {"full_attention"})
    if other:
        raise ModelError(f"{config.model_type}: layers of kind {', '.join(other)}; only full attention can be trained")
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        if getattr(config, key, None) is not None:
            raise ModelError(f"{config.model_type}: {key} is set; models with capped logits cannot be trained")
    attention = config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise ModelError(f"{config.model_type}: attention {attention!r} ignores explicit masks; load it with 'sdpa'")
    if not _trees_are_exact(model):
        raise ModelError(f"{config.model_type}: its forward does not follow explicit masks, positions or the head")


@torch.no_grad()
def _trees_are_exact(model: PreTrainedModel) -> bool:
    device = model.device
    sequences = torch.tensor([[0, 1, 2, 3], [0, 1, 4, 5]], device=device)
    tree = MicroBatch(
        tokens_BT=torch.tensor([[0, 1, 2, 3, 4, 5]], device=device),
        depths_BT=torch.tensor([[0, 1, 2, 3, 2, 3]], device=device),
        ends_BT=torch.tensor([[6, 6, 4, 4, 6, 6]], device=device),
        nodes_K=torch.tensor([0, 1, 2, 3, 0, 1, 4, 5], device=device),
        visits_M=torch.arange(8, device=device),
        sampled_M=torch.arange(8, device=device),
        num_nodes=6,
    )
    expected_KV = model(input_ids=sequences, use_cache=False).logits.flatten(0, 1)
    trunk = Trunk(model)
    logits_KV = trunk.head(trunk(tree))
    scale = float(expected_KV.abs().max())
    return bool(torch.allclose(logits_KV, expected_KV, rtol=1e-3, atol=1e-3 * scale))


def keys_per_token(model: PreTrainedModel) -> float:
    """How many attended keys cost as many multiplications as the rest of a token's pass."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    embedding = model.get_input_embeddings().weight.numel()
    weights = sum(p.numel() for p in model.base_model.parameters()) - embedding
    return float(weights / (2 * width * config.num_hidden_layers))


def token_values(
    trunk: Trunk,
    batch: MicroBatch,
    targets_M: torch.Tensor,
    *,
    temperature: float,
    reference: Trunk | None = None,
    full_kl: bool = False,
    entropy_gradient: bool = False,
    logit_tokens: int | None = None,
) -> TokenValues:
    """Run a micro-batch; `targets_M` are the ids of its sampled tokens. Logits are divided by `temperature`.

    The head is applied once per distinct predicting node, to `logit_tokens` of them at a time (None: as many as have
    `CHUNK_LOGITS` logits). Where that is more than once, logits are computed again in the backward pass.
    """
    states_KH = trunk(batch)
    reference_KH = None
    if reference is not None:
        with torch.no_grad():
            reference_KH = reference(batch)
    head = _Head(
        model=trunk.head,
        reference=None if reference is None else reference.head,
        temperature=temperature,
        full_kl=full_kl,
        entropy_gradient=entropy_gradient,
    )
    size = positions_at_a_time(trunk, logit_tokens)
    found = []
    for nodes, visits in parts(batch, size):
        visits_m, targets_m = batch.visits_M[visits] - nodes.start, targets_M[visits]
        reference_kH = None if reference_KH is None else reference_KH[nodes]
        if len(states_KH) <= size or not torch.is_grad_enabled():
            found.append(head(states_KH[nodes], reference_kH, visits_m, targets_m))
        else:
            inputs = (states_KH[nodes], reference_kH, visits_m, targets_m)
            found.append(checkpoint(head, *inputs, use_reentrant=False, preserve_rng_state=False))
    logprobs, entropy, ref, kl = zip(*found)
    return TokenValues(
        logprobs_M=torch.cat(logprobs),
        entropy_M=torch.cat(entropy),
        reference_M=None if reference is None else torch.cat(ref),
        kl_M=torch.cat(kl) if full_kl else None,
    )


def positions_at_a_time(trunk: Trunk, logit_tokens: int | None) -> int:
    """How many positions have their logits at a time; None: as many as have `CHUNK_LOGITS` logits."""
    return logit_tokens or max(1, CHUNK_LOGITS // trunk.model.config.get_text_config().vocab_size)


def parts(batch: MicroBatch, size: int) -> Iterator[tuple[slice, slice]]:
    """Slices of at most `size` predicting nodes, and those of the visits that they get."""
    for low in range(0, len(batch.nodes_K), size):
        high = min(low + size, len(batch.nodes_K))
        bounds = torch.tensor([low, high], device=batch.visits_M.device)
        first, last = torch.searchsorted(batch.visits_M, bounds).tolist()
        yield slice(low, high), slice(first, last)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Head:
    """The part after the last hidden state, for some of the nodes and the visits they get."""

    model: torch.nn.Module
    reference: torch.nn.Module | None
    temperature: float
    full_kl: bool
    entropy_gradient: bool

    def __call__(
        self,
        states_KH: torch.Tensor,
        reference_KH: torch.Tensor | None,
        visits_M: torch.Tensor,
        targets_M: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        logprobs_KV = self._logprobs(self.model, states_KH)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.entropy_gradient):
            entropy_K = -(logprobs_KV.exp() * logprobs_KV).sum(-1)
        reference_M = kl_K = None
        if self.reference is not None and reference_KH is not None:
            with torch.no_grad():
                reference_KV = self._logprobs(self.reference, reference_KH)
            reference_M = reference_KV[visits_M, targets_M]
            if self.full_kl:
                kl_K = (logprobs_KV.exp() * (logprobs_KV - reference_KV)).sum(-1)
        kl_M = None if kl_K is None else kl_K[visits_M]
        return logprobs_KV[visits_M, targets_M], entropy_K[visits_M], reference_M, kl_M

    def _logprobs(self, head: torch.nn.Module, states_KH: torch.Tensor) -> torch.Tensor:
        logits_KV = head(states_KH)
        wide = torch.promote_types(logits_KV.dtype, torch.float32)
        return torch.log_softmax(logits_KV.to(wide) / self.temperature, dim=-1)
