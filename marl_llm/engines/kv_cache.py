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
class Chunk:
    """Tokens of one sequence that are fed to the model in one pass, at positions `start` and up."""

    row: int
    start: int
    tokens: Sequence[int]

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


class KVCache:
    """Keys and values per layer, (rows, heads, positions, head dim); positions grow to the longest sequence seen."""

    def __init__(
        self, shapes: Sequence[tuple[int, int, int]], *, rows: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """`shapes` has (key/value heads, head dim of the keys, head dim of the values) of each layer."""
        self.heads = shapes[0][0]
        self.positions = 0
        self._options: dict[str, Any] = {"dtype": dtype, "device": device}
        self.layers = [
            tuple(torch.zeros(rows, heads, 0, dim, **self._options) for dim in dims) for heads, *dims in shapes
        ]

    def reserve(self, positions: int) -> None:
        """Make room for sequences of that many tokens. What was never written is zero: masked, but read."""
        if positions <= self.positions:
            return
        self.positions = _round_up(max(positions, self.positions * 3 // 2), 64)
        for i, layer in enumerate(self.layers):
            self.layers[i] = tuple(self._grown(x_RHCD) for x_RHCD in layer)

    def _grown(self, old_RHCD: torch.Tensor) -> torch.Tensor:
        rows, heads, used, dim = old_RHCD.shape
        new_RHCD = _zeros((rows, heads, self.positions, dim), **self._options)
        new_RHCD[:, :, :used] = old_RHCD
        return new_RHCD

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copy positions from row to row, in order."""
        for copy in copies:
            stretches = _stretches(copy.targets)
            for layer in self.layers:
                for x_RHCD in layer:
                    source_HCD = x_RHCD[copy.source, :, copy.begin : copy.end]
                    for rows in stretches:
                        x_RHCD[rows, :, copy.begin : copy.end] = source_HCD


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
    """Every chunk reads its row of the cache and itself, and is written to the row.

    `chunks` must have those of one token first, sorted by row, and then the others by falling length.
    """

    def __init__(self, cache: KVCache, chunks: Sequence[Chunk], *, query_heads: int) -> None:
        assert all(chunk.end <= cache.positions for chunk in chunks)
        self._cache = cache
        key = cache.layers[0][0]
        self._device, self._dtype = key.device, key.dtype
        self._groups = query_heads // cache.heads
        self._run_rows = _RUN_ROWS if self._device.type == "cpu" else len(key)
        counts = np.array([len(chunk.tokens) for chunk in chunks])
        self._offsets: list[int] = [0, *counts.cumsum().tolist()]
        rows_N = np.array([chunk.row for chunk in chunks]).repeat(counts)
        positions_N = np.array([c.start - o for c, o in zip(chunks, self._offsets)]).repeat(counts)
        positions_N += np.arange(len(positions_N))
        heads_H = np.arange(cache.heads)
        places_NH = (rows_N[:, None] * cache.heads + heads_H) * cache.positions + positions_N[:, None]
        self._places = torch.from_numpy(places_NH.ravel()).to(self._device)
        self.positions_N = torch.from_numpy(positions_N).to(self._device)
        singles = int((counts == 1).sum())
        self._runs = self._make_runs(rows_N[:singles], positions_N[:singles])
        self._blocks = self._make_blocks(chunks, singles)

    def _make_runs(self, rows_B: NDArray[np.int64], positions_B: NDArray[np.int64]) -> list[_Run]:
        ends_B = np.flatnonzero((np.diff(rows_B) > _MAX_GAP + 1) | (np.diff(rows_B // self._run_rows) > 0)) + 1
        cuts = [0, *ends_B, len(rows_B)]
        return [
            self._make_run(int(first), int(last), rows_B[first:last], positions_B[first:last])
            for first, last in pairwise(cuts)
            if last > first
        ]

    def _make_run(self, first: int, last: int, rows_B: NDArray[np.int64], positions_B: NDArray[np.int64]) -> _Run:
        low, high = int(rows_B[0]), int(rows_B[-1]) + 1
        dense = high - low == last - first
        # An idle row in between attends to its first key: any will do, its output is thrown away.
        seen_R = np.zeros(high - low, dtype=np.int64)
        seen_R[rows_B - low] = positions_B
        keys_L = np.arange(_round_up(int(positions_B.max()) + 1, _ROUND))
        return _Run(
            first=first,
            last=last,
            rows=slice(low, high),
            among=None if dense else torch.from_numpy(rows_B - low).to(self._device),
            mask_R11L=additive(keys_L <= seen_R[:, None, None, None], self._dtype, self._device),
        )

    def _make_blocks(self, chunks: Sequence[Chunk], first: int) -> list[_Block]:
        blocks = []
        while first < len(chunks):
            longest = len(chunks[first].tokens)
            last = first + 1
            # Padding inside attention is cheap, but not free.
            while last < len(chunks) and len(chunks[last].tokens) * 4 >= longest * 3:
                last += 1
            blocks.append(self._make_block(chunks[first:last], self._offsets[first:last]))
            first = last
        return blocks

    def _make_block(self, chunks: Sequence[Chunk], offsets: Sequence[int]) -> _Block:
        counts = [len(chunk.tokens) for chunk in chunks]
        starts_B = np.array([chunk.start for chunk in chunks])
        keys_L = np.arange(_round_up(max(chunk.end for chunk in chunks), _ROUND))
        seen_BT = starts_B[:, None] + np.arange(max(counts))
        visible_B1QL = np.tile(keys_L <= seen_BT[:, None, :, None], (1, 1, self._groups, 1))
        return _Block(
            rows_B=torch.tensor([chunk.row for chunk in chunks], device=self._device),
            mask_B1QL=additive(visible_B1QL, self._dtype, self._device),
            padding=Padding(offsets, counts, self._device),
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
