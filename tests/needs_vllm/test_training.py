"""Whole runs in which vLLM plays."""

import gc
from pathlib import Path

from marl_llm.config import Config, load_config
from marl_llm.credit.recipe import load_recipe
from marl_llm.engines.share import Share
from marl_llm.run import read_metrics
from marl_llm.runtime.rollouts import LocalRollouts
from marl_llm.team import found
from marl_llm.train import Progress, advance, train
from marl_llm.warmup import warm_up
from tests.engines.contract import plain_logprobs
from tests.test_train import SMALL, Silent, without_time

WITH_VLLM = (
    "policies.agent.engine.kind=vllm",
    # Heads of 32: vLLM's attention on a CPU has no narrower ones.
    "policies.agent.tiny={hidden: 64, layers: 1, heads: 2, mlp: 64, vocabulary: 400}",
    "run.steps=3",
    "evaluation={every: 3, games: 4, opponents: [random]}",
)
MODEL = "tiny: {hidden: 64, layers: 1, heads: 2, mlp: 64, vocabulary: 400}, engine: {kind: vllm, slots: 16}"


def small(folder: Path, *overrides: str) -> Config:
    return load_config(SMALL, [f"run.dir={folder}", *WITH_VLLM, *overrides])


def test_kuhn_is_played_and_learned_and_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        path = train(small(tmp_path / name), Silent())
        gc.collect()
        runs.append(without_time(read_metrics(path)))
    assert runs[0] == runs[1]
    assert all(row["learn/agent/gap_max"] < 1e-4 for row in runs[0]), "engine and learner say the same"
    assert len({row["learn/agent/loss"] for row in runs[0]}) == 3
    assert 0 < runs[0][-1]["eval/exploitability"] < 1


def test_a_team_of_adapters_is_one_vllm_and_learns(tmp_path: Path) -> None:
    black = "black: {base: planner, lora: {rank: 4}, engine: {kind: vllm, slots: 16}, learner: {lr: 0.01}}"
    white = black.replace("black", "white").replace("rank: 4", "rank: 2, targets: [q_proj, v_proj]")
    planner = (
        f"planner: {{trainable: false, {MODEL}, warmup: {{teacher: noisy, games: 64, steps: 60, batch: 64, lr: 0.02}}}}"
    )
    config = load_config(
        SMALL,
        [
            f"run.dir={tmp_path}",
            f"policies={{noisy: {{kind: noisy}}, {black}, {white}, {planner}}}",
            "matchmaking.seats={player_0: black, player_1: white}",
            "evaluation.opponents=[]",
        ],
    )
    team = found(config)
    engines = [member.policy.engine for member in team.members.values()]
    assert len({id(engine.engine) for engine in engines if isinstance(engine, Share)}) == 1
    assert len(engines) == 3
    assert warm_up(config, team, lambda *_: None)
    for step in (0, 1):
        metrics, _ = advance(
            config, team, load_recipe("mars"), LocalRollouts(config, team), Progress(step=step, credit={})
        )
        for name in ("black", "white"):
            assert metrics[f"learn/{name}/gap_max"] < 1e-4
    team.publish()
    prompt, reply = (1, 2, 3, 4), (5, 6)
    said = {}
    for name, member in team.members.items():
        (said[name],) = member.policy.engine.score(name, [(prompt, reply)])
        expected = plain_logprobs(member.language_model.model, prompt, reply)
        assert max(abs(a - b) for a, b in zip(said[name], expected)) < 1e-4
    assert len(set(said.values())) == 3
