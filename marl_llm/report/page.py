"""What the page shows, put together from what was read."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from marl_llm.alarms import MEANING
from marl_llm.config import Config, to_yaml
from marl_llm.report import numbers
from marl_llm.report.charts import Chart, lines, means, periods, settings, spread
from marl_llm.report.curves import SECTIONS, curves, measured, slug
from marl_llm.report.decisions import MOST_STATES, Decider, Point, State, deciders, thirds
from marl_llm.report.groups import Difference, Variant, differences, variants
from marl_llm.report.logs import RunLog
from marl_llm.report.meetings import payoffs, rated
from marl_llm.report.sample import Sample, read_sample
from marl_llm.report.transcripts import Transcript, of_last_step, transcript
from marl_llm.visible import shortened, visible

TEMPLATES = Path(__file__).parent / "page"
SHOWN_FIRST = 12
"""States of one decider that have transcripts."""
DISTRIBUTIONS = 6
"""Steps whose distribution of advantages is drawn."""
LABEL = 40

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """How often one alarm was on in one run."""

    run: str
    name: str
    first: int
    last: int
    steps: int
    on: bool
    """Whether it was at the last step."""
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """A number of the overview, at the beginning and at the end."""

    name: str
    first: float | None
    last: float | None
    share: bool
    """Whether it is shown as a percentage."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A state of one variant, with its charts and transcripts."""

    variant: str
    state: State
    charts: tuple[Chart, ...]
    transcripts: tuple[Transcript, ...]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A state as all variants decide in it."""

    anchor: str
    label: str
    observation: str
    shown: tuple[Shown, ...]


@dataclass(frozen=True, kw_only=True)
class Who:
    """A role of a game, and the decisions in it."""

    anchor: str
    game: str
    role: str
    policy: str
    about: str
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What was read of one variant's episodes."""

    variant: Variant
    sample: Sample
    deciders: tuple[Decider, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the page shows."""

    title: str
    logs: tuple[RunLog, ...]
    groups: tuple[Variant, ...]
    headlines: Mapping[str, Sequence[Told]]
    """By variant."""
    alarms: tuple[Alarm, ...]
    overview: tuple[Chart, ...]
    alarm_chart: Chart | None
    who: tuple[Who, ...]
    curves: Mapping[str, Sequence[Chart]]
    matrices: Sequence[tuple[str, Sequence[Chart]]]
    """By variant."""
    credit: Sequence[tuple[str, str, Sequence[Chart], Sequence[str]]]
    """By variant: the recipe, charts, remarks."""
    transcripts: Sequence[tuple[str, Sequence[Transcript]]]
    """By variant."""
    samples: Sequence[tuple[str, Sample]]
    differences: Sequence[Difference]
    others: Sequence[tuple[str, ...]]
    """Metrics without a chart, of the first run: key, first, last, least, greatest."""
    damage: tuple[str, ...]

    def charts(self) -> list[Chart]:
        """All of them, in the order of the page."""
        decided = (c for who in self.who for d in who.decisions for shown in d.shown for c in shown.charts)
        return [
            *self.overview,
            *([self.alarm_chart] if self.alarm_chart else []),
            *decided,
            *(c for found in self.curves.values() for c in found),
            *(c for _, found in self.matrices for c in found),
            *(c for _, _, found, _ in self.credit for c in found),
        ]


def compose(logs: Sequence[RunLog], refused: Sequence[str], tell: Tell) -> Report:
    """Read the episodes of each variant's first run, and put together what is shown."""
    groups = variants(logs)
    looked = [_look(variant, tell) for variant in groups]
    tell("drawing")
    by_section, drawn = curves(groups)
    names = _Unique()
    by_section = {section: names.charts(by_section[section]) for section in SECTIONS if section in by_section}
    alarms = tuple(alarm for log in logs for alarm in _alarms(log, len(logs) > 1))
    most = max(6, MOST_STATES // len(groups))
    several = len(groups) > 1
    return Report(
        title=_title(logs),
        logs=tuple(logs),
        groups=groups,
        headlines={variant.name: _headlines(variant) for variant in groups},
        alarms=alarms,
        overview=tuple(names.charts(_overview(by_section))),
        alarm_chart=_alarm_chart(logs, alarms) if alarms else None,
        who=tuple(_who(looked, most, names)),
        curves=by_section,
        matrices=[
            (one.variant.name, names.charts(_matrices(one), one.variant.name if several else "")) for one in looked
        ],
        credit=[
            (
                one.variant.name,
                f"{one.sample.judge.name}: {one.sample.judge.recipe.about}" if one.sample.judge.recipe else "",
                names.charts(_credit(one.sample), one.variant.name if several else ""),
                one.sample.judge.notes,
            )
            for one in looked
        ],
        transcripts=[(one.variant.name, of_last_step(one.sample)) for one in looked],
        samples=[(one.variant.name, one.sample) for one in looked],
        differences=differences(logs) if len(logs) > 1 else [],
        others=_others(logs[0], drawn),
        damage=(*refused, *(line for log in logs for line in log.damage)),
    )


class _Unique:
    """Gives charts names that no other has, for they name files."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def charts(self, found: Sequence[Chart], suffix: str = "") -> list[Chart]:
        return [
            replace(chart, name=self.name(f"{chart.name}-{slug(suffix)}" if suffix else chart.name)) for chart in found
        ]

    def name(self, wanted: str) -> str:
        number, name = 1, wanted
        while name in self._known:
            number += 1
            name = f"{wanted}-{number}"
        self._known.add(name)
        return name


def _look(variant: Variant, tell: Tell) -> Looked:
    log = variant.first

    def count(done: int, of: int) -> None:
        tell(f"{log.path}: episodes of {done} of {of} steps")

    sample = read_sample(log, count)
    return Looked(variant=variant, sample=sample, deciders=deciders(sample))


def _title(logs: Sequence[RunLog]) -> str:
    names = list(dict.fromkeys(log.config.run.name for log in logs))
    return shortened(", ".join(names), 80)


def _headlines(variant: Variant) -> list[Told]:
    """What is most worth knowing, means over seeds."""
    found = [measured(log) for log in variant.runs]
    keys = list(dict.fromkeys(key for log in found for key in log))
    wanted = [key for key in keys if key.startswith("eval/") and key.endswith(("exploitability", "best_response"))]
    wanted += [key for key in keys if key.startswith("play/fact/") and key.rpartition("/")[2] == "correct"]
    wanted += [key for key in keys if key.startswith("play/return/")][:4]
    wanted += [key for key in ("play/illegal_fraction", "play/reply_tokens") if key in keys]
    wanted += [key for key in keys if key.startswith("learn/") and key.endswith("/entropy")][:2]
    return [
        Told(
            name=_headline_name(key),
            first=_mean([_edge(key, log[key][1], first=True) for log in found if key in log]),
            last=_mean([_edge(key, log[key][1], first=False) for log in found if key in log]),
            share=key == "play/illegal_fraction" or key.endswith("/correct"),
        )
        for key in wanted[:10]
    ]


def _headline_name(key: str) -> str:
    named = {"play/illegal_fraction": "illegal moves", "play/reply_tokens": "tokens of a reply"}
    if key in named:
        return named[key]
    room, _, rest = key.partition("/")
    if key.startswith("play/return/"):
        return f"return, {shortened(key.removeprefix('play/return/'), LABEL)}"
    if room == "learn":
        return f"entropy, {shortened(rest.removesuffix('/entropy'), LABEL)}"
    return shortened(rest.replace("_", " ").replace("fact/", ""), LABEL)


def _edge(key: str, values: Sequence[float], *, first: bool) -> float:
    """The mean of the first or last tenth of the values, of at most ten and at least one of them; of what was evaluated
    the first or last value."""
    size = 1 if key.startswith("eval/") else max(1, min(10, len(values) // 10))
    return float(np.mean(values[:size] if first else values[-size:]))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _overview(sections: Mapping[str, Sequence[Chart]]) -> list[Chart]:
    """Two charts that say most."""
    every = [chart for found in sections.values() for chart in found]
    wanted = ("Exploitability", "Fact: correct", "Best response", "Return by role", "Win rate by role", "Actions")
    chosen = [chart for title in wanted for chart in every if chart.title.startswith(title)]
    return [replace(chart, name=f"overview-{chart.name}") for chart in chosen[:2]]


def _alarms(log: RunLog, several: bool) -> Iterator[Alarm]:
    for key, series in log.series.items():
        if not key.startswith("alarm/"):
            continue
        steps = [step for step, value in zip(series.steps, series.values, strict=True) if value > 0]
        if steps:
            name = key.removeprefix("alarm/")
            yield Alarm(
                run=log.path.name if several else "",
                name=shortened(name, 80),
                first=steps[0],
                last=steps[-1],
                steps=len(steps),
                on=steps[-1] == log.last_step,
                meaning=MEANING.get(name.partition("/")[0], "This version does not know what it means."),
            )


def _alarm_chart(logs: Sequence[RunLog], alarms: Sequence[Alarm]) -> Chart:
    rows = []
    for log in logs:
        for key, series in log.series.items():
            if key.startswith("alarm/"):
                label = shortened(key.removeprefix("alarm/"), 60) + (f" ({log.path.name})" if len(logs) > 1 else "")
                rows += [{"name": label, "from": a, "to": b} for a, b in _stretches(list(series.steps))]
    return Chart(
        name="alarms",
        title="When alarms were on",
        about="",
        spec=periods(rows, max(log.last_step for log in logs)),
    )


def _stretches(steps: Sequence[int]) -> Iterator[tuple[float, float]]:
    """Steps that follow each other, from half a step before to half a step after."""
    if not steps:
        return
    begin = steps[0]
    for before, after in pairwise([*steps, steps[-1] + 2]):
        if after != before + 1:
            yield begin - 0.5, before + 0.5
            begin = after


def _who(looked: Sequence[Looked], most: int, names: _Unique) -> Iterator[Who]:
    keys = list(dict.fromkeys((d.game, d.role, d.policy) for one in looked for d in one.deciders))
    several = len(looked) > 1
    for number, (game, role, policy) in enumerate(keys):
        found = [
            (one, decider)
            for one in looked
            for decider in one.deciders
            if (decider.game, decider.role, decider.policy) == (game, role, policy)
        ]
        states: dict[str, list[tuple[Looked, State]]] = defaultdict(list)
        for one, decider in found:
            for state in (*((decider.summary,) if decider.summary else ()), *decider.states):
                states[state.observation].append((one, state))
        decisions = []
        for place, (observation, shown) in enumerate(list(states.items())[:most]):
            anchor = f"d{number}-{place}"
            label = shown[0][1].label or f"All decisions of {shortened(role, LABEL)}"
            decisions.append(
                Decision(
                    anchor=anchor,
                    label=label,
                    observation=observation,
                    shown=tuple(
                        _shown(one, state, label, names, several, examples=place < SHOWN_FIRST and bool(observation))
                        for one, state in shown
                    ),
                )
            )
        yield Who(
            anchor=f"w{number}",
            game=game,
            role=role,
            policy=policy,
            about=" ".join(_about(one, decider, several) for one, decider in found),
            decisions=tuple(decisions),
        )


def _about(one: Looked, decider: Decider, several: bool) -> str:
    told = (
        f"{decider.count:,} decisions in {decider.different:,} different states; {decider.recurring:,} of them recur "
        f"and hold {numbers.percent(decider.covered)} of the decisions."
    )
    if decider.recurring > len(decider.states):
        told += f" The {len(decider.states)} most frequent are shown."
    if decider.summary is not None:
        told += (
            " Since most states do not come back, all decisions of the role are summed up as well, whatever was seen."
        )
    return f"{one.variant.name}: {told}" if several else told


def _shown(one: Looked, state: State, label: str, names: _Unique, several: bool, *, examples: bool) -> Shown:
    drawn = {point.name for point in state.shares}
    actions = [action.name for action in state.actions if action.name in drawn]
    of = f" ({one.variant.name})" if several else ""
    stem = slug(f"{label} {one.variant.name if several else ''}")
    charts = [
        Chart(
            name=names.name(f"share-{stem}"),
            title=f"How often{of}",
            about="",
            spec=lines(_points(state.shares), y="share", shares=True, names=actions),
        )
    ]
    if state.advantages:
        charts.append(
            Chart(
                name=names.name(f"advantage-{stem}"),
                title=f"How it was judged{of}",
                about="Mean advantage of each action over stretches of training, ± 95 %.",
                spec=means(_points(state.advantages), y="advantage", names=actions),
            )
        )
    shown = [transcript(one.sample, place, title="", turn=turn) for place, turn in state.examples] if examples else []
    return Shown(
        variant=one.variant.name,
        state=state,
        charts=tuple(charts),
        transcripts=tuple(found for found in shown if found is not None),
    )


def _points(points: Sequence[Point]) -> list[dict[str, Any]]:
    return [
        {"c": p.name, "x": round(p.step, 1), "y": round(p.value, 4), "lo": round(p.low, 4), "hi": round(p.high, 4)}
        for p in points
    ]


def _matrices(one: Looked) -> list[Chart]:
    chart = rated(one.variant.first, one.sample)
    return [*payoffs(one.variant.first, one.sample), *([chart] if chart else [])]


def _credit(sample: Sample) -> list[Chart]:
    """Reward parts over time, and how advantages are spread, by role."""
    charts = []
    roles = list(dict.fromkeys((game, role) for game, role, _, _ in sample.parts))
    games = len({game for game, _ in roles}) > 1
    for game, role in roles[:12]:
        of = f"{shortened(role, LABEL)}" + (f" ({shortened(game, LABEL)})" if games else "")
        parts = list(dict.fromkeys(part for g, r, part, _ in sample.parts if (g, r) == (game, role) and part))[:8]
        rows = []
        for part in parts:
            for step in sample.steps:
                _, count = sample.parts.get((game, role, "", step), (0.0, 0))
                total, _ = sample.parts.get((game, role, part, step), (0.0, 0))
                if count:
                    rows.append({"c": shortened(part, LABEL), "x": step, "y": round(total / count, 4)})
        if rows:
            charts.append(
                Chart(
                    name=f"rewards-{slug(of)}",
                    title=f"Reward parts: {of}",
                    about="Mean per agent and episode.",
                    spec=lines(rows, y="reward", names=[shortened(part, LABEL) for part in parts]),
                )
            )
    table = sample.decisions
    steps = np.array(sample.steps)
    chosen = (
        steps[np.unique(np.linspace(0, len(steps) - 1, min(DISTRIBUTIONS, len(steps))).round().astype(int))]
        if len(steps)
        else []
    )
    whos = len({policy for _, _, policy in sample.who}) > 1
    for code, (game, role, policy) in sorted(enumerate(sample.who), key=lambda item: item[1])[:12]:
        rows = []
        for step in chosen:
            values = table.advantage[(table.who == code) & (table.step == step)]
            values = values[np.isfinite(values)]
            if len(values):
                at = dict(
                    zip(("p5", "p25", "p50", "p75", "p95"), np.percentile(values, (5, 25, 50, 75, 95)), strict=True)
                )
                told = {name: round(float(value), 4) for name, value in at.items()}
                rows.append({"x": int(step), **told, "mean": round(float(values.mean()), 4), "n": len(values)})
        if rows:
            of = shortened(role, LABEL) + (f" ({shortened(game, LABEL)})" if games else "")
            of += f", {shortened(policy, LABEL)}" if whos else ""
            charts.append(
                Chart(
                    name=f"advantages-{slug(of)}",
                    title=f"Advantages: {of}",
                    about="Line: 5 to 95 % of turns; bar: 25 to 75 %; tick: median; diamond: mean.",
                    spec=spread(rows, y="advantage"),
                )
            )
    return charts


def _others(log: RunLog, drawn: set[str]) -> list[tuple[str, ...]]:
    return [
        (
            shortened(key, 100),
            *(numbers.number(v, 4) for v in (s.values[0], s.values[-1], min(s.values), max(s.values))),
        )
        for key, s in log.series.items()
        if key not in drawn and not key.startswith(("alarm/", "league/rating/")) and key != "time_s"
    ]


def html(report: Report) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    environment.filters |= {
        "signed": numbers.signed,
        "percent": numbers.percent,
        "number": numbers.number,
        "told": lambda value, share: numbers.fine_percent(value) if share else numbers.number(value),
        "duration": numbers.duration,
        "tone": _tone,
    }
    specs = {chart.name: chart.spec for chart in report.charts()}
    return environment.get_template("index.html").render(
        report=report,
        several=len(report.groups) > 1,
        compared=_compared(report.headlines),
        specs=script(specs),
        looks=script({"light": settings(dark=False), "dark": settings(dark=True)}),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        yaml=lambda log: to_yaml(log.config),
        players=_players,
        thirds=thirds,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),  # ours
    )


def _compared(headlines: Mapping[str, Sequence[Told]]) -> list[dict[str, Any]]:
    """The headlines as a table: a row for each number, a cell for each variant."""
    names = list(dict.fromkeys(told.name for found in headlines.values() for told in found))
    by_variant = [{told.name: told for told in found} for found in headlines.values()]
    return [{"name": name, "cells": [found.get(name) for found in by_variant]} for name in names]


def _finalized(value: Any) -> Any:
    """Every text that is put into the page is made visible; `Markup` is ours."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def script(value: Any) -> Markup:
    """JSON that nothing in it can end early, wherever it stands in a page."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _players(config: Config) -> list[tuple[str, str]]:
    """Policy to what it is."""
    found = []
    for name, policy in config.policies.items():
        model = policy.model or (f"adapter on {policy.base}" if policy.base else "tiny")
        learns = ", learns" if policy.kind == "llm" and policy.trainable else ""
        found.append((name, f"{model}{learns}" if policy.kind == "llm" else policy.kind))
    return found


def _tone(value: float | None) -> str:
    """A class for the sign of a number."""
    return "none" if value is None else "up" if value > 0.005 else "down" if value < -0.005 else "none"
