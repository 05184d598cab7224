"""How right answers are: averages, best and majority of k, with intervals over items, paired where compared.

Whoever did not answer is wrong, and stays in every denominator.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from marl_llm.evaluation.answers import Answer
from marl_llm.evaluation.tournament import Mean, mean_of, wilson

SINGLE = "single"
"""The protocol that all others are compared with, at equal tokens."""
Place = tuple[str, str, str]
"""Benchmark, protocol, team."""
Sheet = Mapping[tuple[int, int], Sequence[Answer]]
"""Answers of one place by run and item, in the order of their samples."""


@dataclass(frozen=True, kw_only=True)
class Matched:
    """A protocol beside the majority of single answers with as many tokens."""

    votes: int
    """How many single answers that are."""
    tokens: float
    """Sampled tokens of so many."""
    accuracy: Mean
    """How right their majority is."""
    difference: Mean
    """The protocol less that, paired by item."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Results of one team on one benchmark by one protocol; intervals are 95 %, over items."""

    items: int
    """Questions."""
    samples: int
    """Answers to each, by each run (k)."""
    runs: int
    """Runs of the team, which differ by their seed."""
    accuracy: Mean
    """How right an answer is (avg@k)."""
    spread: float | None
    """Standard deviation over runs; None: there is one."""
    best: float
    """How right the best of k answers is (pass@k)."""
    majority: float
    """How right the answer is that most of k give (maj@k); of equals the first."""
    failed: int
    """Answers that are missing, which count as wrong."""
    tokens: float
    """Sampled tokens of an answer, of all agents together."""
    prompt_tokens: float
    """Tokens read for an answer, of all agents together."""
    turns: float
    """Decisions for an answer."""
    seconds: float
    """Time of this machine for an answer, many being found side by side."""
    matched: Matched | None = None
    """None where that was not asked for, or for single answers."""
    against: Mean | None = None
    """Less the baseline's by the same protocol, paired by item; None: it has none, or is that itself."""


def accuracies(
    answers: Iterable[Answer], *, samples: int, matched: bool, baseline: str | None
) -> dict[Place, Accuracy]:
    """The results of every team on every benchmark by every protocol, in the order of the answers."""
    sheets: dict[Place, dict[tuple[int, int], list[Answer]]] = defaultdict(lambda: defaultdict(list))
    every = list(answers)
    for answer in sorted(every, key=lambda answer: answer.key.sample):
        key = answer.key
        sheets[key.benchmark, key.protocol, key.team][key.run, key.item].append(answer)
    order = dict.fromkeys((answer.key.benchmark, answer.key.protocol, answer.key.team) for answer in every)
    results = {}
    for place in order:
        benchmark, protocol, team = place
        sheet = {at: given[:samples] for at, given in sheets[place].items()}
        result = _accuracy(sheet, samples)
        if matched and protocol != SINGLE and (count := votes(every, team, benchmark, protocol)):
            result = replace(result, matched=_matched(sheet, sheets[benchmark, SINGLE, team], count))
        other = (benchmark, protocol, baseline or "")
        if team != baseline and other in sheets:
            theirs = {at: given[:samples] for at, given in sheets[other].items()}
            result = replace(result, against=mean_of(_differences(_by_item(sheet, _average), theirs, _average)))
        results[place] = result
    return results


def as_json(results: Mapping[Place, Accuracy]) -> list[dict[str, Any]]:
    """One object per place."""
    return [
        {"benchmark": benchmark, "protocol": protocol, "team": team, **asdict(result)}
        for (benchmark, protocol, team), result in results.items()
    ]


def votes(answers: Iterable[Answer], team: str, benchmark: str, way: str) -> int:
    """How many single answers have as many tokens as one of this protocol, to the nearest whole number, at least 1.

    0: nobody knows, since no tokens were counted, as of an endpoint.
    """
    spent: dict[str, list[int]] = {SINGLE: [], way: []}
    for answer in answers:
        key = answer.key
        if key.team == team and key.benchmark == benchmark and key.protocol in spent:
            spent[key.protocol].append(answer.tokens)
    alone, together = (sum(tokens) / max(1, len(tokens)) for tokens in (spent[SINGLE], spent[way]))
    return max(1, round(together / alone)) if alone and together else 0


def vote(answers: Sequence[Answer]) -> float:
    """How right the answer is that most give, in other words or the same; of equals the first. Nobody answers: 0."""
    given = [answer for answer in answers if answer.vote is not None]
    votes_given = [answer.vote for answer in given]
    return given[votes_given.index(max(votes_given, key=votes_given.count))].correct if given else 0.0


def rate_of(values: Sequence[float]) -> Mean:
    """The mean of values from 0 to 1; Wilson's interval for as many yes-or-no trials as would have their spread."""
    mean, count = float(np.mean(values)), len(values)
    spread = float(np.var(values, ddof=1)) / count if count > 1 else 0.0
    low, high = wilson(mean, max(1, round(mean * (1 - mean) / spread)) if spread else count)
    return Mean(mean=mean, low=low, high=high)


def _accuracy(sheet: Sheet, samples: int) -> Accuracy:
    given = [answer for answers in sheet.values() for answer in answers]
    by_item = _by_item(sheet, _average)
    by_run: dict[int, list[float]] = defaultdict(list)
    for (run, _), answers in sheet.items():
        by_run[run].append(_average(answers))
    means = [float(np.mean(values)) for values in by_run.values()]
    return Accuracy(
        items=len(by_item),
        samples=samples,
        runs=len(means),
        accuracy=rate_of(list(by_item.values())),
        spread=float(np.std(means, ddof=1)) if len(means) > 1 else None,
        best=float(np.mean([max(answer.correct for answer in answers) for answers in sheet.values()])),
        majority=float(np.mean([vote(answers) for answers in sheet.values()])),
        failed=sum(answer.failed for answer in given),
        tokens=float(np.mean([answer.tokens for answer in given])),
        prompt_tokens=float(np.mean([answer.prompt_tokens for answer in given])),
        turns=float(np.mean([answer.turns for answer in given])),
        seconds=float(np.mean([answer.seconds for answer in given])),
    )


def _matched(sheet: Sheet, single: Sheet, count: int) -> Matched:
    count = min(count, *map(len, single.values()))  # what was not asked cannot vote

    def voted(answers: Sequence[Answer]) -> float:
        """Of all whole votes that the answers hold."""
        ends = range(count, len(answers) + 1, count)
        return float(np.mean([vote(answers[end - count : end]) for end in ends]))

    tokens = float(np.mean([answer.tokens for answers in single.values() for answer in answers]))
    return Matched(
        votes=count,
        tokens=count * tokens,
        accuracy=rate_of(list(_by_item(single, voted).values())),
        difference=mean_of(_differences(_by_item(sheet, _average), single, voted)),
    )


def _by_item(sheet: Sheet, value: Callable[[Sequence[Answer]], float]) -> dict[int, float]:
    """Item to the mean over runs."""
    found: dict[int, list[float]] = defaultdict(list)
    for (_, item), answers in sheet.items():
        found[item].append(value(answers))
    return {item: float(np.mean(values)) for item, values in sorted(found.items())}


def _differences(ours: Mapping[int, float], theirs: Sheet, value: Callable[[Sequence[Answer]], float]) -> list[float]:
    """Ours less theirs, for every item that both were asked."""
    other = _by_item(theirs, value)
    return [mine - other[item] for item, mine in ours.items() if item in other]


def _average(answers: Sequence[Answer]) -> float:
    return float(np.mean([answer.correct for answer in answers]))
