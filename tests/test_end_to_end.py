"""One real, small run of every variant that the settings offer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from safetensors.torch import load_file

from marl_llm.alarms import Alarm
from marl_llm.config import Config, load_config
from marl_llm.errors import GameError
from marl_llm.evaluation.measure import Evaluation, logged
from marl_llm.run import checkpoint_path, read_episodes, read_metrics
from marl_llm.team import found
from marl_llm.train import train
from marl_llm.types import Episode
from tests.tiny import dictated, saying

ROOT = Path(__file__).parents[1]
SMALL = ROOT / "tests" / "small.yaml"
UNMEASURED = ["evaluation.games=0", "evaluation.exploitability=false"]


@dataclass
class Losses:
    """An observer that keeps the losses of the warm-up."""

    warmup: list[float] = field(default_factory=list)

    def started(self, run: Path, config: Config, step: int) -> None: ...

    def warming_up(self, policy: str, step: int, steps: int, loss: float) -> None:
        self.warmup.append(loss)

    def evaluated(self, step: int, evaluation: Evaluation) -> None: ...

    def alarmed(self, step: int, alarm: Alarm) -> None: ...

    def stepped(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def noted(self, text: str) -> None: ...


def run(folder: Path, *overrides: str) -> Path:
    return train(load_config(SMALL, [f"run.dir={folder}", *overrides]), Losses())


def trained(path: Path, steps: int) -> bool:
    """Whether every step had a finite loss and the weights moved."""
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert all(row["learn/agent/loss"] is not None for row in rows)
    first, last = (load_file(checkpoint_path(path, step) / "agent/model.safetensors") for step in (0, steps))
    return any(not first[key].equal(last[key]) for key in first)


def learned_tokens(path: Path, step: int = 1) -> float | None:
    return read_metrics(path)[step - 1]["learn/agent/sampled_tokens"]


def sampled_tokens(episodes: list[Episode]) -> int:
    completions = [turn.completion for episode in episodes for turn in episode.turns]
    return sum(len(completion.tokens) for completion in completions if completion is not None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can play Kuhn poker: warmed up, not trained."""
    folder = tmp_path_factory.mktemp("warm")
    warm = ("policies.agent.warmup.steps=30", "policies.agent.warmup.lr=0.02", "run.steps=0")
    return checkpoint_path(run(folder, *UNMEASURED, *warm), 0) / "agent"


def test_a_dialogue_of_tic_tac_toe(tmp_path: Path) -> None:
    game = ["games.game.name=tic_tac_toe", "play.context=dialogue", "play.context_tokens=640"]
    warmup = ["policies.agent.warmup.teacher=random", "policies.agent.warmup.steps=30", "policies.agent.warmup.lr=0.02"]
    path = run(tmp_path, *game, *warmup, *UNMEASURED, "run.steps=2", "games.game.settings.on_illegal=default_action")
    assert trained(path, 2)
    episodes = list(read_episodes(path))
    assert {episode.status for episode in episodes} == {"done"}
    first = [episode for episode in episodes if episode.match.id.startswith("s1/")]
    assert learned_tokens(path) == sampled_tokens(first)
    for episode in episodes:
        assert len(episode.turns) >= 5
        read: dict[str, tuple[int, ...]] = {}
        for turn in episode.turns:
            assert turn.prompt is not None
            assert turn.completion is not None
            before = read.get(turn.agent, ())
            assert turn.prompt[: len(before)] == before
            read[turn.agent] = turn.prompt + turn.completion.tokens
    # A dialogue is one sequence per seat: its earlier turns are not repeated in front of the later ones.
    tokens = read_metrics(path)[0]["learn/agent/tokens"]
    longest = sum(
        max(len(t.prompt or ()) + len(t.completion.tokens) for t in e.turns if t.agent == agent and t.completion)
        for e in first
        for agent in e.returns
    )
    assert tokens == longest


def test_thinking_on_kuhn_poker(tmp_path: Path) -> None:
    thinking = ["play.thinking=true", "play.max_reply_tokens=12", "evaluation.samples=4", "evaluation.games=2"]
    path = run(tmp_path, *thinking, "play.context_tokens=224", "run.steps=2")
    assert trained(path, 2)
    for step in (0, 2):
        evaluation = logged(path, step)
        assert evaluation is not None
        assert evaluation.first.exploitability is not None
        assert evaluation.first.exploitability.samples == 4
        assert set(evaluation.first.opponents) == {"random", "start"}
    assert read_metrics(path)[1]["eval/exploitability"] is not None


def test_against_a_scripted_player_only_the_models_turns_are_trained(tmp_path: Path, model: Path) -> None:
    seats = ["matchmaking.seats={player_0: random, player_1: agent}", "evaluation.games=4"]
    path = run(tmp_path, *seats, f"policies.agent.model={model}", "policies.agent.warmup=null", "run.steps=2")
    assert trained(path, 2)
    episodes = list(read_episodes(path))
    for episode in episodes:
        assert {turn.policy for turn in episode.turns if turn.agent == "player_0"} == {"random"}
        assert all((turn.completion is None) == (turn.policy == "random") for turn in episode.turns)
    assert learned_tokens(path) == sampled_tokens([e for e in episodes if e.match.id.startswith("s1/")])
    evaluation = logged(path, 2)
    assert evaluation is not None
    assert evaluation.policy == "agent"
    assert evaluation.first.exploitability is not None


def test_a_policy_of_its_own_in_each_seat(tmp_path: Path, model: Path) -> None:
    white = f"policies.white={{model: {model}, engine: {{slots: 16, cache_slots: 8}}, learner: {{lr: 0.0}}}}"
    seats = "matchmaking.seats={player_0: agent, player_1: white}"
    begin = [f"policies.agent.model={model}", "policies.agent.warmup=null"]
    path = run(tmp_path, white, seats, *begin, *UNMEASURED, "run.steps=2")
    assert trained(path, 2)
    rows = read_metrics(path)
    assert all(row["learn/white/sampled_tokens"] > 0 for row in rows)  # type: ignore[operator]
    first, last = (load_file(checkpoint_path(path, step) / "white/model.safetensors") for step in (0, 2))
    assert all(first[key].equal(last[key]) for key in first)
    again = train(load_config(path / "config.yaml", []), Losses(), path=path, resume=True)
    assert read_metrics(again) == rows


def test_a_policy_of_another_run_as_opponent_in_swapped_seats(tmp_path: Path, model: Path) -> None:
    past = f"policies.past={{kind: checkpoint, options: {{path: '{model.parents[2]}', step: 0}}}}"
    seats = ["matchmaking.seats={player_0: past, player_1: agent}", "matchmaking.swap_seats=true"]
    begin = [f"policies.agent.model={model}", "policies.agent.warmup=null", "evaluation.opponents=[past]"]
    path = run(tmp_path, past, *seats, *begin, "evaluation.games=4", "run.steps=2")
    assert trained(path, 2)
    episodes = list(read_episodes(path))
    assert {turn.agent for episode in episodes for turn in episode.turns if turn.policy == "agent"} == {
        "player_0",
        "player_1",
    }
    mine = [turn for e in episodes if e.match.id.startswith("s1/") for turn in e.turns if turn.policy == "agent"]
    assert learned_tokens(path) == sum(len(turn.completion.tokens) for turn in mine if turn.completion is not None)
    evaluation = logged(path, 2)
    assert evaluation is not None
    assert set(evaluation.games["game"].opponents) == {"past"}


TALK = (
    "games={talk: {name: discussion, settings: {rounds: 1, agents: 3, tasks: {source: arithmetic, level: 1}}}}",
    "policies.informed={kind: informed, options: {accuracy: 0.6}}",
    "policies.agent.warmup={teacher: informed, games: 64, steps: 40, batch: 64, lr: 0.02}",
    "credit=comas_roles",
    "play.context_tokens=256",
    "play.probe=[scorer]",
    "play.rewards=marl_llm.credit.rewards:comas_expected",
    "run.checkpoint_every=1",
)


def test_agents_learn_from_the_scores_that_judges_expect(tmp_path: Path) -> None:
    looking = ["evaluation.team=true", "evaluation.opponents=[]", "evaluation.every=1", "evaluation.games_during=4"]
    path = run(tmp_path, *TALK, *UNMEASURED, *looking, "run.steps=2")
    assert trained(path, 2)
    config = load_config(path / "config.yaml", [])
    for step in (1, 2):
        played = [e for e in read_episodes(path) if e.match.id.startswith(f"s{step}/")]
        # The weights that a step's turns were sampled with are those before it.
        policy = found(config, checkpoint_path(path, step - 1), learn=False).members["agent"].policy
        scorers = [turn for episode in played for turn in episode.turns if turn.role == "scorer"]
        for turn, strategy in zip(scorers, policy.chances(scorers), strict=True):
            assert strategy is not None
            assert {f"p/{a}": p for a, p in strategy.actions.items()}.items() <= turn.probes.items()
        for episode in played:
            for judgement in episode.hidden["judgements"]:
                solution, evaluation, judge = (episode.turns[judgement[k]] for k in ("solution", "evaluation", "judge"))
                expected = sum(k * judge.probes[f"p/{k}"] for k in (1, 2, 3))
                assert solution.rewards["solution"] == pytest.approx((expected - 1) / 2)
                assert evaluation.rewards["evaluation"] == pytest.approx((3 - expected) / 2)
    for row in read_metrics(path):
        cost = {name: row[f"play/policy_cost/agent/{name}"] for name in ("tokens", "prompt_tokens", "seconds")}
        roles = ("solver", "evaluator", "scorer")
        for name, whole in cost.items():
            assert sum(row[f"play/cost/{role}/{name}"] for role in roles) == pytest.approx(whole)  # type: ignore[misc]
        assert cost["tokens"] == row["play/sampled_tokens"]
        assert 0 < cost["seconds"] < row["time/play_s"]  # type: ignore[operator]
        assert all(f"play/cost/{role}/reward_per_1k" in row for role in roles)
        for fact in ("correct", "score_readable", "score_mean"):
            assert {f"play/fact/{fact}", f"eval/team/fact/{fact}"} <= row.keys()


def test_expected_scores_without_probes_stop_the_run_by_name(tmp_path: Path) -> None:
    with pytest.raises(GameError, match=r"play.rewards: raised ConfigError: .* play.probe must name 'scorer' "):
        run(tmp_path, *TALK, *UNMEASURED, "run.steps=1", "play.probe=[]", "policies.agent.warmup=null")


def test_solvers_learn_from_what_is_proposed(tmp_path: Path) -> None:
    tasks = tmp_path / "sums.jsonl"
    tasks.write_text("".join(f'{{"prompt": "What is {sum}?", "answer": "7"}}\n' for sum in ("3 + 4", "5 + 2")))
    dictated(saying({"7": 0.5, "8": 0.5}), "proposer_solver").save(tmp_path / "model")
    path = run(
        tmp_path,
        "games.game.name=proposer_solver",
        f"games.game.settings.tasks.source={tasks}",
        f"policies.agent.model={tmp_path / 'model'}",
        "policies.agent.warmup=null",
        "policies.informed={kind: informed, options: {accuracy: 1.0}}",
        "matchmaking.seats={proposer_0: informed, 'solver_*': agent}",
        "matchmaking.groups=4",
        "credit=pasodoble",
        *UNMEASURED,
        "run.steps=1",
    )
    assert trained(path, 1)
    assert learned_tokens(path) == sampled_tokens(list(read_episodes(path))) > 0
