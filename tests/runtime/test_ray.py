"""Runs on a real Ray cluster of this machine, in which processes are really killed."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from threading import Event, Timer
from time import monotonic
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from marl_llm.config import Config, load_config, to_yaml
from marl_llm.engines.base import Request
from marl_llm.errors import ConfigError
from marl_llm.run import Run, checkpoint_path, checkpoint_values, read_episodes, read_metrics
from marl_llm.runtime.processes import EngineProcess, LearnerProcess, SharedEngine
from marl_llm.runtime.rollouts import Lost
from marl_llm.train import train
from scripts.bench.faults import kill_process, lose_node, two_nodes
from tests.test_train import SMALL, Silent, same_checkpoints, wait_for_steps, without_time

ALONE = ("runtime=ray", "cluster.workers=1", "cluster.evaluators=0")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    with two_nodes() as nodes:
        yield nodes


def small(folder: Path, *overrides: str) -> Config:
    quick = ("evaluation.every=0", "evaluation.exploitability=false", "evaluation.games=0")
    going_on = ("games.game.settings.on_illegal=default_action", "play.context_tokens=224")
    return load_config(SMALL, [f"run.dir={folder}", *quick, *going_on, *overrides])


class After(Silent):
    """Does something after the second step, once."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._acts = [act]

    def stepped(self, step: int, metrics: Mapping[str, float]) -> None:
        super().stepped(step, metrics)
        if step == 2 and self._acts:
            self._acts.pop()()


def killing(kind: str) -> After:
    return After(lambda: kill_process(kind))


def same_without_cluster(one: Path, two: Path) -> bool:
    rows = [
        [{key: value for key, value in row.items() if not key.startswith("cluster/")} for row in without_time(rows)]
        for rows in (read_metrics(one), read_metrics(two))
    ]
    return rows[0] == rows[1]


def all_ids(config: Config) -> list[str]:
    making = config.matchmaking
    members = product(range(1, config.run.steps + 1), range(making.groups), range(making.group_size))
    return sorted(f"s{step}/g{group}/m{member}" for step, group, member in members)


def assert_nothing_lost_or_twice(path: Path, config: Config) -> None:
    assert sorted(episode.match.id for episode in read_episodes(path)) == all_ids(config)
    assert [row["step"] for row in read_metrics(path)] == list(range(1, config.run.steps + 1))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(small(tmp_path_factory.mktemp("local")), Silent())


def test_one_worker_without_staleness_is_the_local_run_bit_for_bit(local: Path, tmp_path: Path) -> None:
    path = train(small(tmp_path, *ALONE), Silent())
    assert list(read_episodes(path)) == list(read_episodes(local))
    assert same_without_cluster(path, local)
    assert same_checkpoints(path, local, 6)


def test_a_run_may_go_on_elsewhere_bit_for_bit(local: Path, tmp_path: Path) -> None:
    observer = Silent()
    path = train(small(tmp_path), observer, stop=lambda: "step 3" in observer.told)
    train(small(tmp_path, *ALONE), Silent(), path=path, resume=True)
    assert list(read_episodes(path)) == list(read_episodes(local))
    assert same_checkpoints(path, local, 6)


def test_extra_play_in_a_worker_is_that_of_the_local_run_bit_for_bit(tmp_path: Path) -> None:
    extra = (
        "play.branches={values: 2, alternatives: 1, keep_alternatives: true, coalitions: {}}",
        "run.steps=2",
    )
    here, there = (train(small(tmp_path / name, *extra, *where), Silent()) for name, where in (("h", ()), ("t", ALONE)))
    assert list(read_episodes(there)) == list(read_episodes(here))
    assert same_without_cluster(there, here)
    assert same_checkpoints(there, here, 2)
    assert all("play/replays" in row for row in read_metrics(here))


def test_a_league_is_met_in_workers_as_it_is_here(tmp_path: Path) -> None:
    settings = (
        "matchmaking.league={every: 1, share: 0.5, exploiters: {spoiler: {share: 0.5, reset_every: 2}}}",
        "policies.spoiler={tiny: {hidden: 32, layers: 1, heads: 2, mlp: 64}, engine: {slots: 16}}",
        "run.steps=3",
    )
    here, there = (
        train(small(tmp_path / name, *settings, *overrides), Silent())
        for name, overrides in (("here", ()), ("there", ALONE))
    )
    assert list(read_episodes(there)) == list(read_episodes(here))
    assert checkpoint_values(checkpoint_path(there, 3)) == checkpoint_values(checkpoint_path(here, 3))


def test_what_was_good_comes_again_elsewhere_as_it_does_here(tmp_path: Path) -> None:
    settings = (
        "matchmaking={groups: 4, group_size: 4, seats: {player_0: agent, player_1: random}}",
        "policies.agent.learner.replay={size: 2, trigger: 1.0, rise: 2}",
        "policies.agent.warmup=null",
        "run.steps=3",
    )
    here, there = (train(small(tmp_path / n, *settings, *where), Silent()) for n, where in (("h", ()), ("t", ALONE)))
    assert max(row["learn/agent/replay_samples"] for row in read_metrics(here)) == 2
    assert same_without_cluster(there, here)
    assert same_checkpoints(there, here, 3)


def test_a_budget_begins_more_of_a_step_in_workers_as_it_does_here(tmp_path: Path) -> None:
    making = "matchmaking={groups: 3, group_size: 2, seats: {player_0: agent, player_1: random}, "
    settings = (making + "budget: {keep: spread, max_batches: 9}}", "policies.agent.warmup=null", "run.steps=2")
    here, there = (
        train(small(tmp_path / name, *settings, *overrides), Silent())
        for name, overrides in (("here", ()), ("there", ALONE))
    )
    assert max(row["play/budget/batches"] or 0 for row in read_metrics(here)) > 1
    assert list(read_episodes(there)) == list(read_episodes(here))
    assert same_without_cluster(there, here)


def test_what_workers_share_and_how_many_they_are_changes_no_match_and_no_reward_of_a_played_token(
    local: Path, tmp_path: Path
) -> None:
    """Floating-point sums depend on what else is in a batch, and so may a draw that is as good as even."""
    config = small(tmp_path, "runtime=ray", "cluster={workers: 2, evaluators: 0, engines: 1, engine: {gpus: 0}}")
    path = train(config, Silent())
    assert_nothing_lost_or_twice(path, config)
    one, two = (
        {e.match.id: e for e in read_episodes(where) if e.match.id.startswith("s1/")} for where in (local, path)
    )
    assert {name: episode.match for name, episode in one.items()} == {name: e.match for name, e in two.items()}
    for name, episode in one.items():
        for mine, theirs in zip(episode.turns, two[name].turns, strict=True):
            assert mine.completion is not None
            assert theirs.completion is not None
            assert mine.completion.tokens == theirs.completion.tokens
            assert mine.completion.logprobs == pytest.approx(theirs.completion.logprobs, abs=1e-5)


def test_one_step_off_learns_from_what_the_weights_before_have_played(tmp_path: Path) -> None:
    config = small(tmp_path, "runtime=ray", "cluster={workers: 2, evaluators: 0, mode: one_step_off}")
    path = train(config, Silent())
    assert_nothing_lost_or_twice(path, config)
    ages = [(row["play/staleness_mean"], row["play/staleness_max"]) for row in read_metrics(path)]
    assert ages == [(0.0, 0.0)] + [(1.0, 1.0)] * 5


def test_played_ahead_no_token_is_older_than_may_be_and_every_step_has_its_own_matches(tmp_path: Path) -> None:
    settings = "cluster={workers: 2, evaluators: 0, mode: async, max_staleness: 2}"
    config = small(tmp_path, "runtime=ray", settings, "run.steps=12")
    path = train(config, Silent())
    assert_nothing_lost_or_twice(path, config)
    ages = [row["play/staleness_max"] for row in read_metrics(path)]
    assert max(ages) == 2
    assert all(row["learn/agent/loss"] == row["learn/agent/loss"] for row in read_metrics(path))


def test_a_learner_of_two_processes_learns_what_one_does_and_costs_no_more_when_one_is_killed(
    local: Path, tmp_path: Path
) -> None:
    observer, config = killing("LearnerProcess"), small(tmp_path, *ALONE, "policies.agent.learner.processes=2")
    path = train(config, observer)
    assert any("the learner of agent is lost" in told for told in observer.told)
    assert_nothing_lost_or_twice(path, config)
    one, two = read_metrics(local), read_metrics(path)
    for name in ("learn/agent/loss", "learn/agent/kl", "learn/agent/grad_norm"):
        assert one[0][name] == pytest.approx(two[0][name], rel=1e-3, abs=1e-6)
        assert one[1][name] == pytest.approx(two[1][name], rel=1e-2, abs=1e-5)


def test_an_evaluator_measures_what_the_learners_have(local: Path, tmp_path: Path) -> None:
    measured = ("evaluation.every=2", "evaluation.exploitability=true", "run.steps=2")
    here = train(small(tmp_path / "here", *measured), Silent())
    there = train(small(tmp_path / "there", *measured, "runtime=ray", "cluster.workers=1"), Silent())
    (one, two) = (read_metrics(path)[-1]["eval/exploitability"] for path in (here, there))
    assert one == pytest.approx(two, abs=1e-6)


def test_a_killed_worker_costs_nothing_but_time(local: Path, tmp_path: Path) -> None:
    observer, config = killing("WorkerProcess"), small(tmp_path, *ALONE)
    path = train(config, observer)
    assert sum("worker 0 is lost" in told for told in observer.told) == 1
    assert list(read_episodes(path)) == list(read_episodes(local))
    assert same_checkpoints(path, local, 6)


def test_a_worker_that_is_killed_in_the_middle_of_games_loses_none(tmp_path: Path) -> None:
    observer = killing("WorkerProcess")
    config = small(tmp_path, "runtime=ray", "cluster={workers: 2, evaluators: 0, mode: async}", "run.steps=12")
    path = train(config, observer)
    assert sum(" is lost" in told for told in observer.told) == 1
    assert_nothing_lost_or_twice(path, config)


def test_a_killed_engine_costs_nothing_but_time(tmp_path: Path) -> None:
    observer = killing("EngineProcess")
    config = small(tmp_path, "runtime=ray", "cluster={workers: 1, evaluators: 0, engines: 1, engine: {gpus: 0}}")
    path = train(config, observer)
    assert sum("worker 0 is lost" in told for told in observer.told) == 1
    assert_nothing_lost_or_twice(path, config)


def test_an_engine_elsewhere_can_be_looked_at_and_told_to_stop_as_one_here(local: Path) -> None:
    config = Run.config(local)
    process = ray.remote(EngineProcess).remote(config, local)
    engine, other = (SharedEngine(process, config, "agent") for _ in range(2))
    other._client = "other"
    prompt = tuple(range(10, 20))
    for ticket in range(3):
        engine.submit(Request(ticket=ticket, policy="agent", prompt=prompt, max_tokens=9, seed=ticket, temperature=0.0))
    assert engine.sampled(0) == ()
    engine.cancel(2)
    engine.poll()
    first = engine.sampled(0)
    assert len(first) == 1
    engine.cancel(1)
    other.submit(Request(ticket="x", policy="agent", prompt=prompt, max_tokens=9, seed=0, temperature=0.0))
    done: list[Any] = []
    while not done:  # the first is done while the other one asks
        done = other.poll()
    assert done[0][1].tokens[:1] == first
    engine.cancel(0)
    assert engine.poll() == []
    assert engine.best("agent", [(prompt, first)])[0][0][0] == first[0]
    ray.kill(process)


def test_a_killed_learner_costs_the_steps_since_the_checkpoint(local: Path, tmp_path: Path) -> None:
    observer, config = killing("LearnerProcess"), small(tmp_path, *ALONE)
    path = train(config, observer)
    assert any(re.match(r"the learner of agent is lost .* goes on from its last checkpoint", t) for t in observer.told)
    assert list(read_episodes(path)) == list(read_episodes(local))
    assert same_checkpoints(path, local, 6)


def test_a_killed_store_costs_the_steps_since_the_checkpoint(local: Path, tmp_path: Path) -> None:
    observer, config = killing("StoreProcess"), small(tmp_path, *ALONE, "store={kind: sqlite}")
    path = train(config, observer)
    assert any("the store is lost" in told for told in observer.told)
    assert list(read_episodes(path)) == list(read_episodes(local))
    assert_nothing_lost_or_twice(path, config)


def test_a_killed_driver_goes_on_bit_for_bit(cluster: Cluster, local: Path, tmp_path: Path) -> None:
    config = small(tmp_path, *ALONE, f"cluster.address={cluster.address}")
    file = tmp_path / "settings.yaml"
    file.write_text(to_yaml(config))
    command = [sys.executable, "-m", "marl_llm.cli", "train", str(file)]
    path = tmp_path / "small-seed0-1"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        wait_for_steps(process, path, 3)
        process.kill()
    train(config, Silent(), path=path, resume=True)
    assert list(read_episodes(path)) == list(read_episodes(local))
    assert same_checkpoints(path, local, 6)


def test_a_node_that_is_gone_takes_planner_and_worker_with_it_and_a_new_one_takes_over(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Two policies, each with a learner on a node of its own, that learn from a store at their own pace."""
    config = small(
        tmp_path,
        "runtime=ray",
        "cluster={workers: 2, evaluators: 0, worker: {resources: {far: 1}}, learners: {other: {resources: {far: 1}}}}",
        "policies.other={tiny: {hidden: 32, layers: 1, heads: 2, mlp: 64}, engine: {slots: 16}}",
        "policies.other.learner.groups=3",
        "matchmaking.seats={player_0: agent, player_1: other}",
        "store={}",
    )

    observer = After(lambda: lose_node(cluster))
    path = train(config, observer)
    assert any(" is lost" in told for told in observer.told)
    assert_nothing_lost_or_twice(path, config)
    assert sum(row["store/other/updates"] for row in read_metrics(path)) == 4


def test_a_stop_in_the_middle_of_a_step_is_soon_obeyed(tmp_path: Path) -> None:
    observer, wanted = Silent(), Event()
    config = small(tmp_path, *ALONE, "matchmaking.groups=20000", "run.steps=1")
    ended: list[float] = []

    def stop() -> bool:
        if "started at 0" in observer.told and wanted.is_set() and not ended:
            ended.append(monotonic())
        return wanted.is_set()

    alarm = Timer(15.0, wanted.set)
    alarm.start()
    path = train(config, observer, stop=stop)
    assert monotonic() - ended[0] < 10
    assert read_metrics(path) == []
    assert checkpoint_path(path, 0).is_dir()


def test_processes_of_a_learner_that_cannot_meet_since_the_port_is_taken_say_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = load_config(SMALL, ["runtime=ray", "policies.agent.learner.processes=2"])
        with pytest.raises(Lost, match=f"the processes of learner agent do not meet at {address}"):
            LearnerProcess().begin(config, "agent", None, address, 0)


def test_more_than_there_is_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 GPU are asked for \(2 workers: 2\), and the cluster has 0"):
        train(small(tmp_path, "runtime=ray", "cluster.worker.gpus=1"), Silent())
    with pytest.raises(ConfigError, match=r"1 fast are asked for \(learners: 1\), and the cluster has 0"):
        train(small(tmp_path, *ALONE, "cluster.learner.resources={fast: 1}"), Silent())
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_does_not_answer_is_refused_in_one_line(tmp_path: Path) -> None:
    config = small(tmp_path, *ALONE, "cluster.address=127.0.0.1:1")
    file = tmp_path / "settings.yaml"
    file.write_text(to_yaml(config))
    command = [sys.executable, "-m", "marl_llm.cli", "train", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "cluster.address: nothing answers at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_ray_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "marl_llm.runtime.ray", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'marl-llm\[ray\]'"):
        train(small(tmp_path, *ALONE), Silent())
