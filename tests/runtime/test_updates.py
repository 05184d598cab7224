"""Learners that take complete groups from a store, each at its own pace, in runs that can be killed and resumed."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from safetensors.torch import load_file

from marl_llm.config import (
    Config,
    EvaluationConfig,
    ExploiterConfig,
    LeagueConfig,
    LearnerConfig,
    MatchmakingConfig,
    RunConfig,
    StoreConfig,
    load_config,
)
from marl_llm.errors import ConfigError, RunError
from marl_llm.run import checkpoint_path, list_checkpoints, read_episodes, read_metrics
from marl_llm.runtime.updates import members
from marl_llm.train import train
from marl_llm.types import Episode, Match, Sample, Span
from tests.endpoint import saying
from tests.test_faults import DOWN, against
from tests.test_team import TWO, with_model
from tests.test_train import SMALL, STATE, Silent, same_checkpoints, small, wait_for_steps, without_time

QUIET = ("evaluation.games=0", "evaluation.every=0")
KINDS = ("memory", "sqlite")


def plain(path: Path) -> list[dict[str, Any]]:
    """The metrics of a run, without clocks."""
    rows = without_time(read_metrics(path))
    return [{key: value for key, value in row.items() if not key.endswith("model_s")} for row in rows]


def of_store(path: Path, policy: str) -> list[dict[str, float]]:
    """What each step says about a policy's queue."""
    prefix = f"store/{policy}/"
    return [{k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)} for row in read_metrics(path)]


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a store."""
    return train(small(tmp_path_factory.mktemp("runs"), *QUIET), Silent())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", ["2", "null"])
def test_with_a_steps_groups_per_update_a_run_equals_the_one_without_a_store(
    at_once: Path, tmp_path: Path, kind: str, groups: str
) -> None:
    store = (f"store={{kind: {kind}}}", f"policies.agent.learner.groups={groups}")
    path = train(small(tmp_path, *QUIET, *store), Silent())
    told = {"queue": 0, "updates": 1, "dropped": 0, "staleness_mean": 0, "staleness_max": 0}
    assert of_store(path, "agent") == [told] * 6
    rows = [{key: value for key, value in row.items() if not key.startswith("store/")} for row in plain(path)]
    assert rows == plain(at_once)
    assert same_checkpoints(path, at_once, 6)
    assert (path / "store.sqlite").exists() == (kind == "sqlite")


def paced(folder: Path, *, black: int | None, white: int | None, steps: int = 6, **store: Any) -> Config:
    """Two that can play, two groups of eight games a step, and how many groups each learns from at a time."""
    config = with_model(TWO, folder / "model", dict.fromkeys(("check", "bet", "fold", "call"), 0.25))
    policies = {
        name: replace(config.policies[name], learner=LearnerConfig(lr=1e-4, groups=groups))
        for name, groups in (("black", black), ("white", white))
    }
    making = MatchmakingConfig(groups=2, group_size=8, seats={"player_0": "black", "player_1": "white"})
    return replace(
        config,
        run=RunConfig(dir=str(folder), steps=steps, checkpoint_every=2),
        policies={**config.policies, **policies},
        matchmaking=making,
        evaluation=EvaluationConfig(every=0, games=0),
        store=StoreConfig(**store),
    )


@pytest.fixture(scope="module")
def own_pace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps in which black learns twice a step, and white twice in three steps."""
    folder = tmp_path_factory.mktemp("paced")
    return train(paced(folder, black=1, white=3), Silent(), path=folder / "run")


def test_each_learns_at_its_own_pace_and_the_metrics_say_how_old_what_it_learns_from_is(own_pace: Path) -> None:
    twice = {"queue": 0, "updates": 2, "dropped": 0, "staleness_mean": 0.5, "staleness_max": 1}
    assert of_store(own_pace, "black") == [twice] * 6
    nothing = {"queue": 2, "updates": 0, "dropped": 0}
    fresh = {"queue": 1, "updates": 1, "dropped": 0, "staleness_mean": 0, "staleness_max": 0}
    third = {"queue": 0, "updates": 1, "dropped": 0, "staleness_mean": pytest.approx(1 / 3), "staleness_max": 1}
    assert of_store(own_pace, "white") == [nothing, fresh, third] * 2
    versions: dict[str, list[set[int]]] = {
        name: [
            {v for e in read_episodes(file) for t in e.turns if t.policy == name for v in t.completion.versions}
            for file in sorted((own_pace / "episodes").iterdir())
        ]
        for name in ("black", "white")
    }
    assert versions == {"black": [{0}, {2}, {4}, {6}, {8}, {10}], "white": [{0}, {0}, {1}, {2}, {2}, {3}]}


def test_an_update_takes_the_oldest_groups_whole(own_pace: Path) -> None:
    tokens: dict[str, int] = {}
    for episode in read_episodes(own_pace):
        for turn in episode.turns:
            if turn.policy == "white" and turn.completion is not None:
                group = episode.match.group
                tokens[group] = tokens.get(group, 0) + len(turn.completion.tokens)
    taken = {2: ("s1/g0", "s1/g1", "s2/g0"), 3: ("s2/g1", "s3/g0", "s3/g1")}
    rows = {row["step"]: row for row in read_metrics(own_pace)}
    for step, groups in taken.items():
        assert rows[step]["learn/white/sampled_tokens"] == sum(tokens[group] for group in groups)
    assert "learn/white/loss" not in rows[1]
    everything = sum(
        count for row in rows.values() for key, count in row.items() if key == "learn/white/sampled_tokens"
    )
    assert everything == sum(tokens.values()), "nothing was lost and nothing came twice"


def test_the_schedule_counts_the_updates_of_each_learner(own_pace: Path) -> None:
    # Linear to 0 over 12 updates of one group, of which a step tells the mean of two, and over 4 updates of three.
    rows = read_metrics(own_pace)
    assert [row["learn/black/lr"] for row in rows] == pytest.approx([1e-4 * (1 - (2 * i + 0.5) / 12) for i in range(6)])
    assert [row["learn/white/lr"] for row in rows if "learn/white/lr" in row] == pytest.approx(
        [1e-4, 0.75e-4, 0.5e-4, 0.25e-4]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_with_groups_in_the_store_a_run_goes_on_bit_for_bit(own_pace: Path, tmp_path: Path, kind: str) -> None:
    config, observer = paced(tmp_path, black=1, white=3, kind=kind), Silent()
    path = train(config, observer, path=tmp_path / "run", stop=lambda: observer.told[-1] == "step 2")
    assert of_store(path, "white")[-1]["queue"] == 1
    waiting = (checkpoint_path(path, 2) / "store.jsonl").read_text().splitlines()
    assert len(waiting) == 8, "one group of eight games"
    train(config, Silent(), path=path, resume=True)
    assert plain(path) == plain(own_pace)
    assert list(read_episodes(path)) == list(read_episodes(own_pace))
    one, two = checkpoint_path(path, 6), checkpoint_path(own_pace, 6)
    for file in ("black/model.safetensors", "white/model.safetensors", "store.jsonl"):
        assert (one / file).read_bytes() == (two / file).read_bytes()
    moments, again = (load_file(folder / "white-learner" / STATE) for folder in (one, two))
    assert moments.keys() == again.keys()
    assert all(moments[name].equal(again[name]) for name in moments)


def test_a_killed_run_with_a_store_resumes_bit_for_bit(tmp_path: Path) -> None:
    options = [*QUIET, "store={kind: sqlite}", "policies.agent.learner.groups=3", "run.steps=5"]
    whole = train(small(tmp_path, *options), Silent(), path=tmp_path / "whole")
    command = [sys.executable, "-m", "marl_llm.cli", "train", str(SMALL), f"run.dir={tmp_path}", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    path = tmp_path / "small-seed0-1"
    wait_for_steps(process, path, 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(small(tmp_path, *options), Silent(), path=path, resume=True)
    assert [told["queue"] for told in of_store(path, "agent")] == [2, 1, 0, 2, 1]
    assert plain(path) == plain(whole)
    assert same_checkpoints(path, whole, 5)


def test_what_is_too_old_is_dropped_and_told(tmp_path: Path) -> None:
    config = paced(tmp_path, black=None, white=1, steps=3, max_staleness=0)
    path = train(config, Silent(), path=tmp_path / "run")
    half = {"queue": 0, "updates": 1, "dropped": 1, "staleness_mean": 0, "staleness_max": 0}
    assert of_store(path, "white") == [half] * 3, "after its update the step's other group is one update old"
    assert [told["dropped"] for told in of_store(path, "black")] == [0] * 3


def test_a_full_store_makes_its_learner_learn_first_and_loses_nothing(own_pace: Path, tmp_path: Path) -> None:
    config = paced(tmp_path, black=1, white=1, steps=2, max_groups=1)
    narrow = train(config, Silent(), path=tmp_path / "narrow")
    wide = train(replace(config, store=StoreConfig()), Silent(), path=tmp_path / "wide")
    assert plain(narrow) == plain(wide)
    assert [told["updates"] for told in of_store(narrow, "white")] == [2, 2]


def test_a_group_with_an_episode_at_fault_is_dropped_and_told(serve: Any, tmp_path: Path) -> None:
    endpoint = serve(lambda number: DOWN if number == 1 else saying("<answer>check</answer>"))
    config = against(endpoint.url, tmp_path, "play.max_faults=0.5", "run.steps=1", "store={}", "evaluation.every=0")
    path = train(config, Silent())
    (row,) = read_metrics(path)
    assert row["play/faults"] == 1
    (told,) = of_store(path, "agent")
    assert told == {"queue": 0, "updates": 1, "dropped": 1, "staleness_mean": 0, "staleness_max": 0}
    episodes = list(read_episodes(path))
    (broken,) = {episode.match.group for episode in episodes if episode.status == "fault"}
    sound = [t.completion for e in episodes if e.match.group != broken for t in e.turns if t.completion is not None]
    assert row["learn/agent/sampled_tokens"] == sum(len(completion.tokens) for completion in sound)


def test_groups_in_which_a_policy_had_no_turn_are_none_of_its_groups(tmp_path: Path) -> None:
    config = paced(tmp_path, black=2, white=1, steps=1)
    silent = with_model(config, tmp_path / "silent", {"fold": 1.0})  # illegal at first, so that white has no turn
    path = train(silent, Silent(), path=tmp_path / "run")
    assert of_store(path, "white") == [{"queue": 0, "updates": 0, "dropped": 0}]
    assert of_store(path, "black")[0]["updates"] == 1


def episode(group: str, number: int, status: Literal["done", "fault"] = "done") -> Episode:
    match = Match(id=f"{group}/m{number}", game="g", seed=0, group=group, seats={})
    return Episode(match=match, turns=(), returns={}, status=status)


def sample(name: str, *versions: int) -> Sample:
    numbers = (0.0,) * len(versions)
    span = Span(
        start=1, length=len(versions), logprobs=numbers, advantages=numbers, role="r", turn=0, versions=versions
    )
    return Sample(policy="sub", game="g", episode=name, agent="a", tokens=(0, *versions), spans=(span,))


def test_a_group_has_a_member_for_each_episode_also_where_the_policy_was_not_called() -> None:
    played = [episode("a", 1), episode("b", 0), episode("a", 0), episode("b", 1, "fault"), episode("c", 0)]
    found = [sample("a/m1", 4, 3), sample("b/m0", 4), sample("a/m1", 4), sample("c/m0")]
    whole, broken = members("sub", played, found, version=5)
    assert broken == ["b"]
    (group,) = whole
    assert [(entry.key, entry.size, entry.version, len(entry.samples)) for entry in group] == [
        ("a/m1", 2, 3, 2),
        ("a/m0", 2, 5, 0),
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("store={max_groups: 0}", "store.max_groups: 0 is not allowed; it must be 1 or more"),
        ("store={max_staleness: -1}", "store.max_staleness: -1 is not allowed; it must be null or 0 or more"),
        ("store={kind: ray}", "store.kind: "),
        ("policies.agent.learner.groups=2", "policies.agent.learner.groups: 2 .* must be null where there is no store"),
    ],
)
def test_a_wrong_setting_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(SMALL, [override])


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"learner.groups: 0 is not allowed; it must be null or 1 or more"):
        paced(tmp_path, black=0, white=1)
    with pytest.raises(ConfigError, match=r"black.learner.groups: 3 .* it must be at most store.max_groups \(2\)"):
        paced(tmp_path, black=3, white=1, max_groups=2)
    league = MatchmakingConfig(seats={"*": "black"}, league=LeagueConfig(exploiters={"white": ExploiterConfig()}))
    with pytest.raises(ConfigError, match=r"league.exploiters: \['white'\] .* it must be {} where there is a store"):
        replace(paced(tmp_path, black=1, white=1), matchmaking=league)


def test_a_store_that_cannot_be_written_stops_the_run_in_one_line(tmp_path: Path) -> None:
    config = small(tmp_path, *QUIET, "run.steps=1")
    path = train(config, Silent(), path=tmp_path / "run", stop=lambda: True)
    (path / "store.sqlite").mkdir()
    with pytest.raises(RunError, match=r"could not write .*store.sqlite"):
        train(replace(config, store=StoreConfig(kind="sqlite")), Silent(), path=path, resume=True)
    assert list_checkpoints(path / "checkpoints") == []
