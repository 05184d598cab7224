"""Rows of keys and values, and one forward pass that reads and extends them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import scaled_dot_product_attention

from marl_llm.engines.attention import Padding, additive, grouped
from marl_llm.engines.slots import Copy

_ROUND = 16
"""Keys are read in multiples of this: fast kernels want it, and masks hide the rest."""
_RUN_ROWS = 32
"""Rows that decode in one kernel on CPU, where kernels start for free: a run reads up to its own longest sequence."""
_MAX_GAP = 2
"""Idle rows between two decoding rows that are computed along rather than starting another kernel."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """What is fed to the model in one pass: of each of B sequences `counts` tokens, at positions `starts` and up.

    Sequences of one token must come first, sorted by row, and then the others by falling length.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]


class KVCache:
    """Keys and values per layer, (rows, heads, positions, head dim); positions grow to the longest sequence seen."""

    def __init__(
        self, shapes: Sequence[tuple[int, int, int]], *, rows: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """`shapes` has (key/value heads, head dim of the keys, head dim of the values) of each layer."""
        self.heads = shapes[0][0]
        self.positions = 0
        self._options: dict[str, Any] = {"dtype": dtype, "device": device}
        self._dims = [dims for _, *dims in shapes]
        widths = [dim for dims in self._dims for dim in dims]
        self._stores = {
            dim: torch.zeros(widths.count(dim), rows, self.heads, 0, dim, **self._options) for dim in set(widths)
        }
        """All keys and values of one head dim, in the order of layers: a copy is one operation."""
        self.layers: list[tuple[torch.Tensor, ...]] = []
        """(keys, values): views of `_stores`."""

    def reserve(self, positions: int) -> None:
        """Make room for sequences of that many tokens. What was never written is zero: masked, but read."""
        if positions <= self.positions:
            return
        self.positions = _round_up(max(positions, self.positions * 3 // 2), 64)
        self._stores = {dim: self._grown(old_SRHCD) for dim, old_SRHCD in self._stores.items()}
        views = {dim: iter(store) for dim, store in self._stores.items()}
        self.layers = [tuple(next(views[dim]) for dim in dims) for dims in self._dims]

    def _grown(self, old_SRHCD: torch.Tensor) -> torch.Tensor:
        *sizes, used, dim = old_SRHCD.shape
        new_SRHCD = _zeros((*sizes, self.positions, dim), **self._options)
        new_SRHCD[..., :used, :] = old_SRHCD
        return new_SRHCD

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copy positions from row to row, in order."""
        for copy in copies:
            for x_SRHCD in self._stores.values():
                source_S1HCD = x_SRHCD[:, copy.source, None, :, copy.begin : copy.end]
                for rows in _stretches(copy.targets):
                    x_SRHCD[:, rows, :, copy.begin : copy.end] = source_S1HCD


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring rows that read one token each; they are packed at `first : last`."""

    first: int
    last: int
    rows: slice
    among: torch.Tensor | None
    """Where they sit among the rows of the slice; None: there are no others."""
    mask_R11L: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Block:
    """Sequences that read T tokens or somewhat fewer; padded to T within attention."""

    rows_B: torch.Tensor
    mask_B1QL: torch.Tensor
    padding: Padding


class CachedStep:
    """Every sequence reads its row of the cache and itself, and is written to the row."""

    def __init__(self, cache: KVCache, chunks: Chunks, *, query_heads: int) -> None:
        assert (chunks.starts + chunks.counts).max() <= cache.positions
        self._cache = cache
        key = cache.layers[0][0]
        self._device, self._dtype = key.device, key.dtype
        self._groups = query_heads // cache.heads
        self._run_rows = _RUN_ROWS if self._device.type == "cpu" else len(key)
        self._offsets_B = chunks.counts.cumsum() - chunks.counts
        rows_N = chunks.rows.repeat(chunks.counts)
        positions_N = (chunks.starts - self._offsets_B).repeat(chunks.counts) + np.arange(len(rows_N))
        heads_H = np.arange(cache.heads)
        places_NH = (rows_N[:, None] * cache.heads + heads_H) * cache.positions + positions_N[:, None]
        self._places = torch.from_numpy(places_NH.ravel()).to(self._device)
        self.positions_N = torch.from_numpy(positions_N).to(self._device)
        singles = int((chunks.counts == 1).sum())
        self._runs = self._make_runs(rows_N[:singles], positions_N[:singles])
        self._blocks = self._make_blocks(chunks, singles)

    def _make_runs(self, rows_B: NDArray[np.int64], positions_B: NDArray[np.int64]) -> list[_Run]:
        if not len(rows_B):
            return []
        # An idle row in between attends to its first key: any will do, its output is thrown away.
        seen_R = np.zeros(rows_B[-1] + 1, dtype=np.int64)
        seen_R[rows_B] = positions_B
        keys_L = np.arange(_round_up(int(positions_B.max()) + 1, _ROUND))
        mask_R11L = additive(keys_L <= seen_R[:, None, None, None], self._dtype, self._device)
        ends_B = np.flatnonzero((np.diff(rows_B) > _MAX_GAP + 1) | (np.diff(rows_B // self._run_rows) > 0)) + 1
        return [
            self._make_run(first, last, rows_B[first:last], positions_B[first:last], mask_R11L)
            for first, last in pairwise([0, *ends_B.tolist(), len(rows_B)])
        ]

    def _make_run(
        self,
        first: int,
        last: int,
        rows_B: NDArray[np.int64],
        positions_B: NDArray[np.int64],
        mask_R11L: torch.Tensor,
    ) -> _Run:
        rows = slice(int(rows_B[0]), int(rows_B[-1]) + 1)
        dense = rows.stop - rows.start == last - first
        return _Run(
            first=first,
            last=last,
            rows=rows,
            among=None if dense else torch.from_numpy(rows_B - rows.start).to(self._device),
            mask_R11L=mask_R11L[rows, ..., : _round_up(int(positions_B.max()) + 1, _ROUND)],
        )

    def _make_blocks(self, chunks: Chunks, first: int) -> list[_Block]:
        blocks = []
        counts = chunks.counts.tolist()
        while first < len(counts):
            last = first + 1
            # Padding inside attention is cheap, but not free.
            while last < len(counts) and counts[last] * 4 >= counts[first] * 3:
                last += 1
            blocks.append(self._make_block(chunks, first, last))
            first = last
        return blocks

    def _make_block(self, chunks: Chunks, first: int, last: int) -> _Block:
        starts_B, counts_B = chunks.starts[first:last], chunks.counts[first:last]
        keys_L = np.arange(_round_up(int((starts_B + counts_B).max()), _ROUND))
        seen_BT = starts_B[:, None] + np.arange(counts_B[0])
        visible_B1QL = np.tile(keys_L <= seen_BT[:, None, :, None], (1, 1, self._groups, 1))
        return _Block(
            rows_B=torch.from_numpy(chunks.rows[first:last]).to(self._device),
            mask_B1QL=additive(visible_B1QL, self._dtype, self._device),
            padding=Padding(self._offsets_B[first:last], counts_B, self._device),
        )

    def attend(
        self, layer: int, query_NHD: torch.Tensor, key_NHD: torch.Tensor, value_NHD: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """See `Plan`. Writes keys and values of all N tokens to the cache first."""
        keys_RHCD, values_RHCD = self._cache.layers[layer]
        for cached, new in ((keys_RHCD, key_NHD), (values_RHCD, value_NHD)):
            cached.view(-1, cached.shape[-1]).index_copy_(0, self._places, new.reshape(-1, new.shape[-1]))
        out_NHD = query_NHD.new_empty(*query_NHD.shape[:-1], value_NHD.shape[-1])
        for run in self._runs:
            out_NHD[run.first : run.last] = self._decode(run, query_NHD, keys_RHCD, values_RHCD, scale)
        for block in self._blocks:
            length = block.mask_B1QL.shape[-1]
            query_BHTD = block.padding.pad(query_NHD)
            key_BHLD = keys_RHCD[:, :, :length][block.rows_B]
            value_BHLD = values_RHCD[:, :, :length][block.rows_B]
            out_BHTD = grouped(query_BHTD, key_BHLD, value_BHLD, block.mask_B1QL, scale)
            block.padding.unpad(out_BHTD, out_NHD)
        return out_NHD

    def _decode(
        self,
        run: _Run,
        query_NHD: torch.Tensor,
        keys_RHCD: torch.Tensor,
        values_RHCD: torch.Tensor,
        scale: float | None,
    ) -> torch.Tensor:
        query_RHD = query_NHD[run.first : run.last]
        if run.among is not None:
            query_RHD = query_RHD.new_zeros(len(run.mask_R11L), *query_RHD.shape[1:]).index_copy_(
                0, run.among, query_RHD
            )
        # Query heads that share a key/value head become queries of one head: nothing is repeated in memory.
        query_RHGD = query_RHD.reshape(len(query_RHD), -1, self._groups, query_RHD.shape[-1])
        length = run.mask_R11L.shape[-1]
        out_RHGD = scaled_dot_product_attention(
            query_RHGD,
            keys_RHCD[run.rows, :, :length],
            values_RHCD[run.rows, :, :length],
            attn_mask=run.mask_R11L,
            scale=scale,
        )
        out_RHD = out_RHGD.flatten(1, 2)
        return out_RHD if run.among is None else out_RHD[run.among]


def _zeros(shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on CPU in memory that numpy asks the kernel to back with huge pages: decoding jumps from row to row."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


def _stretches(rows: Sequence[int]) -> list[slice]:
    """Rows as slices of neighbours."""
    cuts = [0, *(i for i in range(1, len(rows)) if rows[i] != rows[i - 1] + 1), len(rows)]
    return [slice(rows[first], rows[last - 1] + 1) for first, last in pairwise(cuts)]


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
