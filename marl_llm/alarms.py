"""Alarms: what in the metrics of a run's last steps calls for a person's attention."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from marl_llm.config import AlarmConfig

Row = Mapping[str, float | None]
"""The metrics of a step, as measured or as read back from metrics.jsonl; None: not a finite number."""

MEANING = {
    "illegal_moves": "many moves are illegal; read some replies in episodes/: is the form of the answer lost (warm up "
    "longer, learn slower), or are the rules not understood?",
    "role_skew": "one role nearly always beats the others; compare play/return by role: does the game favour it, or "
    "has whoever plays the others stopped learning?",
    "reply_collapse": "replies are much shorter than in the first steps; read some in episodes/: has the policy "
    "stopped thinking, or does objective.aggregation favour short ones?",
    "reply_explosion": "replies are much longer than in the first steps; read some in episodes/: are they cut off at "
    "play.max_reply_tokens, or does objective.aggregation favour long ones?",
    "entropy_collapse": "the policy hardly varies its replies, so that nothing new is tried; look at "
    "objective.entropy, objective.kl and the learning rate, unless the game is solved",
    "identical_replies": "nearly every reply is the same text, whatever was seen; read some in episodes/: unless one "
    "action is best everywhere, the policy no longer looks at the game",
    "no_credit": "nearly every turn's advantage is 0, so that nothing is learned; see marl-llm credit RECIPE RUN: are "
    "all outcomes of a group alike (matchmaking.budget), or does the recipe look at what nobody measures or pays?",
    "score_drift": "judges score higher or lower than in the first steps; compare play/fact/score_mean with "
    "play/fact/correct: if solutions have not changed with it, judges have grown lenient or strict",
    "unanimity": "nearly all solutions get the same mark; compare play/fact/correct and play/fact/judge_precision: "
    "unless the tasks are solved, or all too hard, judges no longer look at what they judge",
    "precision_fall": "full marks go to wrong solutions more often than in the first steps; compare play/fact/correct "
    "and play/fact/judge_recall: solvers may have learned to please judges instead of being right",
}
"""Alarm to what it means and what to look at."""

BELOW = frozenset({"reply_collapse", "entropy_collapse"})
"""Alarms that are on when the value is below the threshold; the others are on above it."""
EITHER = frozenset({"score_drift"})
"""Of those, the ones that are on as well when it is as far below 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """A value that has passed its threshold."""

    name: str
    """A setting of `AlarmConfig`; `entropy_collapse` has the policy behind a slash, those about roles and scores the
    game where there are several."""
    value: float
    """What was measured, over the last steps."""
    threshold: float
    """What was allowed."""
    meaning: str
    """One sentence: what it means and what to look at."""


class Watch:
    """The alarms of a run as it goes on; once it has seen the metrics.jsonl of a run, it is as it was there."""

    on: list[Alarm]
    """The alarms after the latest step."""

    def __init__(self, config: AlarmConfig) -> None:
        """Nothing has been seen."""
        self._config = config
        self._first: list[Row] = []
        self._last: deque[Row] = deque(maxlen=config.window)
        self.on = []

    def see(self, metrics: Row) -> list[Alarm]:
        """Take the metrics of the next step, and return the alarms that begin with it."""
        if len(self._first) < self._config.window:
            self._first.append(metrics)
        self._last.append(metrics)
        before = {alarm.name for alarm in self.on}
        self.on = find(self._config, self._first, self._last) if len(self._last) == self._config.window else []
        return [alarm for alarm in self.on if alarm.name not in before]

    def metrics(self) -> dict[str, float]:
        """`alarm/NAME: 1.0` for each alarm that is on."""
        return {f"alarm/{alarm.name}": 1.0 for alarm in self.on}


def find(config: AlarmConfig, first: Iterable[Row], last: Iterable[Row]) -> list[Alarm]:
    """The alarms of a run's last steps; its first steps are what lengths and scores are compared with."""
    found = []
    for name, value in _measures(_means(first), _means(last)).items():
        kind = name.partition("/")[0]
        threshold: float | None = getattr(config, kind)
        height = abs(value) if kind in EITHER else value
        if threshold is not None and (height < threshold if kind in BELOW else height > threshold):
            found.append(Alarm(name=name, value=value, threshold=threshold, meaning=MEANING[kind]))
    return found


def _measures(first: Mapping[str, float], last: Mapping[str, float]) -> dict[str, float]:
    """Alarm to the value that its threshold is about; what was not measured is left out."""
    found = {}
    if "play/illegal_fraction" in last:
        found["illegal_moves"] = last["play/illegal_fraction"]
    if "credit/zero" in last:
        found["no_credit"] = last["credit/zero"]
    rates: dict[str, list[float]] = defaultdict(list)
    for key, value in last.items():
        if key.startswith("play/win_rate/"):
            rates[key.rpartition("/")[0].removeprefix("play/win_rate")].append(value)
    found |= {f"role_skew{game}": max(values) - min(values) for game, values in rates.items()}
    length = first.get("play/reply_tokens")
    if length and "play/reply_tokens" in last:
        found["reply_collapse"] = found["reply_explosion"] = last["play/reply_tokens"] / length
    for key, value in last.items():
        if key.startswith("learn/") and key.endswith("/entropy"):
            policy = key.removeprefix("learn/").removesuffix("/entropy")
            found[f"entropy_collapse/{policy}"] = value
    if "play/identical_replies" in last:
        found["identical_replies"] = last["play/identical_replies"]
    return found | _of_judges(first, last)


def _of_judges(first: Mapping[str, float], last: Mapping[str, float]) -> dict[str, float]:
    """Alarms about the scores of the game `discussion`, and of any other that tells the same facts."""
    found: dict[str, float] = {}
    for key, value in last.items():
        if not key.startswith("play/fact/"):
            continue
        game, _, fact = key.removeprefix("play/fact").rpartition("/")
        if fact in ("score_full", "score_lowest"):
            found[f"unanimity{game}"] = max(value, found.get(f"unanimity{game}", 0.0))
        elif fact == "score_mean" and key in first:
            found[f"score_drift{game}"] = value - first[key]
        elif fact == "judge_precision" and key in first:
            found[f"precision_fall{game}"] = first[key] - value
    return found


def _means(rows: Iterable[Row]) -> dict[str, float]:
    """Mean of each metric over the steps that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for key, value in row.items():
            if value is not None and isfinite(value):
                values[key].append(value)
    return {key: fmean(found) for key, found in values.items()}
