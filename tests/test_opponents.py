"""A league in real runs: snapshots are kept and met, exploiters begin anew, and a resumed run is the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from marl_llm.config import Config, load_config
from marl_llm.league import League
from marl_llm.models import load_model
from marl_llm.opponents import Opponents, enlist
from marl_llm.policies.base import Strategy
from marl_llm.policies.llm import LLMPolicy
from marl_llm.run import Run, checkpoint_path, checkpoint_values, list_checkpoints, read_episodes, read_metrics
from marl_llm.team import found
from marl_llm.train import train
from tests.test_train import SMALL, STATE, Silent, without_time
from tests.tiny import dictated, first_view, saying

SPOILER = (
    "policies.spoiler={tiny: {hidden: 32, layers: 1, heads: 2, mlp: 64, vocabulary: 400}, learner: {lr: 0.01},"
    " engine: {slots: 16, cache_slots: 8}, objective: {kl: {reference: ema, coef: 0.1}}}"
)
LEAGUE = "matchmaking.league={every: 2, keep: 2, members: [random], exploiters: {spoiler: {reset_every: 3}}}"


def league(folder: Path, *overrides: str) -> Config:
    """Six steps of eight groups: two mirror, four against the pool, two of the exploiter."""
    options = ["matchmaking.groups=8", "evaluation.games=0", "evaluation.exploitability=false", SPOILER, LEAGUE]
    return load_config(SMALL, [f"run.dir={folder}", *options, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(league(tmp_path_factory.mktemp("runs")), Silent())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(one[key].equal(two[key]) for key in one)


def test_snapshots_are_the_policies_as_they_were_and_all_stay_on_disk(finished: Path) -> None:
    names = sorted(folder.name for folder in (finished / "league").iterdir())
    assert names == ["agent@0", "agent@2", "agent@4", "agent@6", "spoiler@3", "spoiler@6"]
    for step in (0, 4, 6):
        assert same(weights(finished / "league" / f"agent@{step}"), weights(checkpoint_path(finished, step) / "agent"))
    load_model(finished / "league" / "spoiler@3")
    league = League.from_json(checkpoint_values(checkpoint_path(finished, 6))["league"])
    assert len(league.snapshots) == 2
    assert league.snapshots[-1] == "spoiler@6"


def test_everybody_meets_whom_the_settings_say(finished: Path) -> None:
    met: dict[int, list[set[str]]] = {}
    for episode in read_episodes(finished):
        step, group, _ = (int(part[1:]) for part in episode.match.id.split("/"))
        names = {turn.policy for turn in episode.turns} | set(episode.match.seats.values())
        met.setdefault(group, []).append(names)
        assert not any("@" in name and int(name.partition("@")[2]) >= step for name in names)
    pool = [names for group in (2, 3, 4, 5) for names in met[group]]
    assert all(names == {"agent"} for names in met[0] + met[1])
    assert all("agent" in names and "spoiler" not in names and len(names) == 2 for names in pool)
    assert all(names == {"agent", "spoiler"} for names in met[6] + met[7])
    assert len(set().union(*pool)) > 2


def test_metrics_tell_how_the_trained_policy_fares(finished: Path) -> None:
    last = read_metrics(finished)[-1]
    league = League.from_json(checkpoint_values(checkpoint_path(finished, 6))["league"])
    assert last["league/win_rate/spoiler"] is not None
    assert last["league/rating/agent"] == league.ratings["agent"].mu
    for name, record in league.records["agent"].items():
        assert last[f"league/win_rate/{name}"] == record.won / record.played
    assert "spoiler" not in league.records["agent"], "the spoiler that was met has left at step 6"


def test_an_exploiter_begins_anew_once_its_snapshot_has_joined(finished: Path) -> None:
    first = weights(checkpoint_path(finished, 0) / "spoiler")
    assert same(weights(checkpoint_path(finished, 6) / "spoiler"), first)
    assert not same(weights(checkpoint_path(finished, 4) / "spoiler"), first)
    assert not same(weights(finished / "league" / "spoiler@6"), first)


@pytest.mark.parametrize("at", [2, 3])
def test_a_resumed_league_goes_on_bit_for_bit(finished: Path, tmp_path: Path, at: int) -> None:
    """After step 3, where stopping leaves a checkpoint, the exploiter begins anew."""
    config, observer = league(tmp_path), Silent()
    path = train(config, observer, stop=lambda: observer.told[-1] == f"step {at}")
    assert [step for step, _ in list_checkpoints(path / "checkpoints")][-1] == at
    train(config, Silent(), path=path, resume=True)
    assert played(path) == played(finished)
    for step in (4, 6):
        assert_same_checkpoint(path, finished, step)
    for folder in (finished / "league").iterdir():
        assert same(weights(folder), weights(path / "league" / folder.name))


def test_a_killed_league_forgets_snapshots_that_no_checkpoint_knows(finished: Path, tmp_path: Path) -> None:
    config, observer = league(tmp_path, "run.checkpoint_every=4"), Silent()

    def killed() -> bool:
        if observer.told[-1] == "step 3":
            raise KeyboardInterrupt
        return False

    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(config, observer, path=path, stop=killed)
    assert {folder.name for folder in (path / "league").iterdir()} == {"agent@0", "agent@2", "spoiler@3"}
    with Run.open(path) as run:
        run.rewind(0)
    assert {folder.name for folder in (path / "league").iterdir()} == {"agent@0"}
    train(config, Silent(), path=path, resume=True)
    assert played(path) == played(finished)
    assert_same_checkpoint(path, finished, 6)


def played(path: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    rows = without_time([{k: v for k, v in row.items() if k != "learn/spoiler/model_s"} for row in read_metrics(path)])
    return rows, list(read_episodes(path))


def assert_same_checkpoint(one: Path, two: Path, step: int) -> None:
    first, second = checkpoint_path(one, step), checkpoint_path(two, step)
    assert checkpoint_values(first) == checkpoint_values(second)
    parts = ("/model.safetensors", f"-learner/{STATE}")
    for file in (f"{name}{part}" for name in ("agent", "spoiler") for part in parts):
        assert same(load_file(first / file), load_file(second / file)), file


def test_engines_are_few_and_get_the_weights_of_whoever_is_met(tmp_path: Path) -> None:
    config = league(tmp_path)
    actions = {"agent@0": "check", "agent@2": "bet", "agent@4": "check"}
    with Run.create(config) as run:
        run.rewind(None)
        for name, action in actions.items():
            step = int(name.partition("@")[2])
            assert run.snapshot("agent", step, dictated(saying({action: 1.0})).save) == name
        opponents = Opponents(config, run.path)
        assert opponents.seat(()) == {}
        engines = set()
        for names in (["agent@0"], ["agent@2", "agent@0"], ["agent@4", "agent@2"], ["agent@2"]):
            seated = opponents.seat(names)
            assert seated.keys() == set(names)
            for name, policy in seated.items():
                assert isinstance(policy, LLMPolicy)
                engines.add(id(policy.engine))
                (strategy,) = policy.strategies([first_view()])
                assert isinstance(strategy, Strategy)
                assert strategy.actions[actions[name]] == pytest.approx(1.0, abs=1e-6)
        assert len(engines) == 2


def test_without_a_league_nobody_is_enlisted(tmp_path: Path) -> None:
    config = load_config(SMALL, [f"run.dir={tmp_path}"])
    with Run.create(config) as run:
        run.rewind(None)
        assert enlist(config, run, found(config, learn=False), League(), 0) == League()
        assert not (run.path / "league").exists()
