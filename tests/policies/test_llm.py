"""A language model in a seat: what it reads, how its words become actions, and its probabilities."""

import gc
import weakref
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from marl_llm.config import GameConfig
from marl_llm.errors import ConfigError
from marl_llm.matchmaking import series
from marl_llm.metrics import play_metrics
from marl_llm.models import END
from marl_llm.play import play
from marl_llm.policies.base import Reply, Strategy, View
from marl_llm.policies.llm import LLMPolicy
from marl_llm.text import answer_instruction, canonical_reply
from marl_llm.types import Episode, Turn
from tests.tiny import dictated, first_view, saying, seated, token_id, untrained

KUHN = GameConfig(name="kuhn_poker")
BOARD = GameConfig(name="tic_tac_toe", settings={"on_illegal": "default_action"})
CHECK = saying({"check": 1.0})
RAMBLE = {"\n": {"check": 1.0}, "check": {"check": 1.0}}


def games(policy: LLMPolicy, game: GameConfig = KUHN, count: int = 1) -> list[Episode]:
    return list(play(series(game, {"*": "agent"}, name="x", games=count, seed=0), {"agent": policy}))


def asked(policy: LLMPolicy, view: View) -> Reply:
    policy.submit("ticket", view)
    while not (ready := policy.poll()):
        pass
    ((ticket, reply),) = ready
    assert ticket == "ticket"
    return reply


def sequences(episode: Episode) -> dict[str, list[Turn]]:
    return {agent: [turn for turn in episode.turns if turn.agent == agent] for agent in episode.returns}


def plain_mass(policy: LLMPolicy, model: torch.nn.Module, view: View, temperature: float) -> dict[str, float]:
    """Probability of each action's canonical reply, by one pass of the plain model each."""
    prompt, mass = policy.prompt(view), {}
    for action in view.legal_actions or ():
        reply = policy.chat.encode_reply(canonical_reply(action))
        with torch.inference_mode():
            logits_TV = model(input_ids=torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1]
        logprobs_TV = (logits_TV / temperature).log_softmax(-1)
        mass[action] = logprobs_TV[torch.arange(len(reply)), list(reply)].sum().exp().item()
    return mass


# What the model reads.


def test_with_context_turn_a_prompt_is_the_rules_and_what_is_seen_now() -> None:
    policy = seated(untrained("tic_tac_toe"), context="turn")
    (episode,) = games(policy, BOARD)
    rules = first_view("tic_tac_toe").rules.replace("forfeits", "plays the first of them")
    assert len(episode.turns) >= 5
    for turn in episode.turns:
        assert turn.prompt == policy.chat.start(f"{rules}\n{answer_instruction(False)}", turn.observation)


def test_in_a_dialogue_each_prompt_starts_with_every_token_read_or_sampled_before() -> None:
    policy = seated(untrained("tic_tac_toe"), context="dialogue", max_reply_tokens=4)
    (episode,) = games(policy, BOARD)
    encoded_differently = 0
    for turns in sequences(episode).values():
        assert len(turns) >= 2
        for turn, after in pairwise(turns):
            assert turn.prompt is not None
            assert turn.completion is not None
            assert after.prompt is not None
            read = turn.prompt + turn.completion.tokens
            assert after.prompt[: len(read)] == read
            assert after.observation in policy.chat.decode(after.prompt[len(read) :])
            encoded_differently += policy.chat.encode_reply(turn.reply)[:-1] != turn.completion.tokens
    assert encoded_differently > 0, "none of the replies would have betrayed an engine that encodes its text again"


def test_a_dialogue_written_down_in_a_history_is_read_as_the_one_that_was_played() -> None:
    policy = seated(dictated(saying({"e": 1.0}), "tic_tac_toe"), context="dialogue")
    (episode,) = games(policy, BOARD)
    for agent, turns in sequences(episode).items():
        view = replace(first_view("tic_tac_toe"), agent=agent)
        view = replace(view, rules=view.rules.replace("forfeits", "plays the first of them"))
        for turn in turns:
            assert policy.prompt(replace(view, observation=turn.observation)) == turn.prompt
            view = replace(view, history=(*view.history, (turn.observation, turn.reply)))


def test_rules_and_an_observation_that_leave_no_room_for_a_reply_are_refused() -> None:
    model, view = untrained(), first_view()
    need = len(seated(model).prompt(view)) + 8
    seated(model, context_tokens=need).check_fits(view)
    with pytest.raises(ConfigError, match=rf"play.context_tokens: {need - 1} is too small.* need {need} tokens"):
        seated(model, context_tokens=need - 1).check_fits(view)


# How words become actions.


def test_thinking_is_asked_for_and_read_only_when_it_is_switched_on() -> None:
    chances = {
        "\n": {"<think>": 1.0},
        "<think>": {"bet": 1.0},
        "bet": {"</think>": 1.0},
        "</think>": {"<answer>": 1.0},
        **saying({"check": 1.0}, start=" "),
    }
    for thinking, action in ((True, "check"), (False, None)):
        policy = seated(dictated(chances, thinking=thinking), thinking=thinking)
        reply = asked(policy, first_view())
        assert reply.text == "<think>bet</think><answer>check</answer>"
        assert reply.action == action
        assert reply.prompt is not None
        assert answer_instruction(thinking) in policy.chat.decode(reply.prompt)


def test_a_reply_without_its_end_token_has_no_action() -> None:
    model = dictated(CHECK)
    whole, cut = (asked(seated(model, max_reply_tokens=limit), first_view()) for limit in (4, 3))
    assert whole.text == cut.text == "<answer>check</answer>"
    assert whole.completion is not None
    assert cut.completion is not None
    assert whole.completion.tokens == (*cut.completion.tokens, token_id(model, END))
    assert (whole.action, cut.action) == ("check", None)
    assert (whole.overflow, cut.overflow) == (False, False)
    (episode,) = games(seated(model, max_reply_tokens=3))
    assert [turn.legal for turn in episode.turns] == [False]


def test_a_reply_cut_off_by_the_context_ends_the_episode_as_truncated() -> None:
    policy = seated(dictated(RAMBLE), context_tokens=len(seated(untrained()).prompt(first_view())) + 5)
    (episode,) = games(policy)
    (turn,) = episode.turns
    assert turn.reply == "check" * 5
    assert (turn.action, turn.legal, turn.rewards) == (None, None, {})
    assert episode.status == "truncated"
    assert episode.returns == {"player_0": 0.0, "player_1": 0.0}
    assert play_metrics([episode])["play/truncated"] == 1


def test_a_dialogue_without_room_for_another_reply_ends_as_truncated() -> None:
    model = dictated(saying({"e": 1.0}), "tic_tac_toe")
    roomy = seated(model, context="dialogue")
    (longer,) = games(roomy, BOARD)
    third = sequences(longer)["player_0"][2]
    assert third.prompt is not None
    tight = seated(model, context="dialogue", context_tokens=len(third.prompt))
    (episode,) = games(tight, BOARD)
    assert episode.turns == longer.turns[:4]
    assert (episode.status, episode.note) == ("truncated", "the conversation of player_0 no longer fits the context")
    assert play_metrics([episode, longer])["play/truncated"] == 1


def test_a_reply_of_full_length_is_an_illegal_move_even_where_the_context_ends_with_it() -> None:
    need = len(seated(untrained()).prompt(first_view())) + 8
    (episode,) = games(seated(dictated(RAMBLE), context_tokens=need))
    assert episode.status == "done"
    assert [turn.legal for turn in episode.turns] == [False]


# Probabilities.


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("context", ["turn", "dialogue"])
def test_probabilities_are_those_of_a_teacher_forced_pass_renormalised(context: str, temperature: float) -> None:
    model = untrained(sharpness=30.0)
    policy = seated(model, context=context, temperature=temperature)
    view = first_view()
    later = replace(
        view,
        observation=f"{view.observation} Then somebody bets.",
        legal_actions=("fold", "call"),
        history=((view.observation, canonical_reply("check")),),
    )
    views = [view, replace(view, observation="Your card: K."), later]
    for seen, strategy in zip(views, policy.strategies(views), strict=True):
        mass = plain_mass(policy, model.model, seen, temperature)
        total = sum(mass.values())
        assert strategy.actions == pytest.approx({action: m / total for action, m in mass.items()}, rel=1e-3)
        assert strategy.illegal_mass == pytest.approx(1 - total, abs=1e-5)
        assert strategy.samples is None
        assert max(strategy.actions.values()) > 0.6, "near-uniform probabilities would hide a mistake"


def test_what_is_not_a_legal_action_is_illegal_mass() -> None:
    policy = seated(dictated(saying({"check": 0.6, "bet": 0.2, "fold": 0.2})))
    (strategy,) = policy.strategies([first_view()])
    assert strategy.actions == pytest.approx({"check": 0.75, "bet": 0.25}, abs=1e-4)
    assert strategy.illegal_mass == pytest.approx(0.2, abs=1e-4)


def test_at_temperature_0_the_most_probable_reply_is_played_and_is_the_whole_strategy() -> None:
    policy = seated(dictated(saying({"check": 0.6, "bet": 0.4})), temperature=0.0)
    assert [turn.action for episode in games(policy, count=4) for turn in episode.turns] == ["check"] * 8
    (strategy,) = policy.strategies([first_view()])
    assert strategy == Strategy(actions={"check": 1.0, "bet": 0.0})
    (illegal,) = seated(dictated(saying({"fold": 0.6, "bet": 0.4})), temperature=0.0).strategies([first_view()])
    assert illegal == Strategy(actions={"check": 0.5, "bet": 0.5}, illegal_mass=1.0)


def test_beside_itself_a_policy_may_play_otherwise() -> None:
    policy = seated(dictated(saying({"check": 0.6, "bet": 0.4})))
    other = policy.beside(policy.engine, temperature=0.0, max_reply_tokens=2)
    assert (other.name, other.engine, other.temperature, other.max_reply_tokens) == ("agent", policy.engine, 0.0, 2)
    assert (policy.temperature, policy.max_reply_tokens) == (1.0, 8)
    reply = asked(other, first_view())
    assert reply.completion is not None
    assert (reply.completion.stop, len(reply.completion.tokens)) == ("length", 2)


def test_with_thinking_probabilities_are_frequencies_among_sampled_replies() -> None:
    chances = {
        "\n": {"<think>": 1.0},
        "<think>": {"call": 1.0},
        "call": {"</think>": 1.0},
        "</think>": {"<answer>": 1.0},
        **saying({"check": 0.6, "bet": 0.2, "fold": 0.2}, start=" "),
    }
    policy = seated(dictated(chances, thinking=True), thinking=True, samples=100)
    view = first_view()
    first, again, other = policy.strategies([view, view, replace(view, seed=1)])
    assert first == again != other
    assert first.samples == 100
    # 0.2 +- 4 standard errors of 100 draws; every number is a count among 100.
    assert 0.04 < first.illegal_mass < 0.36
    bets = first.actions["bet"] * (1 - first.illegal_mass) * 100
    assert 4 < bets < 36
    assert bets == pytest.approx(round(bets))
    assert sum(first.actions.values()) == pytest.approx(1.0)


def test_a_policy_that_never_answers_prefers_nothing() -> None:
    (strategy,) = seated(dictated(RAMBLE, thinking=True), thinking=True, samples=4).strategies([first_view()])
    assert strategy == Strategy(actions={"check": 0.5, "bet": 0.5}, illegal_mass=1.0, samples=4)


def test_probabilities_need_room_for_the_legal_replies_only() -> None:
    model, view = untrained(), first_view()
    roomy = seated(model)
    need = len(roomy.prompt(view)) + len(roomy.chat.encode_reply(canonical_reply("check")))
    tight = seated(model, max_reply_tokens=16, context_tokens=need)
    assert tight.strategies([view]) == roomy.strategies([view])
    (cramped,) = seated(model, max_reply_tokens=16, context_tokens=need - 1).strategies([view])
    assert cramped.illegal_mass == 1


@pytest.mark.parametrize("thinking", [False, True])
def test_beyond_the_context_every_reply_is_illegal_and_without_legal_actions_there_is_nothing(thinking: bool) -> None:
    policy = seated(untrained(thinking=thinking), thinking=thinking, context="dialogue")
    with pytest.raises(ValueError, match="no distribution"):
        policy.strategies([replace(first_view(), legal_actions=())])
    long = replace(first_view(), history=(("seen before", "check " * 640),))
    (strategy,) = policy.strategies([long])
    assert strategy.illegal_mass == 1
    assert set(strategy.actions.values()) == {0.5}


# Replies without tags.

TEAM = GameConfig(
    name="workflow",
    settings={
        "nodes": {
            "solver": {"prompt": "Solve.", "answers": True},
            "critic": {"prompt": "Judge.", "sees": ["solver"], "choices": ["bet", "check"]},
        }
    },
)
THOUGHTFUL = {
    "\n": {"<think>": 1.0},
    "<think>": {"bet": 1.0},
    "bet": {"</think>": 1.0},
    "</think>": {"check": 1.0},
    "check": {END: 1.0},
}


def test_a_plain_reply_is_the_action_without_its_thoughts_and_nobody_asks_for_tags() -> None:
    policy = seated(dictated(THOUGHTFUL, thinking=True), thinking=True, answers="plain")
    free = replace(first_view(), legal_actions=None)
    reply = asked(policy, free)
    assert (reply.text, reply.action) == ("<think>bet</think>check", "check")
    assert policy.prompt(free) == policy.chat.start(free.rules, free.observation)
    assert "<answer>" not in policy.chat.decode(policy.prompt(free))


def test_the_thoughts_of_one_agent_reach_no_other() -> None:
    model = dictated(THOUGHTFUL, thinking=True)
    policy = seated(model, thinking=True, answers="plain", context="dialogue")
    (episode,) = games(policy, TEAM)
    solver, critic = episode.turns
    assert (solver.reply, solver.action) == ("<think>bet</think>check", "check")
    assert critic.observation.endswith("\nsolver_0: check Legal actions: bet, check")
    assert critic.legal is False, "where actions are listed a reply without tags is still illegal"
    assert critic.prompt is not None
    assert answer_instruction(True) in policy.chat.decode(critic.prompt)


def test_a_plain_reply_that_was_cut_off_has_no_action() -> None:
    policy = seated(dictated(THOUGHTFUL, thinking=True), thinking=True, answers="plain", max_reply_tokens=4)
    reply = asked(policy, replace(first_view(), legal_actions=None))
    assert (reply.text, reply.action) == ("<think>bet</think>check", None)


@pytest.mark.parametrize("context", ["turn", "dialogue"])
def test_where_actions_are_listed_plain_changes_nothing(context: str) -> None:
    plain, tagged = (games(seated(untrained(), answers=how, context=context), count=4) for how in ("plain", "tagged"))
    assert plain == tagged


def test_whoever_was_free_until_now_is_told_the_form_of_an_answer_once_it_matters() -> None:
    policy = seated(untrained(), answers="plain", context="dialogue")
    view = first_view()
    begun = policy.prompt(replace(view, legal_actions=None))
    said = (*begun, policy.chat.eos_token_id)
    later = replace(view, history=((view.observation, ""),), conversation=said)
    told = policy.chat.extend(said, f"{answer_instruction(False)}\n{view.observation}")
    assert policy.prompt(later) == told
    listed = (*policy.prompt(view), policy.chat.eos_token_id)
    again = replace(later, conversation=listed)
    assert policy.prompt(again) == policy.chat.extend(listed, view.observation)
    free = replace(later, legal_actions=None)
    assert policy.prompt(free) == policy.chat.extend(said, view.observation)


# What it leaves behind.


def test_a_policy_that_is_dropped_is_gone_at_once() -> None:
    policy = seated(dictated(CHECK))
    assert games(policy)[0].status == "done"
    gone = [weakref.ref(one) for one in (policy, policy.reader, policy.chat, policy.engine)]
    gc.disable()
    try:
        del policy
        assert [one() for one in gone] == [None] * 4
    finally:
        gc.enable()
