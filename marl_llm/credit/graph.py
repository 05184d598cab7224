"""Stages that look at how episodes hang together: prefixes that they share, states in which they meet, trees of turns.

As in `stages`: pure functions, one float per row, NaN for unknown. Trees need no stage of their own: the columns `node`
(of tokens: `node` and `token`) and `parent` are keys, and of a turn or token that several episodes share only one has a
weight.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from marl_llm.credit.stages import (
    TRAJECTORY,
    Keys,
    Natural,
    Signal,
    backwards,
    known_rows,
    needs,
    next_row,
    part_of,
    previous_row,
    units_per_key,
    with_values,
)
from marl_llm.credit.statistics import moments, total
from marl_llm.credit.table import FloatArray, IntArray, TurnTable

SAME: Keys = ("group", "role", "policy")
"""Who is compared: the same role in the games of one deal, played by the same policy."""


def pool(
    table: TurnTable, signal: Signal, *, keys: Keys = ("node",), fan: Literal["leaves", "children"] = "leaves"
) -> Signal:
    """Every turn gets the mean of its key, of turns of weight 0 too: with `node`, what the episodes that share a turn
    came to after it, each counting the same (C-3PO, arXiv 2502.06205).

    `fan: children`: the mean of the means of what follows each of its next turns (MALT, arXiv 2412.01928; SPO,
    2505.23564). The two differ where turns have different numbers of next turns.
    """
    codes_N, num_keys = table.key(keys)
    known_N = (~np.isnan(signal.values_N)).astype(np.float64)
    counted_N = known_N * _shares(table) if fan == "children" else known_N
    pooled_K = moments(codes_N, num_keys, signal.values_N, counted_N)[0]
    pooled_K[total(codes_N, num_keys, known_N) == 0] = np.nan
    illegal_K = total(codes_N, num_keys, signal.illegal_N.astype(np.float64)) > 0
    return replace(signal, values_N=pooled_K[codes_N], illegal_N=illegal_K[codes_N])


def _shares(table: TurnTable) -> FloatArray:
    """Weight of each row's episode if every turn, or segment of a reply, gives each of its next the same: a product."""
    parent_N, (parents_N, num_parents) = table.codes["parent"], table.key(["parent"])
    _, first = np.unique(table.key(["node", "parent"])[0], return_index=True)
    children = np.bincount(parents_N[first], minlength=num_parents)
    begins_N = (np.diff(table.turn_row, prepend=-1) != 0) | (np.diff(parent_N, prepend=-1) != 0)
    logs_N = (begins_N & (parent_N > 0)) * np.log(np.maximum(children[parents_N], 1))
    logs_E = total(table.codes["episode"], len(table.names["episode"]), logs_N)
    return np.exp(-logs_E)[table.codes["episode"]]


@needs("state_key")
def merge(table: TurnTable, signal: Signal, *, keys: Keys = SAME, history: Natural = 0) -> Signal:
    """Every turn gets the mean of the episodes that took the same step (after SALT, arXiv 2510.20022).

    The same step: the same action, after which the agent saw the same state or the game ended, within `keys`; and
    before it the same `history` steps, or as many as there were. An episode that repeats a step counts once for it.
    """
    codes_N, _ = table.key((*keys, "action"))
    next_N = next_row(table)
    state_N = table.codes["state"]
    step_N = _paired(codes_N, np.where(next_N >= 0, state_N[next_N] + 1, 0))
    before_N, merged_N = previous_row(next_N), step_N
    earlier_N = before_N
    for _ in range(history):
        merged_N = _paired(merged_N, np.where(earlier_N >= 0, step_N[earlier_N] + 1, 0))
        earlier_N = np.where(earlier_N >= 0, before_N[earlier_N], -1)
    known_N = known_rows(signal).astype(np.float64)
    units_N = _paired(merged_N, table.key(TRAJECTORY)[0])
    often_U = np.bincount(units_N, known_N)
    once_N = known_N / np.maximum(often_U, 1.0)[units_N]
    mean_K = moments(merged_N, int(merged_N.max(initial=-1)) + 1, signal.values_N, once_N)[0]
    return with_values(signal, mean_K[merged_N])


def prefix_gain(table: TurnTable, signal: Signal, *, keys: Keys = SAME) -> Signal:
    """What a token changes: the mean of the episodes that go on with it, less that of all that came to the same place.

    A place is what the agent saw and wrote until then, token by token, or turn by turn where rows are turns; the
    branches are those that samples of one prompt have by chance. The values are those of whole episodes (`broadcast`).
    Where nothing branches the gain is 0. Source: T-SPMO (arXiv 2504.20834); TEMPO (2509.18314) adds it to GRPO.
    """
    seen_N, said_N = _prefixes(table, keys)
    known_N = (~np.isnan(signal.values_N)).astype(np.float64)

    def worth(codes_N: IntArray) -> FloatArray:
        number = int(codes_N.max(initial=-1)) + 1
        return moments(codes_N, number, signal.values_N, known_N)[0][codes_N]

    after_N = worth(said_N)
    inside_N = table.codes["token"] > 0
    here_N = np.where(inside_N, after_N[previous_row(next_row(table))], worth(seen_N))
    return with_values(signal, after_N - here_N)


def once(table: TurnTable, signal: Signal, *, keys: Keys = SAME) -> Signal:
    """Let a token that several episodes of the same `keys` wrote at the same place (see `prefix_gain`) weigh as one."""
    _, said_N = _prefixes(table, keys)
    often_K = np.bincount(said_N, known_rows(signal))
    return replace(signal, weights_N=signal.weights_N / np.maximum(often_K, 1.0)[said_N])


def _prefixes(table: TurnTable, keys: Keys) -> tuple[IntArray, IntArray]:
    """Number of all that the agent had seen and written before each row, and of that with the row."""
    wrote_N = table.tokens_or_refuse("prefix_gain").ids_T if table.by_token else table.codes["action"]
    come_N, _ = table.key((*keys, "observation"))
    before_N, inside_N = previous_row(next_row(table)), table.codes["token"] > 0
    seen_N, said_N, used = np.zeros_like(come_N), np.zeros_like(come_N), 1
    for rows in reversed(list(backwards(table))):
        last = np.where(before_N[rows] >= 0, said_N[before_N[rows]], 0)
        seen = used + _paired(last, come_N[rows])
        used += len(rows)
        seen_N[rows] = np.where(inside_N[rows], last, seen)
        said_N[rows] = used + _paired(seen_N[rows], wrote_N[rows])
        used += len(rows)
    return np.unique(seen_N, return_inverse=True)[1], np.unique(said_N, return_inverse=True)[1]


def only(
    table: TurnTable,
    signal: Signal,
    *,
    where: Literal["due", "until_due", "some_due", "none_due", "all_known", "last", "before_last"],
    part: str = "",
    otherwise: Literal["zero", "unknown"] = "zero",
) -> Signal:
    """Keep the values of some rows; the others become 0 or unknown.

    `due`: those to which the reward part `part` is due. `until_due`: those of an agent up to the first of these.
    `some_due`, `none_due`: all of an agent that has such rows, or none. `all_known`: all of an agent of which nothing
    is unknown (a reward stands on one token, and what it makes unknown is the whole). `last`, `before_last`: by place.
    """
    next_N = next_row(table)
    _, due_N = part_of(table, part)
    units_N, num_units = table.key(TRAJECTORY)
    first_U = np.full(num_units, np.iinfo(np.int64).max)
    np.minimum.at(first_U, units_N[due_N], table.place[due_N])
    some_N = (np.bincount(units_N, due_N, num_units) > 0)[units_N]
    kept = {
        "due": due_N,
        "until_due": some_N & (table.place <= first_U[units_N]),
        "some_due": some_N,
        "none_due": ~some_N,
        "all_known": ~np.isnan(total(units_N, num_units, signal.values_N))[units_N],
        "last": next_N < 0,
        "before_last": next_N >= 0,
    }[where]
    return replace(
        signal,
        values_N=np.where(kept, signal.values_N, 0.0 if otherwise == "zero" else np.nan),
        illegal_N=signal.illegal_N & kept,
    )


def drop_flat(table: TurnTable, signal: Signal, *, keys: Keys = ("group", "parent")) -> Signal:
    """Weight 0 where all values of a key are 0: it has nothing to tell (MARGE; SPO's trees, arXiv 2505.23564)."""
    codes_N, num_keys = table.key(keys)
    told_K = total(codes_N, num_keys, (known_rows(signal) & (signal.values_N != 0)).astype(np.float64)) > 0
    return replace(signal, weights_N=signal.weights_N * told_K[codes_N])


def center_padded(
    table: TurnTable, signal: Signal, *, keys: Keys = SAME, reference: Literal["place", "others"] = "place"
) -> Signal:
    """Subtract a mean in which every trajectory goes on with 0 to the length of the longest of all, for parity with
    releases that compute over padded matrices.

    `place`: of the trajectories of `keys` at the same place (IGPO, arXiv 2510.14967). `others`: of the other
    trajectories, over all places (PURE, arXiv 2504.15275). Alone: 0.
    """
    units_N, num_units = table.key((*keys, *TRAJECTORY))
    codes_N, num_keys = table.key(keys)
    known_N = known_rows(signal)
    values_N = np.where(known_N, signal.values_N, 0.0)
    members_N = units_per_key(codes_N, num_keys, units_N, known_N)[codes_N]
    if reference == "place":
        places_N, num_places = table.key((*keys, "place"))
        reference_N = total(places_N, num_places, values_N)[places_N] / np.maximum(members_N, 1)
    else:
        others_N = total(codes_N, num_keys, values_N)[codes_N] - total(units_N, num_units, values_N)[units_N]
        longest = int(table.place.max(initial=0)) + 1
        reference_N = others_N / (longest * np.maximum(members_N - 1, 1))
    return with_values(signal, np.where(members_N > 1, signal.values_N - reference_N, 0.0))


SOURCES: Mapping[str, Callable[..., Signal]] = {}
"""Where values come from, by name."""
PLAIN: Mapping[str, Callable[..., Signal]] = {
    stage.__name__: stage for stage in (pool, merge, prefix_gain, once, only, drop_flat, center_padded)
}
"""The stages here that take a signal and remember nothing, by name."""
REMEMBERING: Mapping[str, Callable[..., tuple[Signal, dict[str, float]]]] = {}
"""The stages here that take a signal and what they remember of earlier steps, and return both, by name."""


def _paired(one_N: IntArray, other_N: IntArray) -> IntArray:
    """Numbers from 0 on, equal where both are equal."""
    codes_N: IntArray = np.unique(one_N * (int(other_N.max(initial=0)) + 1) + other_N, return_inverse=True)[1]
    return codes_N
