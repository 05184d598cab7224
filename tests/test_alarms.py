"""Alarms: each goes off on metrics made for it, none on those of a healthy run."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace

import pytest

from marl_llm.alarms import MEANING, Row, Watch, find
from marl_llm.config import AlarmConfig

HEALTHY: Row = {
    "play/illegal_fraction": 0.02,
    "play/reply_tokens": 100.0,
    "play/win_rate/x": 0.7,
    "play/win_rate/o": 0.3,
    "play/identical_replies": 0.45,
    "learn/a/entropy": 0.05,
    "learn/a/entropy_loss": -1.0,
    "learn/b/entropy": 0.3,
    "play/fact/score_mean": 0.5,
    "play/fact/score_full": 0.4,
    "play/fact/score_lowest": 0.3,
    "play/fact/judge_precision": 0.75,
}
CONFIG = AlarmConfig(window=2)


@pytest.mark.parametrize(
    ("sick", "name", "value", "threshold"),
    [
        ({"play/illegal_fraction": 0.25}, "illegal_moves", 0.25, 0.1),
        ({"play/win_rate/x": 0.03125, "play/win_rate/o": 0.96875}, "role_skew", 0.9375, 0.9),
        ({"play/reply_tokens": 40.0}, "reply_collapse", 0.4, 0.5),
        ({"play/reply_tokens": 325.0}, "reply_explosion", 3.25, 3.0),
        ({"learn/b/entropy": 0.0005}, "entropy_collapse/b", 0.0005, 0.001),
        ({"play/identical_replies": 1.0}, "identical_replies", 1.0, 0.9),
        ({"play/fact/score_mean": 0.875}, "score_drift", 0.375, 0.3),
        ({"play/fact/score_full": 0.975}, "unanimity", 0.975, 0.95),
        ({"play/fact/score_lowest": 1.0}, "unanimity", 1.0, 0.95),
        ({"play/fact/judge_precision": 0.25}, "precision_fall", 0.5, 0.2),
    ],
)
def test_an_alarm_goes_off_past_its_threshold_and_can_be_turned_off(
    sick: Mapping[str, float], name: str, value: float, threshold: float
) -> None:
    rows = [{**HEALTHY, **sick}] * 2
    (alarm,) = find(CONFIG, [HEALTHY], rows)
    assert (alarm.name, alarm.value, alarm.threshold) == (name, value, threshold)
    kind = name.partition("/")[0]
    assert alarm.meaning == MEANING[kind]
    assert find(replace(CONFIG, **{kind: value}), [HEALTHY], rows) == [], "what is allowed is allowed"
    assert find(replace(CONFIG, **{kind: None}), [HEALTHY], rows) == []


def test_scores_may_drift_either_way_and_precision_may_rise() -> None:
    strict: Row = {**HEALTHY, "play/fact/score_mean": 0.125, "play/fact/judge_precision": 1.0}
    (alarm,) = find(CONFIG, [HEALTHY], [strict] * 2)
    assert (alarm.name, alarm.value) == ("score_drift", -0.375)
    assert find(replace(CONFIG, score_drift=0.375), [HEALTHY], [strict] * 2) == []
    assert find(CONFIG, [{}], [strict] * 2) == [], "there is nothing to compare them with"


def test_the_judges_of_several_games_are_watched_one_by_one() -> None:
    first: Row = {"play/fact/x/score_mean": 0.5, "play/fact/y/score_mean": 0.5}
    last: Row = {"play/fact/x/score_mean": 0.6, "play/fact/y/score_mean": 1.0, "play/fact/y/score_full": 1.0}
    found = {alarm.name: alarm.value for alarm in find(CONFIG, [first], [last] * 2)}
    assert found == {"score_drift/y": 0.5, "unanimity/y": 1.0}


def test_the_roles_of_one_game_are_compared_and_not_those_of_two() -> None:
    bare = {key: value for key, value in HEALTHY.items() if not key.startswith("play/win_rate/")}
    quiet: Row = bare | {"play/win_rate/kuhn/x": 0.02, "play/win_rate/kuhn/o": 0.1, "play/win_rate/board/x": 0.99}
    assert find(CONFIG, [quiet], [quiet] * 2) == []
    (alarm,) = find(CONFIG, [quiet], [{**quiet, "play/win_rate/board/o": 0.01}] * 2)
    assert (alarm.name, alarm.value) == ("role_skew/board", pytest.approx(0.98))


def test_a_healthy_run_is_quiet() -> None:
    assert find(AlarmConfig(), [HEALTHY] * 10, [HEALTHY] * 10) == []


def test_every_threshold_has_a_meaning() -> None:
    assert {field.name for field in fields(AlarmConfig)} == {"window", *MEANING}


def test_what_was_not_measured_raises_no_alarm() -> None:
    bare: Row = {"play/reply_tokens": 0.0, "play/illegal_fraction": None, "learn/a/entropy": float("nan")}
    assert find(CONFIG, [bare], [bare]) == []
    # The mean is over the steps that have the number.
    (alarm,) = find(CONFIG, [bare], [bare, {"play/illegal_fraction": 0.5}])
    assert (alarm.name, alarm.value) == ("illegal_moves", 0.5)


def test_a_watch_waits_for_a_full_window_and_tells_when_an_alarm_begins() -> None:
    watch = Watch(CONFIG)
    begun, on = [], []
    # Means of two steps: (0.5), 0.5, 0.25, 0.025, 0.15.
    for share in (0.5, 0.5, 0.0, 0.05, 0.25):
        begun.append([alarm.name for alarm in watch.see({**HEALTHY, "play/illegal_fraction": share})])
        on.append(watch.metrics())
    alarm = {"alarm/illegal_moves": 1.0}
    assert begun == [[], ["illegal_moves"], [], [], ["illegal_moves"]]
    assert on == [{}, alarm, alarm, {}, alarm]


def test_replies_are_compared_with_those_of_the_first_steps_however_slowly_they_shrink() -> None:
    watch = Watch(CONFIG)
    names = {step: [a.name for a in watch.see({"play/reply_tokens": 100.0 * 0.9**step})] for step in range(20)}
    # First window: mean 95. Window that ends at step s: 0.9 ** (s - 1) of it, below 1/2 from s - 1 = 7 on.
    assert {step: begun for step, begun in names.items() if begun} == {8: ["reply_collapse"]}


def test_a_watch_that_has_read_the_log_is_as_it_was() -> None:
    rows = [
        {**HEALTHY, "play/reply_tokens": 100.0 / step, "play/illegal_fraction": 0.03 * step} for step in range(1, 9)
    ]
    before = Watch(CONFIG)
    for row in rows[:5]:
        before.see(row)
    logged = json.loads(json.dumps(rows[:5]))
    after = Watch(CONFIG)
    for row in logged:
        after.see({**row, **after.metrics(), "step": 1, "time_s": 2.0})
    assert before.on == after.on != []
    assert [before.see(row) for row in rows[5:]] == [after.see(row) for row in rows[5:]]
