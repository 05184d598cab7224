"""Learning curves: which metrics belong on one chart, and their lines with bands over seeds."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marl_llm.report.charts import MOST_POINTS, Chart, lines
from marl_llm.report.groups import Variant
from marl_llm.report.logs import RunLog
from marl_llm.visible import shortened

MOST_LINES = 8
"""On one chart."""
MOST_CHARTS = 16
"""Of one family that has a chart for each metric."""
SMOOTH = 25
"""Curves of more points than `4 * SMOOTH` are smoothed over this part of them."""
LABEL = 60


@dataclass(frozen=True, kw_only=True)
class Family:
    """Metrics that are looked at together."""

    section: str
    title: str
    pattern: str
    """Matches the whole key; its groups, joined by blanks, name the line."""
    y: str
    about: str = ""
    shares: bool = False
    log: bool = False
    zero: bool = False
    apart: bool = False
    """Whether each has a chart of its own, since their scales differ."""


WELL, DOES, LEARNS, COSTS, POOL = "How well it plays", "What it does", "How it learns", "What it costs", "Its league"

SECTIONS = (WELL, DOES, LEARNS, COSTS, POOL)

FAMILIES = (
    Family(
        section=WELL,
        title="Exploitability",
        pattern=r"eval/(?:(.+)/)?exploitability",
        y="exploitability",
        about="What a best response would win on average; 0 at an equilibrium.",
        zero=True,
    ),
    Family(
        section=WELL,
        title="Best response",
        pattern=r"eval/(?:(.+)/)?best_response",
        y="best response wins",
        about="What a searched response wins: a lower bound of the exploitability.",
        zero=True,
    ),
    Family(section=WELL, title="Return by role", pattern=r"play/return/(.+)", y="mean return"),
    Family(
        section=WELL,
        title="Win rate by role",
        pattern=r"play/win_rate/(.+)",
        y="win rate",
        about="The share of the others that got less; a draw is half a win.",
        shares=True,
    ),
    Family(
        section=WELL,
        title="Return against opponents",
        pattern=r"eval/(?:(.+)/)?return/(.+)/(.+)",
        y="mean return",
        about="From the evaluations, by opponent and seat.",
    ),
    Family(
        section=WELL, title="Chance to lose", pattern=r"eval/(?:(.+)/)?loss/(.+)/(.+)", y="chance to lose", shares=True
    ),
    Family(section=WELL, title="Team return", pattern=r"eval/(?:(.+)/)?team/return/(.+)", y="mean return"),
    Family(section=WELL, title="Team", pattern=r"eval/(?:(.+)/)?team/fact/(.+)", y="mean", apart=True),
    Family(section=WELL, title="Fact", pattern=r"play/fact/(.+)", y="mean", apart=True),
    Family(
        section=DOES,
        title="Actions",
        pattern=r"play/action/(.+)",
        y="share",
        about="How often an action is taken where it is offered beside others.",
        shares=True,
    ),
    Family(
        section=DOES,
        title="Illegal moves",
        pattern=r"play/illegal_fraction",
        y="share of turns",
        about="Replies that cannot be read count as illegal.",
        zero=True,
    ),
    Family(
        section=DOES,
        title="Illegal mass",
        pattern=r"eval/(?:(.+)/)?illegal_mass",
        y="probability",
        about="Probability of all replies that are no legal action, over all information states.",
        zero=True,
    ),
    Family(section=DOES, title="Tokens of a reply", pattern=r"play/reply_tokens", y="tokens", zero=True),
    Family(section=DOES, title="Tokens of a reply by role", pattern=r"play/length/(.+)", y="tokens", zero=True),
    Family(
        section=DOES,
        title="Entropy by role",
        pattern=r"play/entropy/(.+)",
        y="nats per token",
        about="Mean of -log p of the sampled tokens: an estimate.",
        zero=True,
    ),
    Family(
        section=DOES,
        title="Identical replies",
        pattern=r"play/identical_replies",
        y="share",
        about="The largest share of replies that are one and the same text.",
        shares=True,
    ),
    Family(
        section=DOES,
        title="Entropy",
        pattern=r"learn/([^/]+)/entropy",
        y="nats per token",
        about="How much replies vary, by policy; towards 0 nothing new is tried.",
        zero=True,
    ),
    Family(section=LEARNS, title="Loss", pattern=r"learn/([^/]+)/(loss|policy_loss)", y="loss"),
    Family(
        section=LEARNS,
        title="KL divergence to the reference",
        pattern=r"learn/([^/]+)/kl",
        y="nats per token",
        zero=True,
    ),
    Family(section=LEARNS, title="Norm of the gradient", pattern=r"learn/([^/]+)/grad_norm", y="norm", zero=True),
    Family(
        section=LEARNS,
        title="Gap between engine and learner",
        pattern=r"learn/([^/]+)/(gap_mean|gap_max)",
        y="nats",
        about="How far the two differ about the probability of what was sampled.",
        log=True,
    ),
    Family(
        section=LEARNS,
        title="Ratio",
        pattern=r"learn/([^/]+)/ratio_max",
        y="greatest ratio",
        about="The greatest ratio of a token's probabilities, new to old.",
    ),
    Family(
        section=LEARNS,
        title="Clipped and masked",
        pattern=r"learn/([^/]+)/(clip_fraction|masked_fraction)",
        y="share of tokens",
        zero=True,
    ),
    Family(
        section=LEARNS,
        title="Staleness",
        pattern=r"(?:learn|play)/(?:(.+)/)?(staleness_mean|staleness_max)",
        y="updates",
        about="How many updates older than its learner the weights were that sampled.",
        zero=True,
    ),
    Family(
        section=LEARNS,
        title="Turns without credit",
        pattern=r"credit/(zero|unknown)",
        y="share of turns",
        about="Turns whose advantage is 0, or of which the recipe cannot tell anything.",
        shares=True,
    ),
    Family(section=LEARNS, title="Learning rate", pattern=r"learn/([^/]+)/lr", y="learning rate", zero=True),
    Family(section=LEARNS, title="Critic", pattern=r"learn/(.+/critic/.+)", y="value", apart=True),
    Family(
        section=COSTS, title="Tokens sampled by role", pattern=r"play/cost/(.+)/tokens", y="tokens a step", zero=True
    ),
    Family(
        section=COSTS,
        title="Tokens read by role",
        pattern=r"play/cost/(.+)/prompt_tokens",
        y="tokens a step",
        zero=True,
    ),
    Family(section=COSTS, title="Seconds by role", pattern=r"play/cost/(.+)/seconds", y="seconds a step", zero=True),
    Family(
        section=COSTS,
        title="Reward per thousand tokens",
        pattern=r"play/cost/(.+)/reward_per_1k",
        y="reward",
        about="All known rewards of a role per thousand tokens, read and sampled.",
    ),
    Family(
        section=COSTS,
        title="Tokens sampled by policy",
        pattern=r"play/policy_cost/(.+)/tokens",
        y="tokens a step",
        zero=True,
    ),
    Family(
        section=COSTS,
        title="Seconds by policy",
        pattern=r"play/policy_cost/(.+)/seconds",
        y="seconds a step",
        zero=True,
    ),
    Family(section=COSTS, title="Where the time goes", pattern=r"time/(.+)_s", y="seconds a step", zero=True),
    Family(section=COSTS, title="Tokens per second", pattern=r"play/tokens_per_s", y="tokens per second", zero=True),
    Family(section=POOL, title="Win rate against the pool", pattern=r"league/win_rate/(.+)", y="win rate", shares=True),
)


def measured(log: RunLog) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of every metric, those that only the evaluation files have included."""
    found = {key: (list(map(float, s.steps)), list(s.values)) for key, s in log.series.items()}
    for step, games in log.evaluations.items():
        for key, value in _told(games).items():
            steps, values = found.setdefault(key, ([], []))
            if step not in steps:
                place = int(np.searchsorted(steps, step))
                steps.insert(place, float(step))
                values.insert(place, value)
    return found


def _told(games: Mapping[str, Any]) -> dict[str, float]:
    told: dict[str, float] = {}
    for game, result in games.items():
        start = f"eval/{game}/" if len(games) > 1 else "eval/"
        if result["exploitability"] is not None:
            told[f"{start}exploitability"] = float(result["exploitability"])
        for opponent, seats in result["opponents"].items():
            for seat, score in seats.items():
                told[f"{start}return/{opponent}/{seat}"] = float(score["mean"])
    return told


def curves(groups: Sequence[Variant]) -> tuple[dict[str, list[Chart]], set[str]]:
    """Charts by section, and the metrics that are on one of them."""
    found = {variant: [measured(log) for log in variant.runs] for variant in groups}
    keys = list(dict.fromkeys(key for logs in found.values() for log in logs for key in log))
    charts: dict[str, list[Chart]] = defaultdict(list)
    drawn: set[str] = set()
    for family in FAMILIES:
        named = {key: match for key in keys if (match := re.fullmatch(family.pattern, key))}
        if named:
            drawn |= named.keys()
            labels = {key: _label(match) for key, match in named.items()}
            charts[family.section] += _charts(family, labels, found)
    return dict(charts), drawn


def _label(match: "re.Match[str]") -> str:
    return shortened(" ".join(part for part in match.groups() if part), LABEL)


def _charts(
    family: Family,
    labels: Mapping[str, str],
    found: Mapping[Variant, Sequence[Mapping[str, tuple[list[float], list[float]]]]],
) -> Iterator[Chart]:
    several = len(found) > 1
    if not several and not family.apart:
        (logs,) = found.values()
        chosen = dict(list(labels.items())[-MOST_LINES:])
        series = {label: [log[key] for log in logs if key in log] for key, label in chosen.items()}
        left = len(labels) - len(chosen)
        yield _chart(
            family, family.title, series, f"The last {len(chosen)} of {len(labels)} are drawn." if left else ""
        )
        return
    for key, label in list(labels.items())[:MOST_CHARTS]:
        title = f"{family.title}: {label}" if label else family.title
        if several:
            series = {v.name: [log[key] for log in logs if key in log] for v, logs in found.items()}
        else:
            (logs,) = found.values()
            series = {"": [log[key] for log in logs if key in log]}
        yield _chart(family, title, {name: curves for name, curves in series.items() if curves}, "")


def _chart(
    family: Family, title: str, series: Mapping[str, Sequence[tuple[list[float], list[float]]]], remark: str
) -> Chart:
    rows: list[dict[str, Any]] = []
    smoothed = 0
    for name, runs in series.items():
        found, window = _line(runs, log=family.log)
        rows += [{"c": name, **row} for row in found]
        smoothed = max(smoothed, window)
    seeds = max(len(runs) for runs in series.values())
    told = [family.about, remark]
    told += [f"Line: mean of {seeds} seeds; band: from the least to the greatest of them."] if seeds > 1 else []
    told += [f"Smoothed over {smoothed} points" + ("." if seeds > 1 else "; faint: as measured.")] if smoothed else []
    spec = lines(
        rows,
        y=family.y,
        shares=family.shares,
        log=family.log,
        zero=family.zero,
        names=list(series),
        raw=bool(smoothed) and seeds == 1,
    )
    return Chart(name=f"curve-{slug(title)}", title=title, about=" ".join(filter(None, told)), spec=spec)


def _line(runs: Sequence[tuple[list[float], list[float]]], *, log: bool) -> tuple[list[dict[str, float]], int]:
    """Rows of a chart: the mean of runs with the least and the greatest, and over how many points they are smoothed."""
    by_step: dict[float, list[float]] = defaultdict(list)
    for steps, values in runs:
        for step, value in zip(steps, values, strict=True):
            if value > 0 or not log:
                by_step[step].append(value)
    steps = sorted(by_step)
    table = np.array([[step, np.mean(v), min(v), max(v)] for step in steps for v in [by_step[step]]]).reshape(-1, 4)
    size = -(-len(table) // MOST_POINTS)
    if size > 1:
        table = np.array([table[start : start + size].mean(0) for start in range(0, len(table), size)])
    window = len(table) // SMOOTH if len(table) > 4 * SMOOTH else 0
    means, lows, highs = (_smoothed(table[:, column], window) for column in (1, 2, 3))
    several = len(runs) > 1
    return [
        {
            "x": round(float(table[row, 0]), 2),
            "y": _short(means[row]),
            **({"lo": _short(lows[row]), "hi": _short(highs[row])} if several else {}),
            **({"r": _short(table[row, 1])} if window and not several else {}),
        }
        for row in range(len(table))
    ], window


def _smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Means over `window` neighbours, of fewer at the ends."""
    if window < 2:
        return values
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "x"
