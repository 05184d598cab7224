"""Training against an endpoint that fails: what is left of its games, and when training stops."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marl_llm.config import Config, load_config
from marl_llm.credit.recipe import credit, load_recipe
from marl_llm.errors import RunError
from marl_llm.evaluation.measure import evaluate, measure_exploitability
from marl_llm.evaluation.tournament import head_to_head
from marl_llm.league import League
from marl_llm.matchmaking import schedule
from marl_llm.metrics import play_metrics
from marl_llm.policies.base import Reply, Strategy, View
from marl_llm.policies.remote import RemotePolicy
from marl_llm.policies.scripted import make_scripted
from marl_llm.run import list_checkpoints, read_episodes, read_metrics
from marl_llm.runtime.rollouts import LocalRollouts
from marl_llm.team import found
from marl_llm.train import Progress, advance, train
from tests.endpoint import Answer, saying
from tests.test_train import SMALL, Silent

CHECK = saying("<answer>check</answer>")
DOWN: Answer = (503, b"")


def against(url: str, folder: Path, *overrides: str) -> Config:
    """Two steps of eight games in which a remote model moves first."""
    far = f"policies.far={{kind: remote, options: {{url: '{url}', model: m, retries: 0}}}}"
    seats = "matchmaking.seats={player_0: far, player_1: agent}"
    options = [f"run.dir={folder}", "run.steps=2", "run.checkpoint_every=1", "evaluation.games=0", far, seats]
    return load_config(SMALL, [*options, *overrides])


def test_training_goes_on_without_the_games_that_ended_at_fault(serve: Any, tmp_path: Path) -> None:
    endpoint = serve(lambda number: DOWN if number % 4 == 1 else CHECK)
    path = train(against(endpoint.url, tmp_path, "play.max_faults=0.5"), Silent())
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == [1, 2]
    for step, row in enumerate(rows, start=1):
        episodes = [e for e in read_episodes(path) if e.match.id.startswith(f"s{step}/")]
        sound = [e for e in episodes if e.status != "fault"]
        assert row["play/faults"] == len(episodes) - len(sound) > 0
        for name, value in play_metrics(sound).items():
            assert row[name] == (value if name != "play/faults" else 8 - len(sound)), name
        sampled = [t.completion for e in sound for t in e.turns if t.completion is not None]
        assert row["learn/agent/sampled_tokens"] == sum(len(completion.tokens) for completion in sampled)
        recipe = load_recipe("grpo")
        both = (credit(games, recipe).advantages.tolist() for games in (episodes, sound))
        assert next(both) == next(both)


def test_the_first_fault_stops_training_if_it_is_told_to(serve: Any, tmp_path: Path) -> None:
    endpoint = serve(lambda number: DOWN if number == 20 else CHECK)
    config = against(endpoint.url, tmp_path, "play.on_fault=stop", "run.steps=9")
    with pytest.raises(RunError, match=r"ended at fault, and play.on_fault is stop: far: http.*answered 503 Serv"):
        train(config, Silent(), path=tmp_path / "run")


def test_too_many_faults_stop_training_and_it_goes_on_once_the_endpoint_does(serve: Any, tmp_path: Path) -> None:
    broken = [False]
    endpoint = serve(lambda number: DOWN if broken[0] else CHECK)
    observer, path = Silent(), tmp_path / "run"

    def break_after_the_first_step() -> bool:
        broken[0] = observer.told[-1] == "step 1"
        return False

    config = against(endpoint.url, tmp_path)
    with pytest.raises(RunError, match=r"^1 of 8 episodes ended at fault, more than play.max_faults \(0.1\) allows"):
        train(config, observer, path=path, stop=break_after_the_first_step)
    assert [step for step, _ in list_checkpoints(path / "checkpoints")] == [0, 1]
    assert [row["step"] for row in read_metrics(path)] == [1]
    broken[0] = False
    train(config, Silent(), path=path, resume=True)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


class Down:
    """Plays at random, but not in matches whose id has this in it."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._inner = make_scripted("random", {})
        self._down: list[tuple[Hashable, Reply]] = []

    def submit(self, ticket: Hashable, view: View) -> None:
        if self._where in view.match:
            self._down.append((ticket, Reply(text="", action=None, fault="gone")))
        else:
            self._inner.submit(ticket, view)

    def poll(self) -> list[tuple[Hashable, Reply]]:
        down, self._down = self._down, []
        return [*self._inner.poll(), *down]

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        return self._inner.strategies(views)


@pytest.mark.parametrize(
    ("limit", "message"),
    [("play.on_fault=stop", "play.on_fault is stop: far: gone"), ("play.max_faults=0.4", "7 of 16 episodes")],
)
def test_a_fork_that_ends_at_fault_counts_as_any_episode(tmp_path: Path, limit: str, message: str) -> None:
    """The first turn is played; the second is far's, and tried once more in a fork of each of eight games."""
    seats = "matchmaking.seats={player_0: random, player_1: far}"
    far = "policies.far={kind: random}"
    config = load_config(SMALL, [f"run.dir={tmp_path}", "play.tree={width: 2, turns: 1}", limit, seats, far])
    team = found(config)
    team = replace(team, policies={**team.policies, "far": Down("/t")})
    with pytest.raises(RunError, match=message):
        advance(config, team, load_recipe("grpo"), LocalRollouts(config, team), Progress(step=0, credit={}))


def test_a_limit_is_a_share_of_all_that_a_step_has_begun(tmp_path: Path) -> None:
    seats = "matchmaking={groups: 3, group_size: 2, seats: {player_0: random, player_1: far}}"
    config = load_config(SMALL, [f"run.dir={tmp_path}", seats, "play.max_faults=0.4", "policies.far={kind: random}"])
    team = found(config)
    rollouts = LocalRollouts(config, replace(team, policies={**team.policies, "far": Down("/g2/")}))

    def play(step: int, *numbers: int) -> int:
        agents = {"game": ["player_0", "player_1"]}
        matches = schedule(config, step, {"game": 1.0}, agents, League())
        rollouts.begin(step, [match for match in matches if match.group in {f"s{step}/g{n}" for n in numbers}])
        return len(rollouts.finish(step, lambda: False).episodes)

    assert (play(1, 0, 1), play(1, 2)) == (4, 2), "2 of 6"
    with pytest.raises(RunError, match=r"[12] of 2 episodes ended at fault"):
        play(2, 2)


def test_a_limit_is_a_share_of_the_steps_games(serve: Any, tmp_path: Path) -> None:
    endpoint = serve(lambda number: DOWN if number < 4 else CHECK)
    train(against(endpoint.url, tmp_path, "play.max_faults=0.5", "run.steps=1"), Silent())
    endpoint = serve(lambda number: DOWN if number < 5 else CHECK)
    with pytest.raises(RunError, match="5 of 8 episodes ended at fault"):
        train(against(endpoint.url, tmp_path, "play.max_faults=0.5", "run.steps=1"), Silent())


def test_games_at_fault_are_in_no_score(serve: Any) -> None:
    endpoint = serve(lambda number: DOWN if number < 3 else CHECK)
    config = load_config(SMALL)
    players = {"random": make_scripted("random", {}), "far": RemotePolicy(endpoint.url, "m", retries=0)}
    scores = head_to_head(config.games["game"], players, "random", "far", num_games=10, seed=0)
    assert scores["player_0"].games + scores["player_1"].games == 17
    dead = serve(lambda number: DOWN)
    players["far"] = RemotePolicy(dead.url, "m", retries=0)
    with pytest.raises(RunError, match=r"random against far: every game as player_0 ended at fault: far: http.*503"):
        head_to_head(config.games["game"], {**players}, "random", "far", num_games=2, seed=3)


def test_where_probabilities_are_not_told_there_is_no_exploitability(serve: Any, tmp_path: Path) -> None:
    config = against(serve(lambda number: CHECK).url, tmp_path)
    team = found(config, learn=False)
    assert measure_exploitability(config, "game", team.policies) is None
    assert evaluate(config, team.policies, tmp_path).games["game"].exploitability is None
