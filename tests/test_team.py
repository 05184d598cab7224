"""All policies of an experiment: made, trained each on its own turns, saved, loaded and frozen."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from marl_llm.config import (
    Config,
    EngineConfig,
    EvaluationConfig,
    ExploiterConfig,
    KLConfig,
    LeagueConfig,
    LearnerConfig,
    MatchmakingConfig,
    ObjectiveConfig,
    PlayConfig,
    PlayedGame,
    PolicyConfig,
    PreferenceConfig,
    RunConfig,
    WarmupConfig,
    load_config,
)
from marl_llm.credit.recipe import load_recipe
from marl_llm.errors import ConfigError, RunError, TrainingError
from marl_llm.matchmaking import trained_policy
from marl_llm.players import frozen_copy
from marl_llm.policies.base import Strategy
from marl_llm.run import checkpoint_path
from marl_llm.runtime.rollouts import LocalRollouts
from marl_llm.team import (
    Makers,
    Team,
    check_players,
    check_prompts,
    check_seats,
    corpus,
    found,
    game_texts,
    policies_of,
    restore,
)
from marl_llm.text import answer_instruction
from marl_llm.train import Progress, advance, learn, train
from marl_llm.types import Episode
from tests.test_train import SMALL, Silent
from tests.tiny import TINY, dictated, first_view, saying

AGENT = PolicyConfig(
    tiny=TINY,
    engine=EngineConfig(slots=16, cache_slots=4),
    learner=LearnerConfig(lr=0.01),
    objective=ObjectiveConfig(kl=KLConfig(reference="ema", coef=0.1)),
)
TWO = Config(
    run=RunConfig(steps=4),
    play=PlayConfig(max_reply_tokens=8, context_tokens=200),
    policies={"black": AGENT, "white": AGENT, "random": PolicyConfig(kind="random")},
    matchmaking=MatchmakingConfig(groups=2, group_size=8, seats={"player_0": "black", "player_1": "white"}),
    evaluation=EvaluationConfig(every=0),
    credit="mars",
)
"""Two language models that learn, one in each seat."""


def with_model(config: Config, folder: Path, actions: Mapping[str, float]) -> Config:
    """The same experiment, begun with models that give these replies."""
    dictated(saying(actions)).save(folder)
    policies = {
        name: replace(policy, model=str(folder)) if policy.kind == "llm" else policy
        for name, policy in config.policies.items()
    }
    return replace(config, policies=policies)


def step(config: Config, team: Team, progress: Progress) -> tuple[dict[str, float], list[Episode]]:
    return advance(config, team, load_recipe(config.credit), LocalRollouts(config, team), progress)


def begin() -> Progress:
    return Progress(step=0, credit={})


def weights(team: Team, name: str) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in team.members[name].language_model.model.state_dict().items()}


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(one[key].equal(two[key]) for key in one)


def first_move(team: Team, name: str) -> Strategy:
    (strategy,) = team.policies[name].strategies([first_view()])
    return strategy


def sampled(episodes: list[Episode], policy: str) -> int:
    turns = [turn for episode in episodes for turn in episode.turns if turn.policy == policy]
    return sum(len(turn.completion.tokens) for turn in turns if turn.completion is not None)


@pytest.fixture
def talking(tmp_path: Path) -> Config:
    """Both begin with equal weights and give any action of the game."""
    return with_model(TWO, tmp_path / "model", dict.fromkeys(("check", "bet", "fold", "call"), 0.25))


def test_every_policy_is_made_from_its_own_seed_and_scripted_ones_beside() -> None:
    team = found(TWO)
    assert set(team.policies) == {"black", "white", "random"}
    assert set(team.members) == {"black", "white"}
    assert team.members["black"].policy is team.policies["black"]
    assert not same(weights(team, "black"), weights(team, "white"))
    again, other = found(TWO), found(replace(TWO, run=RunConfig(seed=1)))
    assert same(weights(team, "black"), weights(again, "black"))
    assert not same(weights(team, "black"), weights(other, "black"))


def test_who_is_not_trainable_or_not_wanted_to_learn_has_no_learner() -> None:
    fixed = replace(TWO, policies={**TWO.policies, "white": replace(AGENT, trainable=False)})
    assert [member.learner is None for member in found(fixed).members.values()] == [False, True]
    assert all(member.learner is None for member in found(TWO, learn=False).members.values())


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    engine = replace(AGENT, engine=replace(AGENT.engine, device=device))
    learner = replace(AGENT, learner=replace(AGENT.learner, device=device))
    with pytest.raises(ConfigError, match=f"^engine.device: '{device}' is not available"):
        found(replace(TWO, policies={**TWO.policies, "black": engine}))
    with pytest.raises(ConfigError, match=f"^learner.device: '{device}' is not available"):
        found(replace(TWO, policies={**TWO.policies, "black": learner}))


def test_each_learns_from_its_own_turns_only(talking: Config) -> None:
    team = found(talking)
    metrics, episodes = step(talking, team, begin())
    for name in ("black", "white"):
        assert metrics[f"learn/{name}/sampled_tokens"] == sampled(episodes, name) > 0
    assert sampled(episodes, "black") != sampled(episodes, "white")
    assert metrics["play/sampled_tokens"] == sampled(episodes, "black") + sampled(episodes, "white")
    assert not same(weights(team, "black"), weights(team, "white")), "they began with equal weights"


def test_what_one_learns_leaves_the_other_as_it_is(talking: Config) -> None:
    still = replace(talking.policies["white"], learner=LearnerConfig(lr=0.0))
    config = replace(talking, policies={**talking.policies, "white": still})
    team, twin = found(config), found(talking)
    before = weights(team, "white")
    step(config, team, begin())
    step(talking, twin, begin())
    assert same(weights(team, "white"), before)
    assert same(weights(team, "black"), weights(twin, "black"))
    assert not same(weights(twin, "white"), before)


def test_who_had_no_turn_in_a_step_learns_nothing_and_the_step_goes_on(tmp_path: Path) -> None:
    # The first player's only reply is illegal, so that the game ends before the second player's turn.
    config = with_model(TWO, tmp_path / "model", {"fold": 1.0})
    team, progress = found(config), begin()
    before = weights(team, "white")
    metrics, episodes = step(config, team, progress)
    assert sampled(episodes, "white") == 0
    assert metrics["learn/black/sampled_tokens"] == sampled(episodes, "black") > 0
    assert same(weights(team, "white"), before)
    assert progress.step == 1


def test_a_step_in_which_nobody_had_a_turn_is_an_error(talking: Config) -> None:
    team = found(talking)
    with pytest.raises(TrainingError, match="no policy that learns had a turn in 0 episodes"):
        learn(team, [], {}, {})


def test_a_step_that_credit_gives_no_weight_is_played_and_nothing_is_learned(talking: Config) -> None:
    team, progress = found(talking), begin()
    before = weights(team, "black")
    nothing = load_recipe({"stages": ["reward", {"skip": {"part": "challenge", "above": 0.1}}]})
    metrics, episodes = advance(talking, team, nothing, LocalRollouts(talking, team), progress)
    assert len(episodes) == 16
    assert not any(name.startswith("learn/") for name in metrics)
    assert same(weights(team, "black"), before)
    assert progress.step == 1


def test_what_could_not_be_measured_is_neither_better_nor_worse_in_a_pair(talking: Config) -> None:
    pairs = ObjectiveConfig(kl=KLConfig(reference="frozen"), preference=PreferenceConfig())
    black = talking.policies["black"]
    black = replace(black, objective=pairs, learner=replace(black.learner, minibatches=1))
    team = found(replace(talking, policies={**talking.policies, "black": black}))
    marked = load_recipe({"stages": [{"reward": {"others": 0, "weights": {"mark": 1}}}]})

    def learned(check: float | None) -> float:
        def mark(episode: Episode) -> dict[int, dict[str, float | None]]:
            return {i: {"mark": check if turn.action == "check" else 1.0} for i, turn in enumerate(episode.turns)}

        return advance(talking, team, marked, LocalRollouts(talking, team, rewards=mark), begin())[0][
            "learn/black/pairs"
        ]

    assert learned(0.0) > 0
    assert learned(None) == 0


def test_the_engine_plays_with_the_learners_weights_once_they_are_published(talking: Config) -> None:
    team = found(talking)
    before = first_move(team, "black")
    step(talking, team, begin())
    assert first_move(team, "black") == before
    team.members["black"].publish()
    assert first_move(team, "black") != before


def test_a_saved_team_goes_on_bit_for_bit(talking: Config, tmp_path: Path) -> None:
    team, progress = found(talking), begin()
    step(talking, team, progress)
    team.save(tmp_path / "saved")
    other = found(talking, tmp_path / "saved")
    restore(other, tmp_path / "saved")
    later = Progress(step=1, credit=progress.credit)
    _, episodes = step(talking, team, progress)
    _, again = step(talking, other, later)
    assert episodes == again
    for name in ("black", "white"):
        assert same(weights(team, name), weights(other, name))
        one, two = team.members[name].learner, other.members[name].learner
        assert one is not None
        assert two is not None
        assert one.state()[1] == two.state()[1]
        assert same(one.state()[0], two.state()[0])


def test_a_frozen_copy_stays_as_it_was_at_the_checkpoint(talking: Config, tmp_path: Path) -> None:
    team = found(talking)
    team.save(tmp_path / "saved")
    before = first_move(team, "white")
    step(talking, team, begin())
    team.members["white"].publish()
    copy = frozen_copy(talking, "white", tmp_path / "saved" / "white", called="start")
    (frozen,) = copy.strategies([first_view()])
    assert frozen == before != first_move(team, "white")


def test_a_runs_policies_play_again_as_they_were_at_a_checkpoint_and_at_another_temperature(tmp_path: Path) -> None:
    small = load_config(SMALL)
    path = train(small, Silent(), path=tmp_path / "run")
    config, policies = policies_of(path)
    assert config == small
    (first,) = policies_of(path, step=0)[1]["agent"].strategies([first_view()])
    (last,) = policies["agent"].strategies([first_view()])
    assert first != last
    _, colder = policies_of(path, temperature=0.5)
    (sharp,) = colder["agent"].strategies([first_view()])
    best = max(last.actions, key=last.actions.__getitem__)
    assert sharp.actions[best] > last.actions[best]
    with pytest.raises(RunError, match="no checkpoint of step 5"):
        policies_of(path, step=5)


def test_the_trained_policy_is_the_first_that_learns_in_a_seat() -> None:
    assert trained_policy(TWO) == "black"
    seats = {"player_0": "random", "player_1": "white"}
    assert trained_policy(replace(TWO, matchmaking=MatchmakingConfig(seats=seats))) == "white"
    with pytest.raises(ConfigError, match="seats no trainable policy"):
        check_seats(replace(TWO, matchmaking=MatchmakingConfig(seats={"*": "random"})))
    with pytest.raises(ConfigError, match="nobody sits at 'player_1'"):
        check_seats(replace(TWO, matchmaking=MatchmakingConfig(seats={"player_0": "white"})))


def test_a_seat_without_a_policy_and_a_model_without_a_seat_are_refused() -> None:
    def seated(**seats: str) -> Config:
        return replace(TWO, matchmaking=replace(TWO.matchmaking, seats=seats))

    with pytest.raises(
        ConfigError, match=r"^matchmaking.seats: nobody sits at 'player_1'; patterns are \['player_0'\]"
    ):
        check_seats(seated(player_0="white"))
    with pytest.raises(ConfigError, match=r"seats.player_1: 'gray' is not allowed; it must be one of policies: \['bl"):
        seated(player_0="white", player_1="gray")
    with pytest.raises(ConfigError, match=r"^matchmaking.seats.plyer_1: no such seat; there are \['player_0', 'play"):
        check_seats(seated(player_0="white", plyer_1="random", player_1="black"))
    with pytest.raises(ConfigError, match=r"^policies.white: it is trainable and has no seat in {'\*': 'black'}"):
        check_seats(seated(**{"*": "black"}))
    frozen = replace(TWO, policies={**TWO.policies, "white": replace(AGENT, trainable=False)})
    alone = replace(frozen, matchmaking=replace(TWO.matchmaking, seats={"*": "black"}))
    with pytest.raises(
        ConfigError, match=r"^policies.white: it is a model that has no seat in {'\*': 'black'}, is nob"
    ):
        check_seats(alone)
    check_seats(replace(alone, evaluation=EvaluationConfig(opponents=["white"])))
    check_seats(frozen)


def test_seats_that_cannot_be_shared_evenly_are_refused() -> None:
    making = MatchmakingConfig(group_size=3, swap_seats=True, seats=TWO.matchmaking.seats)
    with pytest.raises(ConfigError, match=r"group_size: 3 is not allowed; .*swap_seats it must be a multiple of the 2"):
        check_seats(replace(TWO, matchmaking=making))
    check_seats(replace(TWO, matchmaking=replace(making, group_size=4)))
    check_seats(replace(TWO, matchmaking=replace(making, swap_seats=False)))


def test_an_exploiter_needs_no_seat_and_a_member_of_the_league_must_be_able_to_play() -> None:
    policies = {**TWO.policies, "perfect": PolicyConfig(kind="minimax")}
    making = MatchmakingConfig(seats={"*": "black"}, league=LeagueConfig(exploiters={"white": ExploiterConfig()}))
    config = replace(TWO, policies=policies, matchmaking=making)
    check_seats(config)
    check_players(config)
    making = MatchmakingConfig(seats={"*": "black"}, league=LeagueConfig())
    with pytest.raises(ConfigError, match=r"policies\.white: it is trainable and has no seat"):
        check_seats(replace(config, matchmaking=making))
    making = replace(making, league=LeagueConfig(members=["perfect"]))
    with pytest.raises(ConfigError, match=r"policies\.perfect: policy minimax: kuhn_poker is not a small"):
        check_players(replace(config, matchmaking=making))


def test_a_context_too_small_for_the_rules_is_refused() -> None:
    tight = replace(TWO, play=PlayConfig(max_reply_tokens=8, context_tokens=64))
    with pytest.raises(ConfigError, match=r"play.context_tokens: 64 is too small for kuhn_poker"):
        check_prompts(tight, found(tight, learn=False))
    check_prompts(TWO, found(TWO, learn=False))


def test_a_reply_limit_that_no_action_fits_is_refused() -> None:
    short = replace(TWO, play=PlayConfig(max_reply_tokens=2, context_tokens=200))
    with pytest.raises(ConfigError, match=r"max_reply_tokens: 2 is too small: the reply '<answer>\w+</answer>' and"):
        check_prompts(short, found(short, learn=False))


def test_in_context_turn_the_longest_observation_of_random_games_must_fit_for_every_model() -> None:
    leduc = replace(
        TWO, games={"game": PlayedGame(name="leduc_poker")}, play=PlayConfig(max_reply_tokens=8, context_tokens=400)
    )
    policy = found(leduc, learn=False).members["white"].policy
    first, texts = first_view("leduc_poker"), game_texts(leduc.games["game"], seed=0, thinking=False)[3::2]
    need = max(len(policy.prompt(replace(first, observation=text))) for text in texts) + 8
    assert need > len(policy.prompt(first)) + 8

    def check(context_tokens: int, context: Literal["turn", "dialogue"]) -> None:
        play = replace(leduc.play, context_tokens=context_tokens, context=context)
        config = replace(leduc, play=play)
        check_prompts(config, found(config, learn=False))

    check(need, "turn")
    with pytest.raises(ConfigError, match=rf"play.context_tokens: {need - 1} is too small .* need {need} tokens"):
        check(need - 1, "turn")
    check(need - 1, "dialogue")


def test_a_tokenizer_learns_what_is_read_and_written_in_the_game() -> None:
    texts = game_texts(TWO.games["game"], seed=0, thinking=True)
    assert texts[0].startswith("Kuhn poker.")
    assert answer_instruction(True) in texts
    assert {"<answer>check</answer>", "<answer>call</answer>"} <= set(texts)
    assert any("Your card: K." in text for text in texts)
    assert texts == game_texts(TWO.games["game"], seed=0, thinking=True)


def test_a_tokenizer_may_learn_from_the_teachers_games() -> None:
    """Random players say examples, who knows asks for what the question is about."""
    warmup = WarmupConfig(teacher="knowing", steps=0)
    knowing = PolicyConfig(kind="informed", options={"accuracy": 1.0})
    tasks = {"source": "multihop", "documents": 60, "hops": 1}
    research = PlayedGame(name="deep_research", settings={"tasks": tasks})
    texts = {}
    for whose in ("random", "teacher"):
        agent = PolicyConfig(tiny=replace(TINY, texts=whose), warmup=warmup)
        config = Config(games={"game": research}, policies={"agent": agent, "knowing": knowing})
        texts[whose] = "\n".join(corpus(config, "agent"))
    assert "->" in texts["teacher"]  # an answer that the planner reads
    assert texts["teacher"].count("search: ") > texts["random"].count("search: ")


def test_a_team_that_is_measured_needs_all_seats_of_held_out_games_too() -> None:
    held_out = ("games.other={name: debate, share: 0, opponents: []}", "matchmaking.seats={'player_*': agent}")
    small = Path(__file__).parent / "small.yaml"
    check_seats(load_config(small, held_out))
    with pytest.raises(ConfigError, match=r"^matchmaking.seats: nobody sits at 'debater_0'"):
        check_seats(load_config(small, [*held_out, "evaluation.team=true"]))
    seated = ("games.other.seats={'*': perfect}", "policies.perfect={kind: minimax}")
    check_players(load_config(small, [*held_out, *seated]))
    with pytest.raises(ConfigError, match=r"^policies.perfect: game debate: only the random scripted"):
        check_players(load_config(small, [*held_out, *seated, "evaluation.team=true"]))


ALREADY_WARM = {"marshal_tiny.yaml": ["policies.agent.warmup=null"]}
"""How a file's own comment says that its variants are run."""
CONFIGS = {file.name: file for file in (Path(__file__).parents[1] / "configs").glob("*.yaml")}
VARIANTS = [(name, variant) for name, file in sorted(CONFIGS.items()) for variant in load_config(file).variants]


@pytest.mark.parametrize(("name", "variant"), [v for v in VARIANTS if v[0] != "comas_qwen2_5_3b.yaml"])  # from a hub
def test_in_every_variant_of_our_experiments_all_seats_are_taken(name: str, variant: str) -> None:
    changes = load_config(CONFIGS[name]).variants[variant]
    check_seats(load_config(CONFIGS[name], [*ALREADY_WARM.get(name, []), *changes]))


def test_who_plays_with_engines_elsewhere_holds_no_weights(tmp_path: Path) -> None:
    config = load_config(SMALL, [f"run.dir={tmp_path}", "run.steps=0", "evaluation.games=0"])
    start = checkpoint_path(train(config, Silent()), 0)
    whole = found(config, start, learn=False).members["agent"]
    engines = Makers(engine=lambda config, name: whole.policy.engine)
    other = found(config, start, learn=False, makers=engines).members["agent"]
    assert other.policy.engine is whole.policy.engine
    assert all(weight.is_meta for weight in other.language_model.model.parameters())
    assert not any(weight.is_meta for weight in whole.language_model.model.parameters())
