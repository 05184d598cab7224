"""How a transformers model attends when the engine runs it, and attention over trees of continuations.

The tokens of all sequences are packed into one batch row, so that no linear layer ever sees padding; only attention
knows which tokens belong together. The model calls it through transformers' attention interface, with the keyword
`plan` that was given to `model(...)`.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from marl_llm.errors import ModelError

NAME = "marl_llm"
"""The attention implementation under which transformers knows this one."""


class Plan(Protocol):
    """Who attends to what in one forward pass of N packed tokens."""

    def attend(
        self, layer: int, query_NHD: torch.Tensor, key_NHD: torch.Tensor, value_NHD: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """Outputs (N, heads, head dim of the values)."""


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    plan: Plan | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    if plan is None:
        raise ModelError(f"{type(module).__name__} does not pass keywords on to its attention; engine hf cannot run it")
    layer: int = module.layer_idx  # type: ignore[assignment]
    query_NHD, key_NHD, value_NHD = (x_1HND[0].transpose(0, 1) for x_1HND in (query, key, value))
    out_NHD = plan.attend(layer, query_NHD, key_NHD, value_NHD, scaling)
    return out_NHD[None], None


AttentionInterface.register(NAME, _attention)


class Padding:
    """Moves tokens between their packed places and a (B, T) block."""

    def __init__(self, starts_B: NDArray[np.int64], counts_B: NDArray[np.int64], device: torch.device) -> None:
        steps_T = np.arange(counts_B.max())
        valid_BT = steps_T < counts_B[:, None]
        packed_BT = starts_B[:, None] + np.minimum(steps_T, counts_B[:, None] - 1)
        self.shape = packed_BT.shape
        self._packed = torch.from_numpy(packed_BT.ravel()).to(device)
        self._real = torch.from_numpy(np.flatnonzero(valid_BT)).to(device)
        self._target = torch.from_numpy(packed_BT[valid_BT]).to(device)

    def pad(self, packed_NHD: torch.Tensor) -> torch.Tensor:
        """(N, H, D) to (B, H, T, D)."""
        return packed_NHD[self._packed].reshape(*self.shape, *packed_NHD.shape[1:]).transpose(1, 2)

    def unpad(self, block_BHTD: torch.Tensor, into_NHD: torch.Tensor) -> None:
        """(B, H, T, D) back to the packed places."""
        into_NHD[self._target] = block_BHTD.transpose(1, 2).flatten(0, 1)[self._real]


class TreeStep:
    """Packed trees: a stem each, and branches that see the stem and themselves, all behind one shared prefix.

    `branches` has, per tree and token, 0 for the stem (which comes first) and b for the b-th branch.
    `prefix` has the (keys, values) per layer of the shared prefix, as `kept` of an earlier step; empty: no prefix.
    """

    def __init__(
        self,
        branches: Sequence[Sequence[int]],
        prefix: Sequence[tuple[torch.Tensor, torch.Tensor]],
        *,
        groups: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        counts_B = np.array([len(tree) for tree in branches])
        self._padding = Padding(counts_B.cumsum() - counts_B, counts_B, device)
        self._prefix = prefix
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Keys and values per layer (N, heads, head dim) of this step's own tokens."""
        width = int(counts_B.max())
        branch_BT = np.array([[*tree, *[-1] * (width - len(tree))] for tree in branches])
        own_BTT = (branch_BT[:, None, :] == 0) | (branch_BT[:, None, :] == branch_BT[:, :, None])
        own_BTT &= np.tri(width, dtype=bool)
        before_BTP = np.ones((len(branches), width, len(prefix[0][0]) if prefix else 0), dtype=bool)
        visible_B1QL = np.tile(np.concatenate((before_BTP, own_BTT), axis=2)[:, None], (1, 1, groups, 1))
        self._mask_B1QL = additive(visible_B1QL, dtype, device)

    def attend(
        self, layer: int, query_NHD: torch.Tensor, key_NHD: torch.Tensor, value_NHD: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """See `Plan`."""
        self.kept.append((key_NHD, value_NHD))
        key_BHLD, value_BHLD = self._padding.pad(key_NHD), self._padding.pad(value_NHD)
        if self._prefix:
            before_key, before_value = (x_PHD.transpose(0, 1) for x_PHD in self._prefix[layer])
            key_BHLD = torch.cat((before_key.expand(len(key_BHLD), -1, -1, -1), key_BHLD), dim=2)
            value_BHLD = torch.cat((before_value.expand(len(value_BHLD), -1, -1, -1), value_BHLD), dim=2)
        out_BHTD = grouped(self._padding.pad(query_NHD), key_BHLD, value_BHLD, self._mask_B1QL, scale)
        out_NHD = query_NHD.new_empty(*query_NHD.shape[:-1], value_NHD.shape[-1])
        self._padding.unpad(out_BHTD, out_NHD)
        return out_NHD


def grouped(
    query_BHTD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    mask_B1QL: torch.Tensor,
    scale: float | None,
) -> torch.Tensor:
    """Attention of H query heads to K key/value heads; the mask has the T queries once per head of a group."""
    batch, heads, steps, dim = query_BHTD.shape
    query_BKQD = query_BHTD.reshape(batch, key_BKLD.shape[1], -1, dim)
    out_BKQD = scaled_dot_product_attention(query_BKQD, key_BKLD, value_BKLD, attn_mask=mask_B1QL, scale=scale)
    return out_BKQD.reshape(batch, heads, steps, -1)


def additive(visible: NDArray[np.bool_], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    mask = torch.zeros(visible.shape, dtype=dtype)
    return mask.masked_fill_(torch.from_numpy(~visible), -torch.inf).to(device)
