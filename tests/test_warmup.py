"""Imitation: what the samples hold, and that an untrained model learns to read the table and to answer."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from marl_llm.config import (
    Config,
    EngineConfig,
    LearnerConfig,
    MatchmakingConfig,
    PlayConfig,
    PlayedGame,
    PolicyConfig,
    WarmupConfig,
)
from marl_llm.errors import ConfigError
from marl_llm.evaluation.measure import measure_exploitability
from marl_llm.policies.scripted import make_scripted
from marl_llm.team import found
from marl_llm.text import canonical_reply
from marl_llm.types import Sample
from marl_llm.warmup import chances, demonstrations, warm_up
from tests.tiny import TINY, seated, untrained

WARMUP = WarmupConfig(teacher="noisy", games=64, steps=40, batch=32, lr=0.02)
CONFIG = Config(
    play=PlayConfig(max_reply_tokens=8, context_tokens=192),
    policies={
        "agent": PolicyConfig(
            tiny=TINY, warmup=WARMUP, engine=EngineConfig(slots=16, cache_slots=4), learner=LearnerConfig()
        ),
        "noisy": PolicyConfig(kind="noisy"),
    },
)

TEACHERS = {kind: make_scripted(kind, {}) for kind in ("noisy", "random")}

Report = tuple[str, int, int, float]


def taught(games: Mapping[str, PlayedGame] | None = None, **warmup: Any) -> Config:
    agent = replace(CONFIG.policies["agent"], warmup=replace(WARMUP, **warmup))
    policies = {**CONFIG.policies, "random": PolicyConfig(kind="random"), "agent": agent}
    return replace(CONFIG, games=dict(games or CONFIG.games), policies=policies)


def warmed(config: Config) -> tuple[list[Report], float]:
    """What was reported, and the mass of illegal replies afterwards."""
    team, reports = found(config), list[Report]()
    warm_up(config, team, lambda *report: reports.append(report))
    measured = measure_exploitability(config, "game", team.policies)
    assert measured is not None
    return reports, measured.illegal_mass


def test_the_loss_falls_and_legal_answers_appear() -> None:
    reports, illegal = warmed(CONFIG)
    assert [report[:3] for report in reports] == [("agent", step, 40) for step in range(1, 41)]
    losses = [loss for *_, loss in reports]
    # At first every one of about 400 tokens is as likely as any other: ln 400 = 6.0 nats.
    assert losses[0] == pytest.approx(6.0, abs=0.3)
    assert sum(losses[-5:]) / 5 < 0.5
    assert illegal < 0.5
    assert warmed(CONFIG) == (reports, illegal)


def test_no_steps_change_nothing() -> None:
    agent = replace(CONFIG.policies["agent"], warmup=replace(WARMUP, steps=0))
    reports, illegal = warmed(replace(CONFIG, policies={**CONFIG.policies, "agent": agent}))
    assert reports == []
    assert illegal > 0.999


def test_a_demonstration_is_the_teachers_action_as_the_model_would_write_it() -> None:
    policy = seated(untrained())
    samples = demonstrations(taught(), policy, TEACHERS)
    assert len({sample.episode for sample in samples}) == WARMUP.games
    assert {sample.agent for sample in samples} == {"player_0", "player_1"}
    for sample in samples:
        (span,) = sample.spans
        prompt, written = sample.tokens[: span.start], sample.tokens[span.start :]
        assert span.length == len(written)
        assert (span.logprobs, span.advantages) == (None, None)
        assert written[-1] == policy.chat.eos_token_id
        assert policy.chat.decode(written) in {canonical_reply(a) for a in ("check", "bet", "fold", "call")}
        assert policy.chat.decode(prompt).endswith("<|im_start|>assistant\n")


def test_in_a_dialogue_a_demonstration_goes_on_where_the_last_one_ended() -> None:
    policy = seated(untrained("tic_tac_toe"), context="dialogue")
    config = taught({"game": PlayedGame(name="tic_tac_toe")}, teacher="random")
    samples = demonstrations(config, policy, TEACHERS)
    for agent in ("player_0", "player_1"):
        mine = [sample for sample in samples if sample.agent == agent and sample.episode == samples[0].episode]
        assert len(mine) >= 2
        for earlier, later in pairwise(mine):
            assert later.tokens[: len(earlier.tokens)] == earlier.tokens
            assert later.spans[0].start > len(earlier.tokens)


def test_a_held_out_game_is_imitated_only_if_it_has_a_teacher() -> None:
    games = {
        "kuhn": PlayedGame(name="kuhn_poker"),
        "held out": PlayedGame(name="tic_tac_toe", share=0),
        "unknown": PlayedGame(name="leduc_poker", share=0),
    }
    config = taught(games, teachers={"held out": "random"})
    assert config.teachers("agent") == {"kuhn": "noisy", "held out": "random"}
    samples = demonstrations(config, seated(untrained("tic_tac_toe")), TEACHERS)
    assert {sample.game for sample in samples} == {"kuhn", "held out"}


def test_games_are_drawn_by_their_shares_whatever_their_length() -> None:
    samples = [Sample(policy="a", game=game, episode="e", agent="p", tokens=(1,), spans=()) for game in "xxxy"]
    assert chances(samples, {}) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert chances(samples, {"x": 3.0}) == pytest.approx([1 / 4, 1 / 4, 1 / 4, 1 / 4])


def test_demonstrations_keep_games_apart_by_what_the_experiment_calls_them() -> None:
    config = taught({"small": PlayedGame(name="kuhn_poker"), "other": PlayedGame(name="kuhn_poker")})
    told = {sample.game for sample in demonstrations(config, seated(untrained("kuhn_poker")), TEACHERS)}
    assert told == {"small", "other"}


def test_a_share_of_a_game_that_is_not_imitated_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup.shares: 'go' is not allowed; it must be a game that is imitated"):
        taught(shares={"go": 1.0})
    with pytest.raises(ConfigError, match=r"warmup.shares.game: 0 is not allowed; it must be more than 0"):
        taught(shares={"game": 0})


def test_a_policy_imitates_what_is_done_in_its_own_seats() -> None:
    config = replace(taught(), matchmaking=MatchmakingConfig(seats={"player_0": "agent", "player_1": "random"}))
    made = demonstrations(config, seated(untrained()), TEACHERS)
    assert {sample.agent for sample in made} == {"player_0"}


def test_where_replies_are_plain_a_demonstration_is_the_bare_action() -> None:
    config = taught({"team": PlayedGame(name="workflow")}, teacher="random")
    said = []
    for answers in ("plain", "tagged"):
        policy = seated(untrained("workflow"), answers=answers)
        samples = demonstrations(config, policy, TEACHERS)
        said.append([policy.chat.decode(sample.tokens[sample.spans[0].start :]) for sample in samples])
    assert [canonical_reply(text) for text in said[0]] == said[1]
    assert said[0]
