"""`marl-llm report`: what a report says of runs written by hand, and of real ones."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marl_llm import cli
from marl_llm.episodes import episode_to_json
from marl_llm.errors import MarlError
from marl_llm.report.decisions import deciders
from marl_llm.report.groups import differences, variants
from marl_llm.report.logs import MOST_FILES, even, read_run
from marl_llm.report.make import MARK, Made, make_report
from marl_llm.report.page import script
from marl_llm.report.sample import read_sample
from tests.report.runs import SMALL, bluff, bluffs, evaluation, run


def made(into: Path, *runs: Path) -> Made:
    return make_report(list(runs), into, lambda text: None)


def page(report: Made) -> str:
    return report.index.read_text()


def specs(report: Made) -> dict[str, dict[str, object]]:
    found = re.search(r'id="specs">(.*?)</script>', page(report), re.DOTALL)
    assert found
    return json.loads(found[1])


def rows(spec: object) -> list[dict[str, object]]:
    """The data of a chart, of all its layers."""
    assert isinstance(spec, dict)
    return [row for values in spec.get("datasets", {}).values() for row in values]


def kuhn(folder: Path, *, credit: str = "mars", **more: object) -> Path:
    """A policy that bluffs with a jack ever more often."""
    shares = {1: 4, 2: 8, 3: 12, 4: 16, 5: 20, 6: 24}
    return run(
        folder,
        rows=[{"step": step, "play/return/player_0": step / 10, "eval/exploitability": 1 / step} for step in shares],
        episodes={step: bluffs(step, bets=bets, folds=bets // 2) for step, bets in shares.items()},
        overrides=[f"credit={credit}"],
        **more,  # type: ignore[arg-type]
    )


def test_a_recurring_decision_is_counted_and_explained(tmp_path: Path) -> None:
    sample = read_sample(read_run(kuhn(tmp_path / "run")))
    first, second = deciders(sample)
    assert (first.role, first.policy, first.count, first.covered) == ("player_0", "agent", 240, 1.0)
    (jack,) = first.states
    assert jack.observation.startswith("You are player_0. Your card: J.")
    actions = {action.name: action for action in jack.actions}
    bet, check = actions["bet"], actions["check"]
    # The first and the last two of six steps: 12 and 44 bets of 80.
    assert (bet.early, bet.late, bet.late_count) == (12 / 80, 44 / 80, 44)
    assert check.value is not None
    assert check.value.mean == check.value.low == -1.0
    assert bet.value is not None
    assert bet.value.mean == pytest.approx((22 - 2 * 22) / 44)
    assert [(f.name, f.share, f.value.mean if f.value else 0) for f in bet.follows] == [
        ("fold", 0.5, 1.0),
        ("call", 0.5, -2.0),
    ]
    assert bet.advantage is not None
    assert check.advantage is not None
    assert bet.advantage.mean > 0 > check.advantage.mean  # a bet returned -0.5, a check -1
    assert "At the end it chose “bet” 55\u00a0%, “check” 45\u00a0% of the time" in jack.sentence
    assert "“bet” brings 0.50 ±" in jack.sentence
    # 1 * p - 2 * (1 - p) = -1
    assert (
        "“bet” is worth as much as “check” when “fold” is the answer 33\u00a0% of the time; it was 50" in jack.sentence
    )
    assert {point.step for point in jack.shares} == {1, 2, 3, 4, 5, 6}
    assert [p.value for p in jack.shares if p.name == "bet"] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert len(second.states) == 2


def test_the_page_shows_decision_followers_and_transcripts(tmp_path: Path) -> None:
    report = made(tmp_path / "report", kuhn(tmp_path / "run"))
    html = page(report)
    decision = html[html.index('class="decision"') :]
    decision = decision[: decision.index("</article>\n</section>")]
    assert "Your card: J." in decision
    assert "<b>fold</b> 50\u00a0%" in decision
    assert decision.count('class="here"') == 3
    assert "advantage +" in decision
    assert {"share-you-are-player-0-your-card-j-moves-so-far-none", "curve-exploitability"} <= specs(report).keys()
    for name in specs(report):
        assert (report.folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (report.folder / "figures" / f"{name}.svg").read_text()[:500]


def test_runs_that_differ_in_the_seed_alone_are_one_line_with_a_band(tmp_path: Path) -> None:
    for seed, value in ((0, 1.0), (1, 3.0)):
        lines = [{"step": step, "play/return/player_0": value * step} for step in (1, 2, 3)]
        run(tmp_path / f"mars-{seed}", rows=lines, overrides=["credit=mars", f"run.seed={seed}"])
    run(tmp_path / "rae", rows=[{"step": 1, "play/return/player_0": 9.0}], overrides=["run.name=other"])
    logs = [read_run(tmp_path / name) for name in ("mars-0", "mars-1", "rae")]
    assert [(v.name, len(v.runs)) for v in variants(logs)] == [("credit=mars", 2), ("credit=rae", 1)]
    assert [d.key for d in differences(logs)] == ["run.name", "run.seed", "credit"]
    report = made(tmp_path / "report", *(log.path for log in logs))
    (name,) = [name for name in specs(report) if name.startswith("curve-return-by-role")]
    band = [
        (row["x"], row["y"], row["lo"], row["hi"]) for row in rows(specs(report)[name]) if row["c"] == "credit=mars"
    ]
    assert band == [(1, 2, 1, 3), (2, 4, 2, 6), (3, 6, 3, 9)]
    assert [row["y"] for row in rows(specs(report)[name]) if row["c"] == "credit=rae"] == [9]
    assert "<code>credit</code>" in page(report)
    assert "Where the runs differ" in page(report)
    assert "of 2 seeds" in page(report)


def test_one_run_alone_has_no_band_and_no_differences(tmp_path: Path) -> None:
    report = made(tmp_path / "report", run(tmp_path / "run", rows=[{"step": 1, "play/return/player_0": 1.0}]))
    assert "Where the runs differ" not in page(report)
    assert all("lo" not in row for row in rows(specs(report)["curve-return-by-role"]))
    assert "No episodes are logged" in page(report)


def test_damage_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = kuhn(tmp_path / "run", evaluations={0: evaluation(0.4, {"random": {"player_0": 0.5}})})
    with (path / "metrics.jsonl").open("a") as file:
        file.write(
            'not json\n[]\n{"step": "x"}\n{"step": 7, "time_s": 7.0, "play/return/player_0": 2.5}\n{"step": 8, "ti'
        )
    episodes = path / "episodes" / "step_000002.jsonl"
    lines = episodes.read_text().splitlines(keepends=True)
    wrong = lines[1].replace('"reply":"<answer>bet</answer>"', '"reply":5')
    episodes.write_text("".join([lines[0], "{}\n", wrong, *lines[2:], lines[0][:50]]))
    (path / "episodes" / "step_000003.jsonl").write_bytes(b"\xff\xfe\n")
    (path / "evaluations" / "step_3.json").write_text("{")
    (path / "evaluations" / "step_6.json").write_text(
        '{"games": {"game": {"opponents": {"random": {"player_0": {}}}}}}'
    )
    report = made(tmp_path / "report", path)
    assert [line.split(":")[0] for line in report.report.damage] == [
        *["run/metrics.jsonl"] * 3,
        *["run/evaluations/step_3.json", "run/evaluations/step_6.json"],
        *["run/episodes/step_000002.jsonl"] * 2,
        "run/episodes/step_000003.jsonl",
    ]
    assert "line 7 is not the metrics" in report.report.damage[0]
    assert "line 2 is not an episode: 'match' is missing" in report.report.damage[5]
    html = page(report)
    assert all(line.split(":")[0] in html for line in report.report.damage)
    assert [row["y"] for row in rows(specs(report)["curve-return-by-role"])][-1] == 2.5
    ((_, sample),) = report.report.samples
    assert sample.steps == (1, 2, 4, 5, 6)
    assert sample.episodes == 4 * 40 + 39
    assert {"payoffs-game-0", "curve-exploitability"} <= specs(report).keys()


def _changed(value: object) -> Iterator[object]:
    """The same JSON value with one thing in it replaced by something else, in every place and by everything."""
    yield from (None, "x", -1, 1e308, True, [], {}, [None], {"x": None})
    if isinstance(value, dict):
        for key in value:
            yield from ({**value, key: other} for other in _changed(value[key]))
    if isinstance(value, list):
        for place in range(len(value)):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in _changed(value[place]))


def test_whatever_an_episode_holds_it_is_read_or_named(tmp_path: Path) -> None:
    told = json.loads(episode_to_json(bluff(1, 0, bets=True, folds=False, probes={"p": 1.0}, weight=0.5, begun=1)))
    lines = []
    for number, changed in enumerate(_changed(told)):
        if (
            isinstance(changed, dict)
            and isinstance(changed.get("match"), dict)
            and changed["match"].get("id") == told["match"]["id"]
        ):
            changed = {**changed, "match": {**changed["match"], "id": str(number)}}
        lines.append(json.dumps(changed) + "\n")
    assert len(lines) > 500
    path = run(tmp_path / "run", episodes={1: bluffs(1, bets=3, folds=1)}, overrides=["credit=mars"])
    (path / "episodes" / "step_000002.jsonl").write_text("".join(lines))
    report = made(tmp_path / "report", path)
    ((_, sample),) = report.report.samples
    assert sample.episodes > 120
    assert "more lines are not episodes" in report.report.damage[-1]


def test_a_last_line_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    path = kuhn(tmp_path / "run")
    for file in (path / "metrics.jsonl", path / "episodes" / "step_000006.jsonl"):
        file.write_bytes(file.read_bytes()[:-40])
    report = made(tmp_path / "report", path)
    assert report.report.damage == ()
    assert "Damaged files" not in page(report)
    ((_, sample),) = report.report.samples
    assert sample.episodes == 6 * 40 - 1


def test_a_damaged_run_among_others_is_named(tmp_path: Path) -> None:
    good, bad = kuhn(tmp_path / "good"), kuhn(tmp_path / "bad")
    (bad / "config.yaml").write_text("run: [")
    report = made(tmp_path / "report", good, bad)
    assert len(report.report.logs) == 1
    assert "bad/config.yaml" in report.report.damage[0]
    with pytest.raises(MarlError, match=r"bad/config\.yaml"):
        made(tmp_path / "other", bad)


HOSTILE = "</script><!--<img src=x onerror=alert(1)>\x00\x1b[31m\u202e\u2066&amp;{{7*7}}"


def test_hostile_text_stays_text_wherever_it_comes_from(tmp_path: Path) -> None:
    played = [
        bluff(step, number, bets=True, folds=False, reply=f"<think>{HOSTILE}</think>{HOSTILE}", action=HOSTILE,
              role=HOSTILE, legal=False, observation=f"{HOSTILE} J", rewards={HOSTILE: 1.0})
        for step in (1, 2)
        for number in range(10)
    ]  # fmt: skip
    path = run(
        tmp_path / "run",
        rows=[{"step": 1, f"play/return/{HOSTILE}": 1.0, f"play/fact/{HOSTILE}": 1.0, f"alarm/{HOSTILE}": 1.0}],
        episodes={step: played[10 * (step - 1) :][:10] for step in (1, 2)},
        evaluations={0: evaluation(None, {HOSTILE: {HOSTILE: 1.0}})},
    )
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("name: small", f"name: {json.dumps(HOSTILE.replace('/', ''))}"))
    with (path / "metrics.jsonl").open("a") as file:
        file.write(f"{HOSTILE}\n")
    html = page(made(tmp_path / "report", path))
    assert "<img src=x" not in html
    assert html.count("</script>") == 4
    assert "<!--" not in html
    assert not set(html) & {"\x00", "\x1b", "\u202e", "\u2066"}
    assert "⟨U+0000⟩⟨U+001B⟩[31m⟨U+202E⟩⟨U+2066⟩&amp;amp;{{7*7}}" in html


def test_json_in_a_page_cannot_end_its_script() -> None:
    text = script({"a": "</script><!-- \u2028 &"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!-- \u2028 &"}


def test_a_reply_of_a_megabyte_is_cut_with_its_length(tmp_path: Path) -> None:
    episodes = bluffs(1, bets=2, folds=0, of=9)
    episodes.append(bluff(1, 9, bets=True, folds=False, reply="x" * 1_048_576, observation="y" * 1_048_576))
    report = made(tmp_path / "report", run(tmp_path / "run", episodes={1: episodes, 2: bluffs(2, bets=3, folds=1)}))
    last = made(tmp_path / "last", run(tmp_path / "long", episodes={1: episodes}))
    assert "1,044,576 more characters, 1,048,576 in all" in page(last)
    assert max(len(page(report)), len(page(last))) < 400_000


def test_states_that_do_not_come_back_are_summed_up_by_role(tmp_path: Path) -> None:
    episodes = {
        step: [
            bluff(step, n, bets=n % 4 == 0, folds=True, state_key=None, observation=f"{step} {n}") for n in range(40)
        ]
        for step in (1, 2, 3)
    }
    report = made(tmp_path / "report", run(tmp_path / "run", episodes=episodes))
    first = deciders(read_sample(read_run(tmp_path / "run")))[0]
    assert (first.recurring, first.covered, first.states) == (0, 0.0, ())
    assert first.summary is not None
    assert [(a.name, a.late) for a in first.summary.actions] == [("check", 0.75), ("bet", 0.25)]
    assert "All decisions of player_0" in page(report)
    assert "most states do not come back" in page(report)


def test_actions_that_are_free_texts_are_told_apart_by_whether_they_were_legal(tmp_path: Path) -> None:
    free = {"legal_actions": None, "state_key": None}
    episodes = {
        step: [
            bluff(step, n, bets=True, folds=True, observation=f"{step} {n}",
                  action=None if n < 10 else f"{step} says {n}", legal=n >= 10, **free)
            for n in range(40)
        ]
        for step in (1, 2, 3)
    }  # fmt: skip
    sample = read_sample(read_run(run(tmp_path / "run", episodes=episodes)))
    assert [(a.name, a.late) for a in deciders(sample)[0].summary.actions] == [  # type: ignore[union-attr]
        ("(unreadable)", 0.25),
        *[(f"3 says {n}", 1 / 40) for n in range(10, 14)],
        ("other actions", 26 / 40),
    ]
    for step, found in episodes.items():
        episodes[step] = found[9:]
    path = run(tmp_path / "free", episodes=episodes)
    told = deciders(read_sample(read_run(path)))[0].summary
    assert told is not None
    assert [(a.name, a.late_count) for a in told.actions] == [("a text of its own", 30), ("(unreadable)", 1)]
    assert told.sentence.startswith("At the end it chose “a text of its own” 97")


def test_several_games_are_kept_apart(tmp_path: Path) -> None:
    episodes = {
        step: bluffs(step, bets=10, folds=5, of=20, label="one")
        + [bluff(step, n, bets=False, folds=False, label="two") for n in range(100, 120)]
        for step in (1, 2)
    }
    lines = [{"step": 1, "play/return/one/player_0": 1.0, "play/return/two/player_0": 2.0}]
    report = made(tmp_path / "report", run(tmp_path / "run", rows=lines, episodes=episodes))
    assert {(who.game, who.role) for who in report.report.who} == {
        (game, role) for game in ("one", "two") for role in ("player_0", "player_1")
    }
    shares = {w.game: w.decisions[0].shown[0].state.actions[0].late for w in report.report.who if w.role == "player_0"}
    assert shares == {"one": 0.5, "two": 1.0}
    assert {"payoffs-trained-one", "payoffs-trained-two"} <= specs(report).keys()


def test_a_run_without_exploitability_or_opponents_says_so(tmp_path: Path) -> None:
    report = made(tmp_path / "report", run(tmp_path / "run", rows=[{"step": 1, "play/reply_tokens": 3.0}]))
    assert "Nobody met anybody" in page(report)
    assert "curve-exploitability" not in specs(report)


def test_alarms_are_told_with_their_steps_and_meaning(tmp_path: Path) -> None:
    on = {"alarm/entropy_collapse/agent": 1.0}
    lines = [{"step": step, **(on if step in (3, 4, 6) else {})} for step in range(1, 8)]
    report = made(tmp_path / "report", run(tmp_path / "run", rows=lines))
    (alarm,) = report.report.alarms
    assert (alarm.name, alarm.first, alarm.last, alarm.steps, alarm.on) == ("entropy_collapse/agent", 3, 6, 3, False)
    assert alarm.meaning.startswith("the policy hardly varies")
    assert [(row["from"], row["to"]) for row in rows(specs(report)["alarms"])] == [(2.5, 4.5), (5.5, 6.5)]


def test_a_league_has_ratings_and_win_rates(tmp_path: Path) -> None:
    lines = [
        {
            "step": step,
            "league/rating/agent": 25.0 + step,
            "league/rating/agent@0": 20.0,
            "league/win_rate/agent@0": 0.7,
        }
        for step in (1, 2)
    ]
    found = specs(made(tmp_path / "report", run(tmp_path / "run", rows=lines)))
    assert {(row["c"], row["y"]) for row in rows(found["ratings"])} == {("agent", 26), ("agent", 27), ("agent@0", 20)}
    assert [row["y"] for row in rows(found["curve-win-rate-against-the-pool"])] == [0.7, 0.7]


def test_policies_that_met_are_rated_and_set_against_each_other(tmp_path: Path) -> None:
    def played(step: int) -> list[object]:
        episodes = bluffs(step, bets=0, folds=0, of=8)
        return [
            type(e)(match=e.match, turns=(e.turns[0], type(e.turns[1])(**{**_fields(e.turns[1]), "policy": "random"})),
                    returns=e.returns)
            for e in episodes
        ]  # fmt: skip

    path = run(tmp_path / "run", episodes={step: played(step) for step in (1, 2, 3)})  # type: ignore[misc]
    found = specs(made(tmp_path / "report", path))
    cells = {(row["row"], row["col"]): row["v"] for row in rows(found["payoffs-trained-kuhn-poker"])}
    assert cells == {("agent as player_0", "random"): -1, ("random as player_1", "agent"): 1}
    last = {row["c"]: row["y"] for row in rows(found["ratings"]) if row["x"] == 3}
    assert last["random"] > last["agent"]


def _fields(turn: object) -> dict[str, object]:
    return {name: getattr(turn, name) for name in type(turn).__dataclass_fields__}  # type: ignore[attr-defined]


def test_a_report_is_replaced_whole_and_nothing_else_is(tmp_path: Path) -> None:
    path = run(tmp_path / "run", rows=[{"step": 1}])
    report = made(path / "report", path)
    (report.folder / "figures" / "old.png").touch()
    assert made(path / "report", path).folder == report.folder
    assert not (report.folder / "figures" / "old.png").exists()
    assert sorted(p.name for p in path.iterdir() if "report" in p.name) == ["report"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(MarlError, match="holds something else than a report"):
        made(mine, path)
    assert (mine / "thesis.txt").read_text() == "years of work"
    (tmp_path / "link").symlink_to(report.folder)
    with pytest.raises(MarlError, match="no folder of a report"):
        made(tmp_path / "link", path)
    (tmp_path / "file").touch()
    with pytest.raises(MarlError, match="no folder of a report"):
        made(tmp_path / "file", path)
    assert (report.folder / MARK).is_file()


def test_the_sample_is_even_and_small(tmp_path: Path) -> None:
    files = [(step, tmp_path) for step in range(1, 1001)]
    steps = [step for step, _ in even(files, MOST_FILES)]
    assert (len(steps), steps[0], steps[-1]) == (24, 1, 1000)
    assert {b - a for a, b in pairwise(steps)} <= {43, 44}
    assert even(files[:3], MOST_FILES) == files[:3]


def test_the_command_prints_where_the_report_is(tmp_path: Path) -> None:
    path = kuhn(tmp_path / "run")
    said = CliRunner().invoke(cli.whole(), ["report", str(path)])
    assert said.exit_code == 0, said.output
    assert f"report: {path}/report/index.html" in said.output
    told = json.loads(CliRunner().invoke(cli.whole(), ["report", str(path), "--json"]).stdout)
    assert told["index"] == f"{path}/report/index.html"
    (variant,) = told["variants"]
    assert (variant["runs"], variant["steps"]) == ([str(path)], [6])
    assert variant["numbers"]["exploitability"] == {"first": 1.0, "last": pytest.approx(1 / 6)}


def test_a_folder_of_a_sweep_means_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        run(tmp_path / "sweep" / f"base-seed{seed}", rows=[{"step": 1}], overrides=[f"run.seed={seed}"])
    monkeypatch.chdir(tmp_path)
    report = make_report([Path("sweep")], None, lambda text: None)
    assert report.folder == Path("report-small")
    assert len(report.report.logs) == 2
    with pytest.raises(MarlError, match="no such run directory"):
        made(tmp_path / "x", tmp_path / "nowhere")
    with pytest.raises(MarlError, match=r"no config\.yaml"):
        made(tmp_path / "x", tmp_path / "sweep" / "base-seed0" / "episodes")


def test_a_recipe_that_remembers_says_where_its_memory_is_from(tmp_path: Path) -> None:
    path = kuhn(tmp_path / "run", credit="rae")
    report = made(tmp_path / "fresh", path)
    fresh = report.report.samples[0][1].decisions.advantage
    assert "The recipe remembers earlier steps" in page(report)
    checkpoint = path / "checkpoints" / "step_3"
    checkpoint.mkdir(parents=True)
    state = {"history": {'["kuhn_poker", "player_0", "agent"]': 50.0}}
    (checkpoint / "values.json").write_text(json.dumps({"credit": state}))
    again = made(tmp_path / "again", path).report.samples[0][1].decisions
    steps = again.step
    assert (again.advantage[steps <= 3] == fresh[steps <= 3]).all()
    mine = again.who == 0
    assert (again.advantage[mine & (steps == 4)] < fresh[mine & (steps == 4)] - 1).all()


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, marl_llm.cli, marl_llm.report.make; marl_llm.cli.register(['report']);"
        "print([m for m in ('torch', 'transformers', 'pandas', 'ray', 'vllm') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_real_run_of_two_games_has_everything(tmp_path: Path) -> None:
    games = "games={one: {name: kuhn_poker}, two: {name: tic_tac_toe}}"
    settings = ["run.steps=3", "evaluation.every=1", "evaluation.games=2", "play.context_tokens=640", games]
    settings += ["policies.agent.warmup.teachers={two: random}"]
    trained = CliRunner().invoke(cli.whole(), ["train", str(SMALL), *settings, "--into", str(tmp_path / "run")])
    assert trained.exit_code == 0, trained.output
    report = made(tmp_path / "report", tmp_path / "run")
    assert report.report.damage == ()
    ((_, sample),) = report.report.samples
    assert (sample.steps, sample.of) == ((1, 2, 3), 3)
    assert {game for game, _, _ in sample.who} == {"one", "two"}
    wanted = {"curve-exploitability", "curve-return-by-role", "curve-entropy", "curve-gap-between-engine-and-learner",
              "curve-tokens-sampled-by-role", "curve-loss", "payoffs-one-3", "payoffs-two-0", "payoffs-trained-two",
              "curve-tokens-of-a-reply-by-role", "curve-entropy-by-role", "advantages-player-0-one"}  # fmt: skip
    assert wanted <= specs(report).keys()
    assert {row["c"] for row in rows(specs(report)["curve-exploitability"])} == {"one"}
    assert len(report.report.transcripts[0][1]) >= 2


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    path = run(tmp_path / "run")
    assert "No step has been finished yet" in page(made(tmp_path / "report", path))
    (path / "metrics.jsonl").unlink()
    (path / "episodes").rmdir()
    assert made(tmp_path / "report", path).report.damage == ("run/metrics.jsonl: is missing",)


def test_a_folder_that_cannot_be_written_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MarlError, match="could not write"):
        made(tmp_path / "file" / "report", run(tmp_path / "run"))
