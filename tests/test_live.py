"""What a person sees of a run, in a terminal and in a file."""

from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from marl_llm.alarms import Alarm
from marl_llm.config import Config, PlayedGame, RunConfig
from marl_llm.evaluation.best_response import BestResponse
from marl_llm.evaluation.exploitability import Exploitability
from marl_llm.evaluation.measure import Evaluation, GameEvaluation
from marl_llm.evaluation.positions import Outcome
from marl_llm.evaluation.tournament import Score
from marl_llm.live import LiveView, comparison, rows

CONFIG = Config(run=RunConfig(steps=20), games={"game": PlayedGame(name="kuhn_poker")})
RUN = Path("/tmp/runs [old]/[/]kuhn-seed0-1")
METRICS: Mapping[str, float] = {
    "play/games": 256,
    "play/return/player_0": -0.054,
    "play/return/player_1": 0.054,
    "play/illegal_fraction": 0.0125,
    "play/tokens_per_s": 12345.6,
}
SUMMARY = "256 games, return player_0 -0.05, return player_1 +0.05, illegal 1.2%, 12346 tokens/s"


def plain() -> Console:
    """As `marl-llm` writes into a file or a pipe."""
    return Console(file=StringIO(), record=True, width=80, highlight=False, soft_wrap=True)


def terminal() -> Console:
    return Console(file=StringIO(), record=True, width=100, force_terminal=True, highlight=False)


def score(mean: float) -> Score:
    return Score(
        games=100,
        mean=mean,
        low=mean - 0.1,
        high=mean + 0.1,
        win_rate=0.5,
        win_low=0.404,
        win_high=0.596,
        not_lost=0.75,
        turns=150,
        illegal_fraction=0.02,
    )


def evaluation(exploitability: Exploitability | None, mean: float = 0.25, *opponents: str) -> Evaluation:
    measured = GameEvaluation(
        exploitability=exploitability,
        illegal_fraction=0.02 if opponents else None,
        opponents={name: {"player_0": score(mean), "player_1": score(-mean)} for name in opponents},
    )
    return Evaluation(policy="agent", games={"game": measured})


BEFORE = evaluation(Exploitability(value=0.45678, illegal_mass=0.01, states=12), 0.5, "random")
AFTER = evaluation(Exploitability(value=0.012345, illegal_mass=0.0, states=12), 0.25, "random", "start")


def text_of(console: Console) -> str:
    return console.export_text()


def test_a_file_gets_one_whole_line_per_event() -> None:
    console = plain()
    with LiveView(console) as view:
        view.started(RUN, CONFIG, 0)
        view.warming_up("agent", 8, 8, 0.1234)
        view.evaluated(0, BEFORE)
        view.stepped(20, METRICS)
    assert text_of(console).splitlines() == [
        f"kuhn_poker: run starts at step 0 of 20, in {RUN}",
        "warm-up of agent: step 8/8, loss 0.123",
        "before training: exploitability 0.457 (agent)",
        f"step 20/20: {SUMMARY}",
    ]


def test_a_file_gets_a_line_every_ten_seconds_and_the_last_step() -> None:
    console = plain()
    with LiveView(console) as view:
        view.started(RUN, CONFIG, 4)
        for step in range(5, 21):
            view.stepped(step, METRICS)
    first, *lines = text_of(console).splitlines()
    assert "run continues at step 4 of 20" in first
    # The first step is due at once, the others follow within ten seconds of it.
    assert [line.split(":")[0] for line in lines] == ["step 5/20", "step 20/20"]


def test_exploitability_stays_in_sight_between_the_steps_that_measure_it() -> None:
    console = plain()
    view = LiveView(console)
    view.started(RUN, CONFIG, 0)
    view.stepped(1, {**METRICS, "eval/exploitability": 0.1234})
    view.stepped(20, {**METRICS, "play/games": 7})
    last = text_of(console).splitlines()[-1]
    assert last.startswith("step 20/20: 7 games, ")
    assert "exploitability 0.123" in last


def test_shares_of_actions_and_what_games_tell_stand_in_the_progress_line() -> None:
    console = plain()
    view = LiveView(console)
    view.started(RUN, CONFIG, 0)
    told = {
        "play/action/agent/cooperate": 0.517,
        "play/action/agent/defect": 0.457,
        "play/action/rival/hare": 1.0,
        "play/fact/joint_share": 0.87654,
    }
    view.stepped(20, {**METRICS, **told})
    shown = "agent cooperate/defect 52/46 %, rival hare 100 %, joint_share 0.877, illegal 1.2%"
    assert shown in text_of(console)


ALARM = Alarm(name="illegal_moves", value=0.12345, threshold=0.1, meaning="many moves are [illegal]")


def test_an_alarm_is_a_line_when_it_begins_and_stands_in_the_progress_line_while_it_is_on() -> None:
    console = plain()
    view = LiveView(console)
    view.started(RUN, CONFIG, 0)
    view.alarmed(1, ALARM)
    view.stepped(1, {**METRICS, "alarm/illegal_moves": 1.0, "alarm/entropy_collapse/agent": 1.0})
    view.stepped(20, METRICS)
    assert text_of(console).splitlines()[1:] == [
        "ALARM at step 1: illegal_moves 0.123 (threshold 0.1): many moves are [illegal]",
        f"step 1/20: {SUMMARY}, ALARM illegal_moves, ALARM entropy_collapse/agent",
        f"step 20/20: {SUMMARY}",
    ]


def test_a_terminal_shows_alarms_above_and_below_the_bar() -> None:
    console = Console(file=StringIO(), record=True, width=200, force_terminal=True)
    with LiveView(console) as view:
        view.started(RUN, CONFIG, 0)
        view.alarmed(7, ALARM)
        view.stepped(7, {**METRICS, "alarm/illegal_moves": 1.0})
        console.print(view._render())
    shown = text_of(console)
    assert "ALARM at step 7: illegal_moves 0.123" in shown
    assert f"{SUMMARY}, ALARM illegal_moves" in shown


def test_a_terminal_shows_a_bar_and_the_latest_numbers_and_is_left_as_it_was() -> None:
    console = terminal()
    with LiveView(console) as view:
        view.started(RUN, CONFIG, 0)
        view.warming_up("agent", 3, 8, 0.1234)
        console.print(view._render())
        view.stepped(7, METRICS)
        console.print(view._render())
    shown = text_of(console)
    assert "warm-up" in shown
    assert "3/8" in shown
    assert "warm-up loss 0.123" in shown
    assert "training" in shown
    assert "7/20" in shown
    assert SUMMARY in shown
    assert "step 7/20:" not in shown, "lines are for files"
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") > 0, "the cursor is hidden and shown again"


def test_each_warm_up_has_its_own_length() -> None:
    console = terminal()
    view = LiveView(console)
    view.started(RUN, CONFIG, 0)
    view.warming_up("black", 8, 8, 0.1)
    view.warming_up("white", 3, 5, 0.2)
    console.print(view._render())
    shown = text_of(console)
    assert "3/5" in shown
    assert "white" in shown


def test_the_end_is_a_table_of_before_and_after() -> None:
    console = plain()
    with LiveView(console) as view:
        view.started(RUN, CONFIG, 0)
        view.evaluated(0, BEFORE)
        view.evaluated(20, AFTER)
    shown = text_of(console)
    assert "agent: before and after 20 steps" in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "exploitability, exact 0.4568 0.0123" in lines
    assert "illegal probability mass 0.0100 0.0000" in lines
    assert "player_0: return +0.500 [+0.400, +0.600] +0.250 [+0.150, +0.350]" in lines
    assert "player_1: return -0.500 [-0.600, -0.400] -0.250 [-0.350, -0.150]" in lines
    # Whom it did not meet before has no number there.
    assert lines[lines.index("against start") + 1] == "player_0: return +0.250 [+0.150, +0.350]"


def test_a_comparison_fits_80_columns() -> None:
    console = Console(file=StringIO(), record=True, width=80)
    console.print(comparison(BEFORE, AFTER, 500))
    lines = text_of(console).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert sum("not lost" in line and "75.0%" in line for line in lines) == 4


def test_without_a_before_there_is_one_column() -> None:
    console = plain()
    console.print(comparison(None, AFTER, 20))
    shown = text_of(console)
    assert "agent at step 20" in shown
    assert "before" not in shown
    assert "0.0123" in shown


def test_a_score_has_its_actions_in_one_row_and_each_fact_in_another() -> None:
    details = {"action/cooperate": 0.99, "action/defect": 0.01, "fact/joint_share": 0.5}
    seats = {"player_0": replace(score(0.5), details=details)}
    measured = GameEvaluation(exploitability=None, illegal_fraction=None, opponents={"random": seats})
    assert rows(Evaluation(policy="agent", games={"game": measured}))[-2:] == [
        ("against random", "player_0: cooperate/defect", "99/1 %"),
        ("against random", "player_0: joint_share", "0.500"),
    ]


def test_an_estimate_says_so_and_has_an_interval() -> None:
    estimate = Exploitability(value=0.5, illegal_mass=0.1, states=12, samples=64, low=0.4, high=0.6)
    assert rows(evaluation(estimate)) == [
        ("", "exploitability, estimate (n=64)", "0.5000 [0.400, 0.600]"),
        ("", "illegal probability mass", "0.1000"),
    ]


def test_a_lower_bound_says_so_and_an_exact_best_response_brings_exact_losses() -> None:
    found = BestResponse(value=0.5, low=0.4, high=0.6, exact=False, simulations=100, seats={})
    bounded = replace(evaluation(None).first, best_response=found)
    assert rows(Evaluation(policy="agent", games={"game": bounded})) == [
        ("", "exploitability, lower bound", "0.5000 [0.400, 0.600]")
    ]
    outcomes = {"perfect": {"player_0": Outcome(win=0.0, draw=0.75, loss=0.25)}}
    computed = replace(bounded, best_response=replace(found, exact=True), outcomes=outcomes)
    assert rows(Evaluation(policy="agent", games={"game": computed})) == [
        ("", "exploitability, exact by position", "0.5000"),
        ("against perfect", "player_0: lost, exact", "25.0%"),
    ]


def test_what_was_not_measured_has_no_row() -> None:
    assert rows(evaluation(None)) == []
    console = plain()
    view = LiveView(console)
    view.evaluated(0, evaluation(None))
    assert text_of(console) == ""
    headings = {heading for heading, _, _ in rows(evaluation(None, 0.0, "random"))}
    assert headings == {"", "against random"}
