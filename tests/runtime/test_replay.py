"""Good turns of earlier steps: which are kept, when they come again, what they count, and how a run goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_llm.config import Config, ObjectiveConfig, ReplayConfig, load_config
from marl_llm.credit.load import load_recipe
from marl_llm.errors import ConfigError
from marl_llm.learning.learner import Learner
from marl_llm.run import checkpoint_path, checkpoint_values, read_metrics
from marl_llm.runtime.replay import (
    REPLAYED,
    Replays,
    keep,
    replay_weight,
    replayed,
    replays_from,
    replays_values,
    subset_size,
    write_replays,
)
from marl_llm.train import train
from marl_llm.types import Completion, Episode, Match, Sample, Turn
from tests.credit.cases import cases
from tests.learning.small import make_qwen3
from tests.learning.test_learner import copy_weights, gradients, make_learner, make_samples, same
from tests.test_train import Silent, same_checkpoints, small, without_time

QUIET = ("evaluation.games=0", "evaluation.every=0", "evaluation.exploitability=false")


@cases("spear_replay_weight")
def test_the_weight_rises_by_half_a_cosine_and_stays(case: Any) -> None:
    inputs = case["inputs"]
    weight = replay_weight(inputs["step"], rise=inputs["total"], coef=inputs["coef"])
    assert weight == pytest.approx(case["outputs"]["weight"], abs=1e-9)


@cases("spear_subset_size")
def test_a_power_of_two_is_learned_from(case: Any) -> None:
    assert subset_size(case["inputs"]["n"], case["inputs"]["buffer"]) == case["outputs"]["size"]


def test_the_settings_are_those_of_spear_and_the_recipe_asks_for_them() -> None:
    assert ReplayConfig() == ReplayConfig(size=2048, trigger=1.5, steps=5, coef=1.0, rise=200)
    assert {"spear_replay_weight", "spear_subset_size"} <= set(load_recipe("spear").checked)


# --- by hand -----------------------------------------------------------------------------------------------------


def told(key: str, group: str, reward: float) -> Episode:
    """One turn of `agent`, with one sampled token."""
    turn = Turn(
        agent="a",
        role="r",
        policy="agent",
        observation="",
        prompt=(1, 2),
        completion=Completion(tokens=(3,), logprobs=(-1.5,), stop="eos", versions=(0,)),
        reply="",
        action="x",
        legal=True,
        rewards={"outcome": reward},
    )
    match = Match(id=key, game="g", seed=0, group=group, seats={"a": "agent"})
    return Episode(match=match, turns=(turn,), returns={"a": reward})


def begun(folder: Path, settings: str) -> tuple[Config, Replays, Learner]:
    return small(folder, f"policies.agent.learner.replay={settings}"), Replays(), make_learner(make_qwen3())


def step(
    config: Config, replays: Replays, learner: Learner, name: str, rewards: list[float]
) -> tuple[list[Sample], dict[str, float]]:
    """One training step on a group with these rewards, centred: what is learned from again, and what is told."""
    trainers = {"agent": learner}
    episodes = [told(f"{name}/{number}", name, reward) for number, reward in enumerate(rewards)]
    mean = sum(rewards) / len(rewards)
    advantages = {(episode.match.id, 0): episode.returns["a"] - mean for episode in episodes}
    again = replayed(config, replays, trainers, episodes)
    learner.version += 1
    metrics = keep(config, replays, trainers, episodes, advantages, {}, again)
    return again.get("agent", []), {key.removeprefix("learn/agent/replay_"): value for key, value in metrics.items()}


def test_what_is_above_the_median_of_earlier_groups_comes_again_once(tmp_path: Path) -> None:
    config, replays, learner = begun(tmp_path, "{size: 3, trigger: 1.0, rise: 6}")
    assert step(config, replays, learner, "first", [0.0, 0.2, 1.0])[0] == []  # mean 0.4: one is above it
    assert step(config, replays, learner, "second", [0.0, 0.5, 0.7, 0.8])[0] == []  # 0.5: two
    again, metrics = step(config, replays, learner, "third", [0.0, 0.0, 0.0, 2.4])  # 0.6: one
    assert again == [], "three are not more than three"
    assert metrics == {"kept": 4, "samples": 0}
    again, metrics = step(config, replays, learner, "fourth", [0.0, 4.0])
    assert len(again) == 2
    worth = {"first/2": 0.5, "second/2": 0.2, "second/3": 0.3, "third/3": 1.9}  # less the median of the means, 0.5
    for sample in again:
        (span,) = sample.spans
        assert span.advantages == pytest.approx((worth[sample.episode],))
        assert span.logprobs == (-1.5,)
        assert span.weight == pytest.approx(0.5)  # halfway: 3 of 6 updates
    assert metrics == {
        "kept": 1,  # the fourth step's own
        "samples": 2,
        "weight": pytest.approx(0.5),
        "advantage": pytest.approx(sum(worth[sample.episode] for sample in again) / 2),
    }


def test_what_is_not_enough_waits_until_it_is_too_old(tmp_path: Path) -> None:
    config, replays, learner = begun(tmp_path, "{size: 1, trigger: 0.5, steps: 2}")
    step(config, replays, learner, "poor", [0.0, 1.0])
    (again,), _ = step(config, replays, learner, "rich", [3.0, 3.0])
    assert again.episode == "poor/1"
    config, replays, learner = begun(tmp_path, "{size: 1, trigger: 1.5, steps: 2}")
    step(config, replays, learner, "poor", [0.0, 1.0])
    assert step(config, replays, learner, "rich", [3.0, 3.0]) == ([], {"kept": 1, "samples": 0})
    assert step(config, replays, learner, "richer", [3.0, 3.0]) == ([], {"kept": 0, "samples": 0})


def test_what_has_fallen_below_the_median_does_not_come_again(tmp_path: Path) -> None:
    config, replays, learner = begun(tmp_path, "{size: 1, trigger: 0.5}")
    step(config, replays, learner, "poor", [0.0, 1.0])
    replays.means = {"median_history": dict.fromkeys(replays.means["median_history"], 3.0)}
    assert step(config, replays, learner, "now", [0.0])[0] == []


def test_draws_go_by_seed_and_version(tmp_path: Path) -> None:
    def drawn(seed: int, version: int) -> list[str]:
        config, replays, learner = begun(tmp_path, "{size: 8, trigger: 1.0}")
        config = replace(config, run=replace(config.run, seed=seed))
        learner.version = version
        step(config, replays, learner, "first", [0.0] * 12 + [1.0] * 12)
        return [sample.episode for sample in step(config, replays, learner, "second", [0.0])[0]]

    assert len(set(drawn(0, 1))) == 8
    assert drawn(0, 1) == drawn(0, 1)
    assert drawn(0, 1) != drawn(1, 1)
    assert drawn(0, 1) != drawn(0, 2)


def test_who_did_not_play_keeps_what_waits(tmp_path: Path) -> None:
    config, replays, learner = begun(tmp_path, "{size: 1, trigger: 0.5}")
    step(config, replays, learner, "first", [0.0, 1.0])
    assert replayed(config, replays, {"agent": learner}, []) == {}
    assert len(replays.kept["agent"]) == 1


def test_what_is_kept_is_the_same_when_it_is_read_back(tmp_path: Path) -> None:
    config, replays, learner = begun(tmp_path, "{}")
    step(config, replays, learner, "first", [0.0, 0.1, 1 / 3])
    write_replays(replays, tmp_path)
    assert replays_from(replays_values(replays), tmp_path) == replays


# --- the loss ----------------------------------------------------------------------------------------------------


def renamed(samples: list[Sample], weight: float) -> list[Sample]:
    """As samples of an earlier step."""
    spans = [tuple(replace(span, weight=weight) for span in sample.spans) for sample in samples]
    return [replace(s, episode=f"old {s.episode}", spans=part) for s, part in zip(samples, spans, strict=True)]


@pytest.mark.parametrize("aggregation", ["token", "sequence", "turn", "constant", "nested"])
def test_the_loss_is_that_of_the_new_samples_plus_that_of_the_old_ones(aggregation: Any) -> None:
    objective = ObjectiveConfig(aggregation=aggregation, importance_cap=None)
    new, old = make_samples(0, episodes=3), renamed(make_samples(1, episodes=8), 0.25)
    losses, parts = [], []
    for samples, again in ((new, []), (old, []), (new, old)):
        learner = make_learner(make_qwen3(), objective, grad_clip=1e9)
        metrics = learner.update(samples, again)
        losses.append(metrics["loss"])
        parts.append(gradients(learner))
        assert metrics["sampled_tokens"] == 3 * len([*samples, *again])
    assert losses[2] == pytest.approx(losses[0] + losses[1], rel=1e-5)
    for first, second, both in zip(*parts, strict=True):
        torch.testing.assert_close(both, first + second, rtol=1e-4, atol=1e-6)


def test_each_minibatch_has_its_part_and_that_of_the_new_samples_is_as_without_old_ones() -> None:
    learner = make_learner(make_qwen3(), epochs=2, minibatches=3)
    new, old = make_samples(0, episodes=5), renamed(make_samples(1, episodes=7), 1.0)
    without, with_old = learner._minibatches(new, 10), learner._minibatches([*new, *old], 10)
    assert [[index for index in part if index < 10] for part in with_old] == without
    for epoch in (with_old[:3], with_old[3:]):
        assert sorted(index for part in epoch for index in part) == list(range(24))
        assert [len([index for index in part if index >= 10]) for part in epoch] == [6, 4, 4]
    few = learner._minibatches([*new, *old[:2]], 10)
    assert [len(part) for part in few] == [6, 4, 2] * 2
    metrics = learner.update(new, old)
    assert metrics["sampled_tokens"] == 3 * 24


# --- runs --------------------------------------------------------------------------------------------------------


def by_tokens(episode: Episode) -> dict[int, dict[str, float]]:
    """A reward that even a model that knows no rule gets now and then."""
    sampled = [turn.completion.tokens if turn.completion else () for turn in episode.turns]
    return {index: {"tokens": float(sum(tokens) % 7)} for index, tokens in enumerate(sampled)}


REPLAY = (
    "policies.agent.learner.replay={size: 4, trigger: 1.5, rise: 2}",
    "play.rewards=tests.runtime.test_replay:by_tokens",
    "credit=spear",
    "policies.agent.warmup=null",
    "run.steps=4",
    *QUIET,
)


def test_a_run_that_learns_again_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = ("policies.agent.learner={lr: 0.002, minibatches: 2, epochs: 2}", *REPLAY)
    whole = train(small(tmp_path / "whole", *settings), Silent())
    rows = read_metrics(whole)
    samples = [row["learn/agent/replay_samples"] for row in rows]
    assert samples[0] == 0
    assert 4 in samples[2:], "something comes again after the interruption"
    assert rows[0]["learn/agent/replay_kept"] > 0
    observer = Silent()
    path = train(small(tmp_path / "parts", *settings), observer, stop=lambda: observer.told[-1] == "step 2")
    checkpoint = checkpoint_path(path, 2)
    assert len(replays_from(checkpoint_values(checkpoint)["replays"], checkpoint).kept["agent"]) > 0
    train(small(tmp_path / "parts", *settings), Silent(), path=path, resume=True)
    assert without_time(read_metrics(path)) == without_time(rows)
    assert same_checkpoints(path, whole, 4)


def test_who_does_not_learn_again_keeps_nothing(tmp_path: Path) -> None:
    path = train(small(tmp_path, *QUIET, "run.steps=1"), Silent())
    checkpoint = checkpoint_path(path, 1)
    assert not (checkpoint / REPLAYED).exists()
    assert "replays" not in checkpoint_values(checkpoint)
    assert not [key for row in read_metrics(path) for key in row if "/replay_" in key]


def test_to_learn_again_moves_the_weights() -> None:
    one, two = make_learner(make_qwen3()), make_learner(make_qwen3())
    one.update(make_samples(0))
    two.update(make_samples(0), renamed(make_samples(1), 1.0))
    assert not same(copy_weights(one), copy_weights(two))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policies.agent.learner.replay={size: 0}"], r"learner\.replay\.size: 0 .* 1 or more"),
        (["policies.agent.learner.replay={rise: 0}"], r"learner\.replay\.rise: 0 .* 1 or more"),
        (["policies.agent.learner.replay={trigger: 0}"], r"learner\.replay\.trigger: 0\.0 .* more than 0"),
        (["policies.agent.learner.replay={coef: 0}"], r"learner\.replay\.coef: 0\.0 .* more than 0"),
        (["policies.agent.learner.replay={steps: 11}"], r"learner\.replay\.steps: 11 .* from 1 to 10"),
        (["policies.agent.learner.replay={}", "store={}"], r"policies\.agent\.learner\.replay: .* there is a store"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(tmp_path, *overrides)


@pytest.mark.parametrize("section", ["{preference: {}, kl: {reference: frozen}}", "{discriminate: {}}"])
def test_who_compares_replies_learns_nothing_again(tmp_path: Path, section: str) -> None:
    learner = "policies.agent.learner={minibatches: 1, replay: {}}"
    with pytest.raises(ConfigError, match=r"learner\.replay: .* objective\.preference or discriminate"):
        small(tmp_path, learner, f"policies.agent.objective={section}")


def test_an_exploiter_learns_nothing_again() -> None:
    replay = "policies.exploiter.learner.replay={}"
    with pytest.raises(ConfigError, match=r"policies\.exploiter\.learner\.replay: .* null in an exploiter"):
        load_config(Path(__file__).parents[2] / "configs" / "rps_league.yaml", [replay])
