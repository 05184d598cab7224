"""Stages that look at what was said, or at parts that mean more than a number: votes, shaping, attribution, proposals.

As in `stages`: pure functions, one float per row, NaN for unknown. Those in `SOURCES` begin a recipe instead of
`reward`. The price of an illegal move is no part of them: where it may be due (`on_illegal: forfeit`), `sum` adds a
term `reward: {others: 0, weights: {illegal: 1}}`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction as Exact
from typing import Literal

import numpy as np

from games.tasks.answers import final_answer, normalised
from marl_llm.credit.stages import (
    TRAJECTORY,
    Fraction,
    Keys,
    Names,
    NonNegative,
    Positive,
    Signal,
    part_of,
    source,
    with_values,
)
from marl_llm.credit.table import BoolArray, IntArray, TurnTable

Ballot = Sequence[tuple[int, str]]
"""Who votes, and for which answer; empty: for none."""


def vote(
    table: TurnTable,
    *,
    keys: Keys = ("group",),
    roles: Names = (),
    by: Keys = ("policy",),
    weigh: Literal["equal", "consistency"] = "equal",
    label: Literal["all", "others"] = "all",
) -> Signal:
    """1 for every answer that is the elected one, 0 for all else; nobody needs to know the truth.

    Answers are the final answers of turns of `roles` (of all turns, if none is named), compared as texts without case,
    articles and punctuation; a turn without one neither votes nor earns, and one that several episodes share votes
    once. Rows that share `keys` hold one election: the answer with most votes, of equals the one seen first in the
    order of (episode, turn) (majority vote: TTRL, arXiv 2504.16084). `by`: what makes a voter. `consistency` weighs a
    voter's votes by the share of its most frequent answer (RLCCF, arXiv 2508.12338). `label: others`: each voter is
    held against what the others elect (Co-Reward, arXiv 2508.00410).
    """
    elections, voters = (table.key(names)[0].tolist() for names in (keys, (*keys, *by)))
    nodes = table.codes["node"].tolist()
    said = dict(_answers(table, roles))
    cast: set[tuple[int, int]] = set()
    ballots: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for row, answer in said.items():
        election, node = elections[row], nodes[row]
        if (election, node) not in cast:
            cast.add((election, node))
            ballots[election].append((voters[row], answer))
    elected: dict[tuple[int, int | None], str] = {}
    values_N = np.zeros(len(table))
    for row, answer in said.items():
        election, left_out = elections[row], voters[row] if label == "others" else None
        if (election, left_out) not in elected:
            others = [(voter, text) for voter, text in ballots[election] if voter != left_out]
            elected[election, left_out] = chosen(others, weigh)
        values_N[row] = float(bool(answer) and answer == elected[election, left_out])
    return source(table, values_N)


def _answers(table: TurnTable, roles: Names) -> Iterator[tuple[int, str]]:
    """Row and answer of each turn of these roles; empty where there is none."""
    answers = _read(table)
    rows = np.flatnonzero(_in_roles(table, roles))
    for row, action in zip(rows.tolist(), table.codes["action"][rows].tolist(), strict=True):
        yield row, answers[action]


def final_answers(table: TurnTable, units_N: IntArray, roles: Names) -> IntArray:
    """Number of the final answer of each of U units, by its last turn of one of `roles` (any, if none is named).

    Equal where answers are, compared as in `vote`; an empty one, and none at all, are 0.
    """
    answers = _read(table)
    numbers = {text: number for number, text in enumerate(dict.fromkeys(["", *answers]))}
    number_A = np.array([numbers[text] for text in answers], dtype=np.int64)
    answer_U = np.zeros(int(units_N.max(initial=-1)) + 1, dtype=np.int64)
    rows = np.flatnonzero(_in_roles(table, roles))
    answer_U[units_N[rows]] = number_A[table.codes["action"][rows]]
    return answer_U


def _read(table: TurnTable) -> list[str]:
    """The final answer in each text of the column of actions."""
    return [normalised(final_answer(action)) if action else "" for action in table.names["action"]]


def chosen(ballot: Ballot, weigh: str = "equal") -> str:
    """The answer with most votes; of equals the one seen first; empty if nobody votes for any."""
    votes = votes_of(ballot, weigh)
    return max(votes, key=votes.__getitem__) if votes else ""


def votes_of(ballot: Ballot, weigh: str = "equal") -> dict[str, Exact | int]:
    """Votes by answer, in the order they are first seen in. Exact, so that equals are equal."""
    given: dict[int, list[str]] = defaultdict(list)
    for voter, answer in ballot:
        given[voter].append(answer)
    weight = {voter: consistency(answers) if weigh == "consistency" else 1 for voter, answers in given.items()}
    votes: dict[str, Exact | int] = {}
    for (voter, answer), count in Counter(ballot).items():
        if answer:
            votes[answer] = votes.get(answer, 0) + count * weight[voter]
    return votes


def consistency(answers: Sequence[str]) -> Exact:
    """Share of the most frequent answer."""
    counts = Counter(answer for answer in answers if answer)
    return Exact(max(counts.values(), default=0), len(answers))


def shape(
    table: TurnTable,
    *,
    part: str,
    form: Literal["margin", "quality"],
    alpha: float = 0.5,
    beta: float = 0.0,
    earlier: Literal["own", "rounds", "turns"] = "own",
) -> Signal:
    """A part R that says how right a turn is, held against Q, the mean of the earlier ones (MARTI, its code).

    `margin`: R + alpha (R - Q). `quality`: R + alpha (Q R - (1 - Q)(1 - R)). Both plus beta times the last R. The first
    turns, which have no earlier ones, keep R; turns to which the part is not due get 0. `earlier`: the agent's own
    turns; those of all agents in earlier rounds, which is how often each has spoken (debates); or all earlier turns of
    the episode (chains). For `rounds` the last R is the mean of the last round.
    """
    values_N, due_N = part_of(table, part)
    units_N, _ = table.key(TRAJECTORY if earlier == "own" else ("episode",))
    rank_N = table.step if earlier == "rounds" else table.turn
    shaped_N = np.where(due_N, values_N, 0.0)
    known_N = due_N & ~np.isnan(values_N)
    for rows in _rows_by(units_N, known_N):
        ranks = [rank_N[rows] == rank for rank in np.unique(rank_N[rows])]
        last = float(values_N[rows[ranks[-1]]].mean())
        before, count = 0.0, 0
        for chosen in ranks:
            r_M = values_N[rows[chosen]]
            if count:
                q = before / count
                gain_M = r_M - q if form == "margin" else q * r_M - (1 - q) * (1 - r_M)
                shaped_N[rows[chosen]] = r_M + alpha * gain_M + beta * last
            before, count = before + float(r_M.sum()), count + len(r_M)
    return source(table, shaped_N)


def attribute(
    table: TurnTable,
    *,
    part: str = "attribution",
    score: str = "outcome",
    form: Literal["direct", "normalized", "discounted"] = "direct",
    scale: Positive = 3.0,
    gamma: Fraction = 0.9,
) -> Signal:
    """An agent's part `score` over the episode, dealt out to its turns by what a judge said of each (Sotopia-RL).

    With a = the part `part` of a turn: `direct` a / scale * score; `normalized` a / (sum of the agent's a) * score, 0
    where they sum to 0. A negative a marks harm and is worth -1 in both. `discounted` needs no judge: score *
    gamma^(turns of the agent still to come). Turns of which nothing was said get 0, those of which nothing could be
    read are unknown. Source: arXiv 2508.03905 and its code.
    """
    marks_N, due_N = part_of(table, part)
    scores_N, _ = part_of(table, score)
    units_N, num_units = table.key(TRAJECTORY)
    score_N = np.bincount(units_N, scores_N, num_units)[units_N]
    if form == "discounted":
        to_come_N = np.bincount(units_N, minlength=num_units)[units_N] - 1 - table.step
        return source(table, score_N * gamma**to_come_N)
    share_N = marks_N / scale
    if form == "normalized":
        total_N = np.bincount(units_N, np.where(marks_N > 0, marks_N, 0.0), num_units)[units_N]
        share_N = np.divide(marks_N, total_N, out=np.zeros(len(table)), where=total_N > 0)
        share_N[np.isnan(marks_N)] = np.nan
    return source(table, np.where(due_N, np.where(marks_N < 0, -1.0, share_N * score_N), 0.0))


def blame(
    table: TurnTable,
    signal: Signal,
    *,
    part: str,
    score: str = "outcome",
    keys: Keys,
    alpha: NonNegative = 1.0,
    says: Literal["right", "match"] = "right",
) -> Signal:
    """Which turns a value is due to, by what `part` says of each: 1 or 0 (TP-GRPO, arXiv 2507.23317).

    Where the sum of `score` over the agent's episode is above 0: turns that were not right lose alpha * the share of
    such episodes within `keys`. Where it is not: turns that were right get 0. With `says: match` the part does not say
    whether a turn is right but whether it matches the result: there 0 gets 0. Turns without the part keep the value.
    """
    said_N, due_N = part_of(table, part)
    score_N, _ = part_of(table, score)
    codes_N, num_keys = table.key(keys)
    units_N, num_units = table.key((*keys, *TRAJECTORY))
    total_N = np.bincount(units_N, score_N, num_units)[units_N]
    counted = np.flatnonzero(~np.isnan(total_N) & (signal.weights_N > 0))
    first = counted[np.unique(units_N[counted], return_index=True)[1]]
    solved_K = np.bincount(codes_N[first], total_N[first] > 0, num_keys)
    share_K = solved_K / np.maximum(np.bincount(codes_N[first], minlength=num_keys), 1)
    solved_N = total_N > 0
    matches_N = said_N if says == "match" else np.where(solved_N, said_N, 1 - said_N)
    blamed_N = np.where(solved_N, signal.values_N - alpha * share_K[codes_N], 0.0)
    values_N = np.where(due_N & (matches_N <= 0), blamed_N, signal.values_N)
    return with_values(signal, np.where(due_N & np.isnan(matches_N), np.nan, values_N))


def diversify(
    table: TurnTable,
    signal: Signal,
    *,
    roles: Names = ("proposer",),
    keys: Keys = ("policy",),
    after: str = "",
    before: str = "",
    overlap: Fraction = 0.8,
    least: Fraction = 0.3,
    bonus: NonNegative = 0.2,
) -> Signal:
    """What is worth something gets `bonus` times its diversity on top, or nothing if that is `least` or less.

    Diversity: 1 minus the share of the other texts of the same `keys` in this step of which more than `overlap` of the
    words are the same (words of both, out of words of either); 1 where there are no others. The texts are the actions
    of turns of `roles`, of those with `after` or `before` what stands between these marks. Source: PasoDoble (arXiv
    2511.11881), which compares with the last 100 questions; here with all others of the step, so that order is nothing.
    """
    codes_N, _ = table.key(keys)
    nodes_N = table.codes["node"]  # a turn that several episodes share is one text
    words: dict[int, frozenset[str]] = {}
    for row in np.flatnonzero(_in_roles(table, roles)).tolist():
        text = _between(table.actions[row] or "", after, before)
        if text.split():
            words[row] = frozenset(text.casefold().split())
    texts = {(int(codes_N[row]), int(nodes_N[row])): said for row, said in words.items()}
    values_N = signal.values_N.copy()
    for row, mine in words.items():
        if values_N[row] > 0:
            others = [said for (code, node), said in texts.items() if code == codes_N[row] and node != nodes_N[row]]
            different = diversity(mine, others, overlap)
            values_N[row] = values_N[row] + bonus * different if different > least else 0.0
    return replace(signal, values_N=values_N)


def diversity(words: frozenset[str], others: Sequence[frozenset[str]], overlap: float) -> float:
    """Share of the others that have at most `overlap` of the words in common, 1 if there are none."""
    different = sum(len(words & other) <= overlap * len(words | other) for other in others)
    return different / len(others) if others else 1.0


SOURCES: Mapping[str, Callable[..., Signal]] = {stage.__name__: stage for stage in (vote, shape, attribute)}
"""Where values come from, by name."""
PLAIN: Mapping[str, Callable[..., Signal]] = {stage.__name__: stage for stage in (blame, diversify)}
"""The stages here that take a signal and remember nothing, by name."""
REMEMBERING: Mapping[str, Callable[..., tuple[Signal, dict[str, float]]]] = {}
"""The stages here that remember; there are none."""


def _in_roles(table: TurnTable, roles: Names) -> BoolArray:
    chosen_N: BoolArray = np.isin(table.role, roles) if roles else np.ones(len(table), dtype=np.bool_)
    return chosen_N


def _rows_by(units_N: IntArray, counted_N: BoolArray) -> list[IntArray]:
    """The counted rows of each unit, in order."""
    rows = np.flatnonzero(counted_N)
    order = rows[np.argsort(units_N[rows], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(units_N[order])) + 1) if len(order) else []


def _between(text: str, after: str, before: str) -> str:
    """What stands after the one mark and before the other, whatever their case; all, where a mark is missing."""
    folded = text.lower()
    begin = folded.find(after.lower()) + len(after) if after and after.lower() in folded else 0
    end = folded.find(before.lower(), begin) if before else -1
    return text[begin:] if end < 0 else text[begin:end]
