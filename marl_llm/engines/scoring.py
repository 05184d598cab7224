"""How continuations to be scored are arranged so that what they share is computed once. No tensors here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from marl_llm.engines.slots import pack_tokens, shared_prefix
from marl_llm.types import Tokens

_BRANCH_TOKENS = 64
"""Continuation tokens behind one copy of a prompt: attention within a tree is quadratic."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A prompt and some of its continuations, with their places in the caller's list."""

    prompt: Tokens
    continuations: tuple[tuple[int, Tokens], ...]

    @property
    def size(self) -> int:
        """Tokens that the model reads: nothing depends on the last token of a continuation."""
        return len(self.prompt) + sum(len(tokens) - 1 for _, tokens in self.continuations)


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees whose prompts all start with the same `prefix` tokens and are longer than that."""

    prefix: int
    trees: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """A forest behind its prefix, as one row of N tokens."""

    tokens: list[int]
    positions: list[int]
    branches: list[list[int]]
    """Per tree and token: 0 for the prompt, b for its b-th continuation."""
    predictors: list[int]
    """For every token to be scored, in the order of trees and continuations, the packed place that predicts it."""
    targets: list[int]
    """Those tokens."""


def plant(pairs: Iterable[tuple[Tokens, Tokens]], max_tokens: int) -> list[Forest]:
    """Group (prompt, continuation) pairs into forests of at most `max_tokens` tokens, or of one tree.

    Pairs without a continuation are left out. Prompts are sorted, so that neighbours share the most.
    """
    numbered = sorted((prompt, i, tokens) for i, (prompt, tokens) in enumerate(pairs) if tokens)
    trees = [
        Tree(prompt, part)
        for prompt, entries in groupby(numbered, key=lambda entry: entry[0])
        for part in _parts([(i, tokens) for _, i, tokens in entries])
    ]
    forests: list[Forest] = []
    while trees:
        forest = _first_forest(trees, max_tokens)
        forests.append(forest)
        del trees[: len(forest.trees)]
    return forests


def pack(forest: Forest) -> Packed:
    """Lay a forest out: each tree's prompt once, then its continuations without their last tokens."""
    packed = Packed([], [], [], [], [])
    for tree in forest.trees:
        stem = tree.prompt[forest.prefix :]
        last = len(packed.tokens) + len(stem) - 1
        packed.tokens.extend(stem)
        packed.positions.extend(range(forest.prefix, len(tree.prompt)))
        packed.branches.append([0] * len(stem))
        for number, (_, continuation) in enumerate(tree.continuations, start=1):
            fed, first = len(continuation) - 1, len(packed.tokens)
            packed.predictors.extend((last, *range(first, first + fed)))
            packed.targets.extend(continuation)
            packed.tokens.extend(continuation[:-1])
            packed.positions.extend(range(len(tree.prompt), len(tree.prompt) + fed))
            packed.branches[-1].extend([number] * fed)
    return packed


def _parts(continuations: list[tuple[int, Tokens]]) -> list[tuple[tuple[int, Tokens], ...]]:
    parts: list[list[tuple[int, Tokens]]] = [[]]
    room = _BRANCH_TOKENS
    for entry in continuations:
        room -= len(entry[1])
        if room < 0 and parts[-1]:
            parts.append([])
            room = _BRANCH_TOKENS - len(entry[1])
        parts[-1].append(entry)
    return [tuple(part) for part in parts]


def _first_forest(trees: Sequence[Tree], max_tokens: int) -> Forest:
    """Take trees for as long as they fit and joining them is cheaper than starting another forest."""
    prefix = len(trees[0].prompt) - 1
    total = trees[0].size
    count = 1
    for previous, tree in pairwise(trees):
        shared = shared_prefix(pack_tokens(previous.prompt), pack_tokens(tree.prompt))
        joint_prefix = min(prefix, shared, len(tree.prompt) - 1)
        joint_total = total + tree.size
        read = joint_total - joint_prefix * count
        if read > max_tokens or read > total - prefix * (count - 1) + tree.size:
            break
        prefix, total, count = joint_prefix, joint_total, count + 1
    # A prefix that nobody else shares is no reason for a pass of its own.
    return Forest(prefix if count > 1 else 0, tuple(trees[:count]))
