"""Packing: samples become rows of token trees, in which every shared prefix is computed once.

Self-play writes many sequences that begin alike: the rules, the state, the same prompt sampled eight times. A
`Row` stores such sequences as a trie in depth-first order, so that each node attends to its ancestors only:
node j is visible to node i exactly if `j <= i < ends[j]`. Hidden states, and therefore gradients, are those
of the separate sequences; only the work is less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from marl_llm.types import Sample, Tokens

Ints = NDArray[np.int64]

KEYS_PER_TOKEN = 640.0
"""Default of `pack(keys_per_token=...)`: that of a Qwen3 of width 128."""

PADDING_TOKENS = 96
"""Padding that costs about as much as one more forward and backward call of a small model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledTokens:
    """All tokens that carry loss, as flat vectors over N: samples in the given order, spans in theirs."""

    tokens_N: torch.Tensor
    """Token ids (int64)."""
    turn_weights_N: torch.Tensor
    """Weight of the token's turn (float32)."""
    sequences_N: torch.Tensor
    """Index of the sample (int64)."""
    turns_N: torch.Tensor
    """Number of the turn, distinct over (episode, turn) (int64)."""
    roles_N: torch.Tensor
    """Number of the role in its game (int64)."""
    episodes_N: torch.Tensor
    """Number of the episode (int64)."""


def flatten(samples: Sequence[Sample]) -> SampledTokens:
    """Gather the sampled tokens of all spans; equal names get equal numbers."""
    spans = [(index, sample, span) for index, sample in enumerate(samples) for span in sample.spans]
    lengths = torch.tensor([span.length for _, _, span in spans], dtype=torch.int64)
    turns: dict[tuple[str, int], int] = {}
    roles: dict[tuple[str, str], int] = {}
    episodes: dict[str, int] = {}

    def spread(values: list[int] | list[float], dtype: torch.dtype) -> torch.Tensor:
        return torch.repeat_interleave(torch.tensor(values, dtype=dtype), lengths)

    tokens = [t for _, s, span in spans for t in s.tokens[span.start : span.start + span.length]]
    return SampledTokens(
        tokens_N=torch.tensor(tokens, dtype=torch.int64),
        turn_weights_N=spread([span.weight for *_, span in spans], torch.float32),
        sequences_N=spread([index for index, *_ in spans], torch.int64),
        turns_N=spread([turns.setdefault((s.episode, span.turn), len(turns)) for _, s, span in spans], torch.int64),
        roles_N=spread([roles.setdefault((s.game, span.role), len(roles)) for _, s, span in spans], torch.int64),
        episodes_N=spread([episodes.setdefault(s.episode, len(episodes)) for _, s, _ in spans], torch.int64),
    )


def behaviour(samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities that the sampled tokens were drawn with, and their advantages: two float32 vectors over N.

    Raises:
        ValueError: a sample is a demonstration.
    """
    logprobs: list[float] = []
    advantages: list[float] = []
    for sample in samples:
        for span in sample.spans:
            if span.logprobs is None or span.advantages is None:
                raise ValueError(f"episode {sample.episode}, turn {span.turn}: a demonstration has no advantages")
            logprobs += span.logprobs
            advantages += span.advantages
    return torch.tensor(logprobs, dtype=torch.float32), torch.tensor(advantages, dtype=torch.float32)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Row:
    """One trie of sequences, a line of a batch. The first three arrays have one entry per node."""

    tokens: Ints
    """Token ids in depth-first order."""
    depths: Ints
    """Position of each node in the sequences that pass through it."""
    ends: Ints
    """One past the last node of each node's subtree."""
    nodes: Ints
    """For every sampled token of the row's samples: the node that predicts it, ascending."""
    sampled: Ints
    """Index of each of those tokens in the flat vectors of `flatten`."""

    @property
    def is_chain(self) -> bool:
        """Whether no node branches, so that ordinary causal attention is exact."""
        return bool((self.ends == len(self.tokens)).all())


def pack(samples: Sequence[Sample], row_tokens: int, *, keys_per_token: float = KEYS_PER_TOKEN) -> list[Row]:
    """Put samples into rows of at most `row_tokens` nodes; a longer sequence gets a row of its own.

    A sequence is cut before its last sampled token, which nothing has to follow; samples without sampled
    tokens are skipped. Sequences are sorted, so the longest prefix a new one shares with a row is shared with
    the row's last sequence. It joins the row if the prefix saves more work than attending within a longer row
    costs, where one token's pass without attention costs as much as attending to `keys_per_token` keys.
    """
    lengths = [sum(span.length for span in sample.spans) for sample in samples]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    users: dict[Tokens, list[int]] = {}
    for index, sample in enumerate(samples):
        if lengths[index]:
            last = sample.spans[-1]
            users.setdefault(sample.tokens[: last.start + last.length - 1], []).append(index)
    rows: list[Row] = []
    builder = _RowBuilder()
    for sequence in sorted(users):
        tokens = np.array(sequence, dtype=np.int64)
        shared = builder.shared_prefix(tokens)
        size, fresh = len(builder.tokens), len(tokens) - shared
        attention = (size + fresh) ** 2 - size**2 - len(tokens) ** 2
        if size and (size + fresh > row_tokens or attention >= keys_per_token * shared):
            rows.append(builder.build())
            builder, shared = _RowBuilder(), 0
        path = builder.add(tokens, shared)
        for index in users[sequence]:
            builder.attach(path, samples[index], int(offsets[index]))
    return [*rows, builder.build()] if builder.tokens else rows


class _RowBuilder:
    """Grows one trie from sequences that arrive in lexicographic order."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self.ends: list[int] = []
        self.nodes: list[Ints] = []
        self.sampled: list[Ints] = []
        self._last: Ints = np.zeros(0, dtype=np.int64)
        self._path: Ints = np.zeros(0, dtype=np.int64)

    def shared_prefix(self, tokens: Ints) -> int:
        """Number of leading tokens that are already on the path of the last sequence."""
        size = min(len(tokens), len(self._last))
        differs = tokens[:size] != self._last[:size]
        return int(differs.argmax()) if differs.any() else size

    def add(self, tokens: Ints, shared: int) -> Ints:
        """Add the nodes that are new; return the sequence's path, one node per token."""
        size = len(self.tokens)
        for node in self._path[shared:]:
            self.ends[node] = size
        fresh = np.arange(size, size + len(tokens) - shared)
        self.tokens.extend(tokens[shared:].tolist())
        self.depths.extend(range(shared, len(tokens)))
        self.ends.extend([-1] * len(fresh))
        self._last, self._path = tokens, np.concatenate([self._path[:shared], fresh])
        return self._path

    def attach(self, path: Ints, sample: Sample, offset: int) -> None:
        """Note the nodes that predict the sampled tokens, which start at `offset` in the flat vectors."""
        for span in sample.spans:
            self.nodes.append(path[span.start - 1 : span.start - 1 + span.length])
            self.sampled.append(np.arange(offset, offset + span.length))
            offset += span.length

    def build(self) -> Row:
        for node in self._path:
            self.ends[node] = len(self.tokens)
        nodes, sampled = np.concatenate(self.nodes), np.concatenate(self.sampled)
        order = np.argsort(nodes, kind="stable")
        return Row(
            tokens=np.array(self.tokens, dtype=np.int64),
            depths=np.array(self.depths, dtype=np.int64),
            ends=np.array(self.ends, dtype=np.int64),
            nodes=nodes[order],
            sampled=sampled[order],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """Rows of similar length, padded on the right: the input of one forward and backward pass."""

    tokens_BT: torch.Tensor
    """Node tokens (int64); 0 where padded."""
    depths_BT: torch.Tensor
    """Node depths: the position ids."""
    ends_BT: torch.Tensor | None
    """Subtree ends, by which `attention_mask` is made; None if every row is a chain."""
    nodes_K: torch.Tensor
    """The distinct predicting nodes, as ascending indices into the flattened B x T."""
    visits_M: torch.Tensor
    """For each sampled token of the micro-batch the index of its predicting node in `nodes_K`, ascending."""
    sampled_M: torch.Tensor
    """Index of each sampled token in the flat vectors of `flatten`."""
    num_nodes: int
    """Tokens without padding."""

    @staticmethod
    def empty() -> "MicroBatch":
        """One token that nothing follows: for who has nothing to do in a pass that all processes make together."""
        none, one_BT = torch.zeros(0, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64)
        return MicroBatch(
            tokens_BT=one_BT,
            depths_BT=one_BT,
            ends_BT=None,
            nodes_K=torch.zeros(1, dtype=torch.int64),
            visits_M=none,
            sampled_M=none,
            num_nodes=0,
        )

    def to(self, device: torch.device) -> "MicroBatch":
        """The same micro-batch on a device."""
        return MicroBatch(
            tokens_BT=self.tokens_BT.to(device),
            depths_BT=self.depths_BT.to(device),
            ends_BT=None if self.ends_BT is None else self.ends_BT.to(device),
            nodes_K=self.nodes_K.to(device),
            visits_M=self.visits_M.to(device),
            sampled_M=self.sampled_M.to(device),
            num_nodes=self.num_nodes,
        )


def micro_batches(rows: Sequence[Row], micro_batch_tokens: int) -> list[MicroBatch]:
    """Cut rows into micro-batches of at most `micro_batch_tokens` tokens, padding included, or of a single row.

    Rows are sorted by length, and a micro-batch ends where one more row would make its padding cost more than starting
    another. Chains stay apart, since they need no explicit mask.
    """
    return [_collate(part) for part in _cut(rows, micro_batch_tokens)]


def shared_micro_batches(
    rows: Sequence[Row], micro_batch_tokens: int, *, rank: int, processes: int
) -> list[MicroBatch]:
    """The micro-batches of one of several processes, which have about as many tokens each.

    All have equally many, some of which may be empty: the passes of all processes go together.
    """
    parts: list[list[Row]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for row in sorted(rows, key=lambda row: -len(row.tokens)):
        least = loads.index(min(loads))
        parts[least].append(row)
        loads[least] += len(row.tokens)
    cuts = [_cut(part, micro_batch_tokens) for part in parts]
    idle = max(map(len, cuts)) - len(cuts[rank])
    return [*map(_collate, cuts[rank]), *(MicroBatch.empty() for _ in range(idle))]


def _cut(rows: Sequence[Row], micro_batch_tokens: int) -> list[list[Row]]:
    order = sorted(rows, key=lambda row: (row.is_chain, len(row.tokens)))
    cut: list[list[Row]] = []
    start = nodes = 0
    for index, row in enumerate(order):
        width = len(row.tokens)
        padded = (index + 1 - start) * width
        too_big = padded > micro_batch_tokens or padded - nodes - width > PADDING_TOKENS
        if index > start and (too_big or row.is_chain != order[start].is_chain):
            cut.append(order[start:index])
            start, nodes = index, 0
        nodes += width
    return [*cut, order[start:]] if order else cut


def _collate(rows: Sequence[Row]) -> MicroBatch:
    width = max(len(row.tokens) for row in rows)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    depths = np.zeros_like(tokens)
    ends = np.broadcast_to(np.arange(1, width + 1), tokens.shape).copy()  # a padded node sees only itself
    for line, row in enumerate(rows):
        size = len(row.tokens)
        tokens[line, :size], depths[line, :size], ends[line, :size] = row.tokens, row.depths, row.ends
    flat = np.concatenate([line * width + row.nodes for line, row in enumerate(rows)])
    nodes, visits = np.unique(flat, return_inverse=True)
    return MicroBatch(
        tokens_BT=torch.from_numpy(tokens),
        depths_BT=torch.from_numpy(depths),
        ends_BT=None if all(row.is_chain for row in rows) else torch.from_numpy(ends),
        nodes_K=torch.from_numpy(nodes),
        visits_M=torch.from_numpy(visits.astype(np.int64)),
        sampled_M=torch.from_numpy(np.concatenate([row.sampled for row in rows])),
        num_nodes=sum(len(row.tokens) for row in rows),
    )


def attention_mask(ends_BT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The additive mask (B x 1 x T x T) of token trees: 0 where node j is an ancestor of node i or i itself.

    Elsewhere it is the least finite number of `dtype`. Every node sees at least itself.
    """
    width = ends_BT.shape[1]
    i_T1 = torch.arange(width, device=ends_BT.device)[:, None]
    j_1T = torch.arange(width, device=ends_BT.device)[None, :]
    visible_BTT = (j_1T <= i_T1) & (i_T1 < ends_BT[:, None, :])
    mask_BTT = torch.zeros(visible_BTT.shape, dtype=dtype, device=ends_BT.device)
    return mask_BTT.masked_fill_(~visible_BTT, torch.finfo(dtype).min)[:, None]


def span_names(samples: Sequence[Sample], indices: Sequence[int]) -> list[str]:
    """`episode E, agent A, turn T` of the turns that hold the given flat indices, each once."""
    names = [
        f"episode {sample.episode}, agent {sample.agent}, turn {span.turn}"
        for sample in samples
        for span in sample.spans
        for _ in range(span.length)
    ]
    return list(dict.fromkeys(names[index] for index in indices))
