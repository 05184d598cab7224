"""The loop: what a run leaves behind, and that a killed run goes on bit for bit."""

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from marl_llm import cli
from marl_llm.alarms import Alarm
from marl_llm.config import Config, load_config
from marl_llm.credit.recipe import credit, load_recipe
from marl_llm.errors import ConfigError
from marl_llm.evaluation.measure import Evaluation, logged
from marl_llm.league import League
from marl_llm.matchmaking import schedule
from marl_llm.play import play
from marl_llm.run import Run, checkpoint_path, checkpoint_values, read_episodes, read_metrics
from marl_llm.runtime.rollouts import LocalRollouts
from marl_llm.sweep import final_measures
from marl_llm.team import found
from marl_llm.train import Progress, advance, assemble, prepare, rare_collections, train

SMALL = Path(__file__).parent / "small.yaml"
STATE = "shard-00001-model-00001-of-00001.safetensors"
"""Where one process writes its learner's state."""


class Silent:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, run: Path, config: Config, step: int) -> None:
        self.told.append(f"started at {step}")

    def warming_up(self, policy: str, step: int, steps: int, loss: float) -> None:
        self.told.append(f"warm-up {policy} {step}/{steps}")

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        self.told.append(f"evaluated {step}")

    def alarmed(self, step: int, alarm: Alarm) -> None:
        self.told.append(f"alarm {alarm.name} at {step}")

    def stepped(self, step: int, metrics: Mapping[str, float]) -> None:
        self.told.append(f"step {step}")

    def noted(self, text: str) -> None:
        self.told.append(text)


def small(folder: Path, *overrides: str) -> Config:
    return load_config(SMALL, [f"run.dir={folder}", *overrides])


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    clocks = ("time", "play/tokens_per_s", "learn/agent/model_s")
    return [
        {key: value for key, value in row.items() if not key.startswith(clocks) and not key.endswith("/seconds")}
        for row in rows
    ]


def same_checkpoints(one: Path, two: Path, step: int) -> bool:
    first, second = checkpoint_path(one, step), checkpoint_path(two, step)
    assert checkpoint_values(first) == checkpoint_values(second)
    for name in ("agent/model.safetensors", f"agent-learner/{STATE}"):
        a, b = load_file(first / name), load_file(second / name)
        assert a.keys() == b.keys()
        assert all(a[key].equal(b[key]) for key in a), name
    return True


def wait_for_steps(process: "subprocess.Popen[Any]", path: Path, steps: int) -> None:
    deadline = monotonic() + 300
    while not (path.is_dir() and len(read_metrics(path)) >= steps):
        assert monotonic() < deadline
        assert process.poll() is None
        sleep(0.005)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Silent]:
    """An uninterrupted run, and what its observer was told."""
    observer = Silent()
    return train(small(tmp_path_factory.mktemp("runs")), observer), observer


def test_a_run_leaves_metrics_episodes_checkpoints_and_evaluations(finished: tuple[Path, Silent]) -> None:
    path, _ = finished
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all({"time_s", "play/illegal_fraction", "play/return/player_0"} <= row.keys() for row in rows)
    assert [row["step"] for row in rows if "eval/exploitability" in row] == [2, 4, 6]
    episodes = list(read_episodes(path))
    assert len(episodes) == 6 * 8
    assert all(turn.completion is not None for episode in episodes for turn in episode.turns)
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == ["step_0", "step_2", "step_4", "step_6"]
    for step in (0, 6):
        evaluation = logged(path, step)
        assert evaluation is not None
        assert evaluation.first.exploitability is not None
        assert set(evaluation.first.opponents) == {"random", "start"}
        assert set(evaluation.first.opponents["random"]) == {"player_0", "player_1"}


SEVERAL = (
    "games={kuhn: {name: kuhn_poker}, board: {name: tic_tac_toe, training: {opening: 4}}, "
    "hanabi: {name: mini_hanabi, share: 0, opponents: [agent]}}",
    "matchmaking.curriculum={floor: 0.3}",
    "play.context_tokens=640",
    "play.max_reply_tokens=12",
    "evaluation.games_during=2",
    "policies.agent.warmup.teachers={board: random}",
)


def test_several_games_with_a_curriculum_go_on_bit_for_bit_and_held_out_ones_are_measured(tmp_path: Path) -> None:
    config = small(tmp_path, *SEVERAL)
    whole = train(config, Silent(), path=tmp_path / "whole")
    part = tmp_path / "part"
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 14  # 8 steps of warm-up, and the third of training

    train(config, Silent(), path=part, stop=stop)
    assert len(read_metrics(part)) < 6
    train(config, Silent(), path=part, resume=True)
    rows = without_time(read_metrics(whole))
    assert without_time(read_metrics(part)) == rows
    assert same_checkpoints(whole, part, 6)
    assert all(row["play/part/kuhn"] + row["play/part/board"] == pytest.approx(1) for row in rows)
    assert len({row["play/part/kuhn"] for row in rows}) > 1, "it follows what is learned"
    assert {episode.match.game for episode in read_episodes(whole)} == {"kuhn_poker", "tic_tac_toe"}
    assert {key for key in rows[1] if key.startswith("eval/hanabi")} == {
        "eval/hanabi/return/agent/player_0",
        "eval/hanabi/return/agent/player_1",
    }


def test_an_observer_is_told_everything_in_order(finished: tuple[Path, Silent]) -> None:
    _, observer = finished
    warmup = [f"warm-up agent {i}/8" for i in range(1, 9)]
    steps = [f"step {i}" for i in range(1, 7)]
    assert observer.told == ["started at 0", *warmup, "evaluated 0", *steps, "evaluated 6"]


def test_training_moves_the_weights_and_a_learning_rate_of_zero_does_not(
    finished: tuple[Path, Silent], tmp_path: Path
) -> None:
    def moved(path: Path) -> bool:
        first, last = (load_file(checkpoint_path(path, step) / "agent/model.safetensors") for step in (0, 6))
        return any(not first[key].equal(last[key]) for key in first)

    assert moved(finished[0])
    assert not moved(train(small(tmp_path, "policies.agent.learner.lr=0", "evaluation.games=0"), Silent()))


def test_stopping_saves_and_resuming_equals_the_uninterrupted_run(
    finished: tuple[Path, Silent], tmp_path: Path
) -> None:
    config = small(tmp_path)
    observer = Silent()
    path = train(config, observer, stop=lambda: observer.told[-1] == "step 3")
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == ["step_0", "step_2", "step_3"]
    assert train(config, Silent(), path=path, resume=True) == path
    assert without_time(read_metrics(path)) == without_time(read_metrics(finished[0]))
    assert same_checkpoints(path, finished[0], 6)


def test_who_does_not_learn_plays_the_same_after_an_interruption(tmp_path: Path) -> None:
    """Keys and values that were kept differ in the last bits from those that are read anew."""
    tiny = "{hidden: 96, layers: 3, heads: 4, mlp: 384, vocabulary: 400}"
    fixed = f"policies.fixed={{trainable: false, tiny: {tiny}, engine: {{slots: 7, cache_slots: 8}}}}"
    seats = "matchmaking={groups: 8, group_size: 4, seats: {player_0: fixed, player_1: random}}"
    config = small(tmp_path, fixed, seats)
    team, played = found(config), []
    for _ in range(2):
        team.publish()
        matches = schedule(config, 1, {"game": 1.0}, {"game": ["player_0", "player_1"]}, League())
        played.append({episode.match.id: episode for episode in play(matches, team.policies)})
    assert played[0] == played[1]


def test_an_alarm_is_told_once_logged_while_it_is_on_and_survives_an_interruption(tmp_path: Path) -> None:
    # Some reply is the most frequent one, so that its share is above 0.
    config = small(tmp_path, "evaluation.games=0", "alarms.window=2", "alarms.identical_replies=0")
    whole, first, rest = Silent(), Silent(), Silent()
    path = train(config, whole)
    rows = read_metrics(path)
    assert [row["step"] for row in rows if row.get("alarm/identical_replies") == 1.0] == [2, 3, 4, 5, 6]
    assert [told for told in whole.told if told.startswith("alarm identical")] == ["alarm identical_replies at 2"]
    cut = train(config, first, stop=lambda: first.told[-1] == "step 3")
    train(config, rest, path=cut, resume=True)
    assert [told for told in rest.told if told.startswith("alarm identical")] == []
    assert without_time(read_metrics(cut)) == without_time(rows)


def test_stopped_in_the_warm_up_nothing_is_saved_and_resuming_begins_anew(
    finished: tuple[Path, Silent], tmp_path: Path
) -> None:
    config, observer = small(tmp_path), Silent()
    path = train(config, observer, stop=lambda: observer.told[-1] == "warm-up agent 3/8")
    assert observer.told[-1] == "warm-up agent 3/8"
    assert list((path / "checkpoints").iterdir()) == []
    train(config, Silent(), path=path, resume=True)
    assert same_checkpoints(path, finished[0], 6)


def test_stopped_around_the_first_evaluation_a_run_goes_on_from_step_0(tmp_path: Path) -> None:
    config, observer = small(tmp_path, "evaluation.games=1"), Silent()
    asked: list[str] = []

    def after_warmup() -> bool:
        asked.append(observer.told[-1])
        return asked[-2:] == ["warm-up agent 8/8"] * 2

    path = train(config, observer, stop=after_warmup)
    assert observer.told[-1] == "warm-up agent 8/8"
    assert [p.name for p in (path / "checkpoints").iterdir()] == ["step_0"]
    observer = Silent()
    train(config, observer, path=path, resume=True, stop=lambda: observer.told[-1] == "evaluated 0")
    assert observer.told == ["started at 0", "evaluated 0"]
    assert read_metrics(path) == []


def test_ctrl_c_in_the_warm_up_says_that_nothing_is_saved(tmp_path: Path) -> None:
    options = [f"run.dir={tmp_path}", "policies.agent.warmup.steps=100000"]
    command = [sys.executable, "-m", "marl_llm.cli", "train", str(SMALL), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        path = tmp_path / "small-seed0-1"
        while not path.is_dir():  # from then on the signal is caught
            assert process.poll() is None
            sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "stopped during the warm-up, of which nothing is saved" in out
    assert out.splitlines()[-2:] == [f"begin it anew with: marl-llm train {path} --resume", f"run: {path}"]


@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_run_resumes_bit_for_bit(finished: tuple[Path, Silent], tmp_path: Path, after: int) -> None:
    command = [sys.executable, "-m", "marl_llm.cli", "train", str(SMALL), f"run.dir={tmp_path}", "evaluation.games=10"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    path = tmp_path / "small-seed0-1"
    wait_for_steps(process, path, after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(small(tmp_path), Silent(), path=path, resume=True)
    assert without_time(read_metrics(path)) == without_time(read_metrics(finished[0]))
    assert same_checkpoints(path, finished[0], 6)
    assert list(read_episodes(path)) == list(read_episodes(finished[0]))


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(finished: tuple[Path, Silent], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "marl_llm.cli", "train", str(SMALL), f"run.dir={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        path = tmp_path / "small-seed0-1"
        wait_for_steps(process, path, 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "stopping after the last whole step" in err
    steps = len(read_metrics(path))
    if steps < 6:  # a fast machine may be done before the signal comes
        assert f"go on with: marl-llm train {path} --resume" in out
    assert checkpoint_path(path, steps).is_dir()
    assert out.splitlines()[-1] == f"run: {path}"
    train(small(tmp_path), Silent(), path=path, resume=True)
    assert same_checkpoints(path, finished[0], 6)


@pytest.mark.parametrize("recipe", ["rae", "self_play"])
def test_the_credit_of_a_run_directory_is_that_of_its_training(tmp_path: Path, recipe: str) -> None:
    config = small(tmp_path, f"credit={recipe}")
    team, progress, trained = assemble(config), Progress(step=0, credit={}), load_recipe(recipe)
    used: dict[tuple[str, int], float] = {}
    rollouts = LocalRollouts(config, team)
    with Run.create(config) as run:
        for step in (1, 2, 3):
            before = progress.credit
            metrics, episodes = advance(config, team, trained, rollouts, progress)
            run.episodes(step, episodes, tokens=True)
            run.step(step, metrics)
            credited = credit(episodes, trained, before)
            assert credited.state == progress.credit
            used |= credited.by_turn(credited.advantages)
    (run.path / "episodes" / "step_copy.jsonl").write_text("not ours")
    result = CliRunner().invoke(cli.whole(), ["credit", recipe, str(run.path), "--json"])
    shown = json.loads(result.stdout)
    assert {(row["episode"], row["turn"]): row["advantages"][recipe] for row in shown["rows"]} == used
    assert {turn for turns in shown["groups"][recipe].values() for turn in turns} == {f"{e}#{t}" for e, t in used}
    alone = CliRunner().invoke(
        cli.whole(), ["credit", recipe, str(run.path / "episodes" / "step_000003.jsonl"), "--json"]
    )
    fresh = {(row["episode"], row["turn"]): row["advantages"][recipe] for row in json.loads(alone.stdout)["rows"]}
    assert (fresh == {key: used[key] for key in fresh}) == (recipe != "rae")


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 / 0", "cannot be imported: ZeroDivisionError"), ("x = 3", "no attribute 'f'"), ("f = 3", "is 3; it must be")],
)
def test_a_reward_function_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tmp_path / "rewarding.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rewarding", raising=False)
    with pytest.raises(ConfigError, match=f"play.rewards: 'rewarding:f' .*{message}"):
        prepare(small(tmp_path, "play.rewards=rewarding:f"))


def test_what_can_be_refused_is_refused_before_a_run_directory_is_made(tmp_path: Path) -> None:
    config = small(tmp_path)
    with pytest.raises(ConfigError, match="nope:f"):
        prepare(replace(config, play=replace(config.play, rewards="nope:f")))
    with pytest.raises(ConfigError, match="gro"):
        prepare(replace(config, credit="gro"))
    with pytest.raises(ConfigError, match=r"needs difference, .* offered by play\.replays"):
        prepare(replace(config, credit="difference"))
    with pytest.raises(ConfigError, match="kuhn_pokr"):
        prepare(replace(config, games={"game": replace(config.games["game"], name="kuhn_pokr")}))
    with pytest.raises(ConfigError, match=r"^play.probe: 'judge' .* one of the roles of the games: \['player_0', "):
        prepare(small(tmp_path, "play.probe=[judge]"))
    with pytest.raises(ConfigError, match=r"^play.replays: 2 .* 0 while game game has on_illegal: forfeit$"):
        prepare(small(tmp_path, "play.replays=2"))
    seats = replace(config.matchmaking, seats={"player_0": "agent"})
    with pytest.raises(ConfigError, match="nobody sits at 'player_1'"):
        prepare(replace(config, matchmaking=seats))
    perfect = "policies.perfect={kind: minimax}"
    message = r"^policies.perfect: policy minimax: kuhn_poker is not a small .*; use cfr$"
    prepare(small(tmp_path, perfect))
    for used in (
        "policies.agent.warmup.teacher=perfect",
        "evaluation.opponents=[perfect]",
        "matchmaking.seats={player_0: agent, player_1: perfect}",
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(small(tmp_path, perfect, used))
    with pytest.raises(ConfigError, match=r"^policies.noisy: policy noisy: unknown option 'heat'"):
        prepare(small(tmp_path, "policies.noisy.options.heat=1"))
    assert list(tmp_path.iterdir()) == []


def test_the_garbage_collector_is_as_before_after_a_run() -> None:
    often = gc.get_threshold()
    with rare_collections():
        assert gc.get_threshold()[0] == 10 * often[0]
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == often
    assert gc.get_freeze_count() == 0


def test_a_best_response_is_searched_for_before_and_after_training_but_not_during(tmp_path: Path) -> None:
    config = small(tmp_path, "run.steps=2", "evaluation.best_response=20", "evaluation.games=0")
    path = train(config, Silent(), path=tmp_path / "run")
    for step in (0, 2):
        measured = logged(path, step)
        assert measured is not None
        assert measured.first.best_response is not None
        assert measured.first.best_response.simulations == 20
    looked = [row for row in read_metrics(path) if "eval/exploitability" in row]
    assert looked
    assert not any("eval/best_response" in row for row in looked)


CHAIN = (
    "games.game.name=generate_verify_refine",
    "games.game.settings.tasks={source: arithmetic, level: 1}",
    "policies.agent.warmup={teacher: knowing, games: 24, steps: 12, batch: 32, lr: 0.01}",
    "policies.knowing={kind: informed, options: {accuracy: 0.5}}",
    "play.max_reply_tokens=16",
    "matchmaking.groups=2",
    "matchmaking.group_size=2",
    "evaluation.opponents=[]",
    "evaluation.team=true",
    "evaluation.games=4",
    "run.steps=1",
)


def test_a_tree_is_played_learned_from_by_pairs_and_can_be_audited(tmp_path: Path) -> None:
    tree = ("play.tree={width: 2, turns: 2}", "credit=malt")
    pairs = (
        "policies.agent.learner.minibatches=1",
        "policies.agent.objective.kl.reference=frozen",
        "policies.agent.objective.preference={imitation: 1.0}",
    )
    path = train(small(tmp_path, *CHAIN, *tree, *pairs), Silent())
    episodes = list(read_episodes(path))
    assert len(episodes) == 2 * 2**3
    assert sum(episode.match.branch is None for episode in episodes) == 4
    (metrics,) = read_metrics(path)
    assert metrics["play/turns"] == 2 * (2 + 4 + 8)
    assert metrics["learn/agent/sampled_tokens"] == metrics["play/sampled_tokens"]
    assert metrics["learn/agent/imitation_loss"] >= 0.0
    again = credit(episodes, load_recipe("malt"))
    assert len(set(again.table.column("node").tolist())) == metrics["play/turns"]
    measured = logged(path, 1)
    assert measured is not None
    assert measured.first.team is not None
    assert measured.first.team.games == 4
    swept = final_measures(path)  # what a sweep's table tells of it
    assert swept["team: correct"] == measured.first.team.facts["correct"].mean
    before = logged(path, 0)
    assert before is not None
    assert before.first.team is not None
    assert swept["team: correct before"] == before.first.team.facts["correct"].mean


def test_a_tree_of_tokens_is_learned_from_once(tmp_path: Path) -> None:
    segments = ("play.tree={width: 2, turns: 2, tokens: 1}", "credit=grpo", "run.steps=1", *QUICK)
    path = train(small(tmp_path, *segments), Silent())
    (metrics,) = read_metrics(path)
    episodes = list(read_episodes(path))
    assert len(episodes) == 2 * 4 * 2**2
    assert metrics["play/sampled_tokens"] == sum(t.num_sampled for e in episodes for t in e.turns[e.match.begins :])
    assert metrics["learn/agent/sampled_tokens"] == metrics["play/sampled_tokens"]
    again = [turn for episode in episodes for turn in episode.turns if turn.begun]
    assert {turn.begun for turn in again} == {1, 2}


@pytest.mark.parametrize("wanted", ["values: 2", "segments: {rollouts: 2, interval: 2}"])
def test_extra_play_is_measured_logged_and_counted(tmp_path: Path, wanted: str) -> None:
    rest = "alternatives: 1, keep_alternatives: true, coalitions: {parts: [shapley, difference]}"
    branches = (f"play.branches={{{wanted}, {rest}}}", "credit=grpo")
    path = train(small(tmp_path, *CHAIN, *branches), Silent())
    (metrics,) = read_metrics(path)
    episodes = list(read_episodes(path))
    assert len(episodes) == metrics["play/games"] > 4
    assert metrics["play/replays"] > 0
    assert metrics["play/replay_tokens"] > 0
    assert metrics["learn/agent/sampled_tokens"] == metrics["play/sampled_tokens"]
    for episode in episodes:
        assert all({"shapley", "difference"} <= turn.rewards.keys() for turn in episode.turns[-3:])
        own = episode.turns[episode.match.begins :]
        if episode.match.branch is None:
            assert all("baseline" in turn.probes for turn in own)
        if wanted.startswith("values"):
            assert all("value" in turn.probes for turn in episode.turns)
        else:
            lengths = [len(turn.completion.tokens) for turn in episode.turns if turn.completion is not None]
            assert [len(turn.token_probes["value"]) for turn in episode.turns] == lengths
    if not wanted.startswith("values"):
        known = [v for episode in episodes for turn in episode.turns for v in turn.token_probes["value"] if v == v]
        assert known


@pytest.mark.parametrize(
    ("recipe", "offered"),
    [
        ("vineppo", "values: 1"),
        ("pav", "values: 1"),
        ("spo_chain", "segments: {rollouts: 1}"),
        ("shapley", "coalitions: {}"),
        ("difference", "coalitions: {parts: [difference]}"),
        ("coma", "options: 1, alternatives: 1"),
        ("coma_mc", "alternatives: 2, keep_alternatives: true"),
    ],
)
def test_what_extra_play_measures_is_what_recipes_ask_for(tmp_path: Path, recipe: str, offered: str) -> None:
    if recipe != "coma_mc":
        missing = {"pav": "value", "vineppo": "value", "spo_chain": "value", "coma": "(baseline|q)"}.get(recipe, recipe)
        with pytest.raises(ConfigError, match=f"recipe {recipe} needs {missing}, which is missing"):
            prepare(small(tmp_path, "games.game.settings.on_illegal=default_action", f"credit={recipe}"))
    kuhn = (
        "games.game.settings.on_illegal=default_action",
        "matchmaking.seats={player_0: agent, player_1: random}",
        "play.context_tokens=224",
        "run.steps=1",
    )
    path = train(small(tmp_path, *kuhn, f"credit={recipe}", f"play.branches={{{offered}}}", *QUICK), Silent())
    episodes = list(read_episodes(path))
    credited = credit(episodes, load_recipe(recipe))
    assert np.abs(credited.advantages).max() > 0
    by = {(episode.match.id, index): turn.policy for episode in episodes for index, turn in enumerate(episode.turns)}
    assert {by[turn] for turn in credited.unknown} <= {"random"}


QUICK = ("evaluation.every=0", "evaluation.exploitability=false", "evaluation.games=0")


def test_a_value_of_turns_is_none_of_tokens(tmp_path: Path) -> None:
    for recipe, offered in (("vineppo", "segments: {}"), ("spo_chain", "values: 1")):
        with pytest.raises(ConfigError, match=f"recipe {recipe} needs value, which is missing"):
            prepare(small(tmp_path, f"credit={recipe}", f"play.branches={{{offered}}}"))


def test_a_game_that_does_not_follow_from_its_seed_is_not_forked(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "drawing.py").write_text(
        "from games.matrix_game import env as made\n"
        "from games.turns import InTurns\n"
        "def env():\n"
        "    game = made(on_illegal='default_action')\n"
        "    game.metadata['seeded'] = False\n"
        "    return game\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    drawing = ("games.game.name=drawing:env", "credit=grpo", "policies.agent.warmup=null")
    for setting in ("tree={width: 2, turns: 1}", "replays=1", "branches.values=1"):
        key = setting.partition("=")[0].partition(".")[0]
        with pytest.raises(ConfigError, match=f"^play.{key}: not with game game .drawing:env., which cannot be forked"):
            prepare(small(tmp_path, *drawing, f"play.{setting}"))


def test_coalitions_need_a_game_that_goes_on_when_somebody_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^play.branches.coalitions.muted: None .* a legal action while game game"):
        prepare(small(tmp_path, "play.branches.coalitions={}"))
    prepare(small(tmp_path, "play.branches.coalitions.muted=check"))


def test_calls_are_credited_with_what_their_caller_loses_without_them(tmp_path: Path) -> None:
    research = (
        "games.game.name=deep_research",
        "games.game.settings={tasks: {source: multihop, documents: 60, hops: 1}, planner_turns: 2, searcher_turns: 2}",
        "play.context_tokens=512",
        "play.max_reply_tokens=24",
        "play.replays=1",
        "credit=mgrpo_difference",
        "policies.knowing.options.accuracy=1.0",
        "matchmaking.seats={planner_0: knowing, '*': agent}",
    )
    path = train(small(tmp_path, *CHAIN[2:], *research), Silent())
    (metrics,) = read_metrics(path)
    calls = [turn for episode in read_episodes(path) for turn in episode.turns if "difference" in turn.rewards]
    assert {turn.role for turn in calls} == {"searcher"}
    assert metrics["play/replays"] > 0
    assert metrics["play/replay_tokens"] >= 0
    prepare(small(tmp_path, *CHAIN[2:], *research, "credit=difference"))
