"""Who does how well against whom."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from marl_llm.ratings import Rating, ratings
from marl_llm.report.charts import FEW_COLUMNS, Chart, Spec, heat, lines
from marl_llm.report.curves import measured, slug
from marl_llm.report.decisions import thirds
from marl_llm.report.logs import RunLog
from marl_llm.report.numbers import interval, signed
from marl_llm.report.sample import Met, Sample
from marl_llm.visible import shortened

LABEL = 30
MOST = 12
"""Opponents, and rows, of a matrix."""
MOST_RATED = 8


def payoffs(log: RunLog, sample: Sample) -> list[Chart]:
    """Matrices of mean returns: of the last evaluation, of the first, and of the games that were trained on."""
    charts = []
    known = [step for step, games in sorted(log.evaluations.items()) if any(g["opponents"] for g in games.values())]
    for step in dict.fromkeys([*known[-1:], *known[:1]]):
        for game, result in log.evaluations[step].items():
            rows = [
                _scored(seat, opponent, score)
                for opponent, seats in result["opponents"].items()
                for seat, score in seats.items()
            ]
            if rows:
                charts.append(
                    Chart(
                        name=f"payoffs-{slug(game)}-{step}",
                        title=f"Evaluation of step {step}" + (f": {game}" if len(log.evaluations[step]) > 1 else ""),
                        about="Mean return of the trained policy in each seat against each opponent, ± 95 %.",
                        spec=heat(rows, value="mean return", across="opponent", down="seat"),
                        wide=len(result["opponents"]) > FEW_COLUMNS,
                    )
                )
    late = thirds(sample.steps)[1]
    games: dict[str, list[Met]] = defaultdict(list)
    for met in sample.meetings:
        if met.step in late:
            games[met.game].append(met)
    return charts + [_trained(game, found, len(games) > 1) for game, found in games.items()]


def _scored(seat: str, opponent: str, score: dict[str, Any]) -> dict[str, Any]:
    half = (score["high"] - score["low"]) / 2
    return {
        "row": f"as {shortened(seat, LABEL)}",
        "col": shortened(opponent, LABEL),
        "v": score["mean"],
        "lo": score["low"],
        "hi": score["high"],
        "n": score["games"],
        "t": f"{signed(score['mean'])}\n± {half:.2f}",
    }


def _trained(game: str, meetings: Sequence[Met], several: bool) -> Chart:
    opponents = [name for name, _ in Counter(met.others for met in meetings).most_common(MOST)]
    seats = [name for name, _ in Counter((met.policy, met.agent) for met in meetings).most_common(MOST)]
    rows: list[dict[str, Any]] = []
    for policy, agent in sorted(seats):
        for others in sorted(opponents):
            values = [m.value for m in meetings if (m.policy, m.agent, m.others) == (policy, agent, others)]
            found = interval(values)
            if found is not None:
                rows.append(
                    {
                        "row": f"{shortened(policy, LABEL)} as {shortened(agent, LABEL)}",
                        "col": shortened(others, LABEL),
                        "v": found.mean,
                        "lo": found.low,
                        "hi": found.high,
                        "n": found.count,
                        "t": f"{signed(found.mean)}\n± {found.half:.2f}",
                    }
                )
    return Chart(
        name=f"payoffs-trained-{slug(game)}",
        title="Games of training" + (f": {game}" if several else ""),
        about="Mean return in the last third of the sampled steps, by who sits where and who else plays, ± 95 %.",
        spec=heat(rows, value="mean return", across="others", down="policy and seat"),
        wide=len(opponents) > FEW_COLUMNS,
    )


def rated(log: RunLog, sample: Sample) -> Chart | None:
    """Ratings over time: the league's, or else of the policies that met in the sampled steps."""
    league = {
        key.removeprefix("league/rating/"): found
        for key, found in measured(log).items()
        if key.startswith("league/rating/")
    }
    if league:
        latest = sorted(league, key=lambda name: (-league[name][0][-1], -len(league[name][0]), name))[:MOST_RATED]
        names = [shortened(name, LABEL) for name in latest]
        rows = [
            {"c": shown, "x": x, "y": y}
            for shown, name in zip(names, latest, strict=True)
            for x, y in zip(*_thin(*league[name]), strict=True)
        ]
        about = f"OpenSkill, as the league keeps it{_left(len(league), len(latest))}."
        return Chart(name="ratings", title="Ratings", about=about, spec=lines(rows, y="rating (mu)", names=names))
    return _reckoned(sample)


def _thin(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    every = -(-len(steps) // 200)
    return steps[::every], values[::every]


def _left(known: int, drawn: int) -> str:
    return f"; {drawn} of {known} are drawn" if known > drawn else ""


def _reckoned(sample: Sample) -> Chart | None:
    duels: dict[int, dict[tuple[str, str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for met in sample.meetings:
        if met.policy != met.others and "," not in met.others:
            one, other = sorted((met.policy, met.others))
            duels[met.step][met.group, one, other].append(met.lead if met.policy == one else -met.lead)
    if not duels:
        return None
    current: dict[str, Rating] = {}
    met_in: Counter[str] = Counter()
    told: list[tuple[int, dict[str, Rating]]] = []
    for step, groups in sorted(duels.items()):
        margins = [(one, other, sum(leads) / len(leads)) for (_, one, other), leads in sorted(groups.items())]
        players = list(dict.fromkeys([*current, *(name for one, other, _ in margins for name in (one, other))]))
        met_in.update(name for one, other, _ in margins for name in (one, other))
        current = ratings(players, margins, current)
        told.append((step, current))
    shown = [name for name, _ in met_in.most_common(MOST_RATED)]
    rows: list[dict[str, Any]] = [
        {
            "c": shortened(name, LABEL),
            "x": step,
            "y": known[name].mu,
            "lo": known[name].mu - known[name].sigma,
            "hi": known[name].mu + known[name].sigma,
        }
        for name in shown
        for step, known in told
        if name in known
    ]
    spec: Spec = lines(rows, y="rating (mu)", names=[shortened(name, LABEL) for name in shown])
    about = f"OpenSkill over the sampled steps, a group being one duel; band: ± sigma{_left(len(current), len(shown))}."
    return Chart(name="ratings", title="Ratings", about=about, spec=spec)
