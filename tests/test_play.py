"""Matches go in, episodes come out: rewards, illegal moves, truncation and faults land where they belong."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from gymnasium import spaces
from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import BaseWrapper

import games
from marl_llm.config import GameConfig
from marl_llm.errors import ConfigError, GameError
from marl_llm.matchmaking import series
from marl_llm.play import Deals, Table, make_game, play, rewarded
from marl_llm.policies.base import Reply, Strategy, View
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Episode, Match


class Script:
    """Gives the listed replies in order, to whoever asks; remembers what it was shown."""

    def __init__(self, *replies: Reply | str | None) -> None:
        self._replies = list(replies)
        self._ready: list[tuple[Hashable, Reply]] = []
        self.views: list[View] = []

    def submit(self, ticket: Hashable, view: View) -> None:
        self.views.append(view)
        reply = self._replies.pop(0)
        self._ready.append((ticket, reply if isinstance(reply, Reply) else Reply(text=reply or "?", action=reply)))

    def poll(self) -> list[tuple[Hashable, Reply]]:
        ready, self._ready = self._ready, []
        return ready

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        raise ValueError("a script has no probabilities")


def one(script: Script, game: str = "kuhn_poker", **options: Any) -> Episode:
    match = Match(id="m", game=game, seed=3, group="g", seats={"*": "script"})
    (episode,) = play([match], {"script": script}, **options)
    return episode


def test_terminal_rewards_land_on_each_agents_last_turn() -> None:
    episode = one(Script("check", "bet", "call"))
    assert [turn.agent for turn in episode.turns] == ["player_0", "player_1", "player_0"]
    assert episode.turns[0].rewards == {}
    won = episode.returns["player_0"]
    assert abs(won) == 2.0
    assert episode.turns[2].rewards == {"outcome": won}
    assert episode.turns[1].rewards == {"outcome": -won}
    assert episode.status == "done"
    assert all(turn.legal for turn in episode.turns)


def test_an_agent_that_never_moves_has_a_return_but_no_turn() -> None:
    episode = one(Script("raise the roof"))
    assert [turn.agent for turn in episode.turns] == ["player_0"]
    assert episode.returns == {"player_0": -3.0, "player_1": 0.0}


def test_illegal_and_unreadable_replies_cost_the_same_and_are_a_part_of_their_own() -> None:
    for action in ("raise", None):
        episode = one(Script("check", action))
        assert episode.turns[1].legal is False
        assert episode.turns[1].rewards == {"illegal": -3.0}
        assert episode.returns == {"player_0": 0.0, "player_1": -3.0}
        assert episode.status == "done"


def test_a_seat_sees_its_own_history_only() -> None:
    script = Script("check", "bet", "fold")
    one(script)
    assert [len(view.history) for view in script.views] == [0, 0, 1]
    assert script.views[2].history == ((script.views[0].observation, "check"),)


def test_a_conversation_that_no_longer_fits_ends_as_truncated() -> None:
    episode = one(Script("check", Reply(text="", action=None, overflow=True)))
    assert episode.status == "truncated"
    assert "player_1 no longer fits" in episode.note
    assert len(episode.turns) == 1


def test_a_fault_ends_the_match_without_a_turn_or_a_reward() -> None:
    episode = one(Script("check", Reply(text="", action=None, fault="no connection")))
    assert (episode.status, episode.note) == ("fault", "script: no connection")
    assert [turn.action for turn in episode.turns] == ["check"]
    assert episode.turns[0].rewards == {}


def test_what_no_seat_may_see_is_kept_for_evaluation() -> None:
    episode = one(Script("propose: nothing", "accept"), game="negotiation")
    assert episode.returns == {"player_0": 0.0, "player_1": 10.0}
    assert episode.hidden["joint_value"] == 10
    assert 10 <= episode.hidden["max_joint_value"] <= 20
    assert one(Script("check", "check")).hidden == {}


def test_random_players_play_games_of_free_text_to_their_end() -> None:
    for name in ("negotiation", "taboo"):
        matches = series(GameConfig(name=name), {"*": "random"}, name="x", games=10, seed=1)
        episodes = list(play(matches, {"random": make_scripted("random", {})}))
        assert all(turn.legal and turn.legal_actions is None for episode in episodes for turn in episode.turns)


def test_all_who_move_in_a_round_are_asked_at_once_and_their_turns_keep_the_games_order() -> None:
    asked = Script("cooperate", "defect")
    match = Match(id="m", game="matrix_game", settings={"max_rounds": 1}, seed=3, group="g", seats={"*": "script"})
    table = Table(match, 100)
    assert list(table.views) == ["player_0", "player_1"]
    assert len({view.seed for view in table.views.values()}) == 2
    replies = {agent: Reply(text=action, action=action) for agent, action in zip(table.views, ("defect", "cooperate"))}
    assert not table.take("player_1", "late", replies["player_1"])
    assert table.take("player_0", "script", replies["player_0"])
    assert [(turn.agent, turn.action, turn.policy) for turn in table.episode().turns] == [
        ("player_0", "defect", "script"),
        ("player_1", "cooperate", "late"),
    ]
    (episode,) = play([match], {"script": asked})
    assert len(asked.views) == 2
    assert [turn.action for turn in episode.turns] == ["cooperate", "defect"]


def test_a_fault_in_a_round_ends_the_match_and_leaves_nobody_waiting() -> None:
    match = Match(id="m", game="matrix_game", settings={"max_rounds": 1}, seed=3, group="g", seats={"*": "script"})
    fault = Reply(text="", action=None, fault="gone")
    (episode,) = play([match], {"script": Script("cooperate", fault)})
    assert (episode.status, episode.note, len(episode.turns)) == ("fault", "script: gone", 1)


def test_seats_that_leave_early_keep_what_they_were_paid() -> None:
    script = Script(*["give"] * 3, *["keep"] * 21)
    episode = one(script, game="donor_game")
    assert len(episode.turns) == 24
    assert sum(episode.returns.values()) == 6.0
    assert {turn.agent for turn in episode.turns[:12]} == {f"player_{number}" for number in range(4)}
    paid = dict.fromkeys(episode.returns, 0.0)
    for turn in episode.turns:
        paid[turn.agent] += sum(value or 0.0 for value in turn.rewards.values())
    assert paid == episode.returns


def test_a_game_without_end_is_cut_off() -> None:
    episode = one(Script("check", "bet"), max_turns=2)
    assert episode.status == "truncated"
    assert episode.note == "no end after 2 turns"


def test_the_same_seed_gives_the_same_game_and_another_member_other_replies() -> None:
    matches = [
        Match(id=f"m{i}", game="leduc_poker", seed=11, group="g", member=i % 8, seats={"*": "random"})
        for i in range(16)
    ]
    episodes = sorted(play(matches, {"random": make_scripted("random", {})}), key=lambda e: int(e.match.id[1:]))
    actions = [[turn.action for turn in episode.turns] for episode in episodes]
    assert actions[:8] == actions[8:]
    assert len({tuple(a) for a in actions[:8]}) > 1
    assert len({episode.turns[0].observation for episode in episodes}) == 1


def test_few_live_matches_give_the_same_episodes_as_many() -> None:
    matches = series(GameConfig(name="leduc_poker"), {"*": "random"}, name="x", games=20, seed=1)
    few = list(play(matches, {"random": make_scripted("random", {})}, live=3))
    many = list(play(matches, {"random": make_scripted("random", {})}))
    by_id = {episode.match.id: episode for episode in many}
    assert all(by_id[episode.match.id] == episode for episode in few)
    assert len(few) == 20


def test_a_users_own_rewards_are_added_to_the_games() -> None:
    episode = rewarded(one(Script("check", "check")), lambda e: {0: {"style": 0.5, "judge": None}})
    assert episode.turns[0].rewards == {"outcome": episode.returns["player_0"], "style": 0.5, "judge": None}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"returned None; it must be \{turn index: \{part: number or None\}\}"),
        ([0.5], r"returned \[0.5\]; it must be"),
        ({0: 0.5}, r"returned 0.5 for turn 0; it must be"),
        ({2: {"style": 1.0}}, "turn index 2; it must be a whole number from 0 to 1"),
        ({-1: {"style": 1.0}}, "turn index -1; "),
        ({"0": {"style": 1.0}}, "turn index '0'; "),
        ({0: {1: 1.0}}, "part name 1 for turn 0; it must be a text"),
        ({1: {"outcome": 1.0}}, "part 'outcome' for turn 1, which the game gave already"),
        ({0: {"style": float("nan")}}, "nan as part 'style' of turn 0; it must be a finite number or None"),
        ({0: {"style": float("inf")}}, "inf as part 'style'"),
        ({0: {"style": "good"}}, "'good' as part 'style'"),
    ],
)
def test_what_is_no_reward_is_refused_with_the_match(returned: Any, message: str) -> None:
    episode = one(Script("check", "check"))
    with pytest.raises(
        ConfigError, match=rf"^play.rewards: returned .*{message.removeprefix('returned ')}.*match m\)$"
    ):
        rewarded(episode, lambda episode: returned)


def test_a_reward_function_that_raises_stops_the_run_with_the_match() -> None:
    episode = one(Script("check", "check"))
    with pytest.raises(GameError, match=r"^play.rewards: raised ZeroDivisionError: .* \(match m\)$"):
        rewarded(episode, lambda episode: {0: {"style": 1 / 0}})


def test_an_unknown_policy_or_game_is_named() -> None:
    with pytest.raises(ConfigError, match="'bob'"):
        list(play([Match(id="m", game="kuhn_poker", seed=0, group="g", seats={"*": "bob"})], {}))
    with pytest.raises(ConfigError, match="kuhn_poke"):
        list(play([Match(id="m", game="kuhn_poke", seed=0, group="g", seats={"*": "bob"})], {}))


class Exploding(AECEnv):  # type: ignore[misc]
    """Pays 1 to everybody at each move, and raises at the third."""

    def __init__(self) -> None:
        self.metadata = {"name": "exploding", "rules": ""}
        self.possible_agents = ["player_0", "player_1"]
        space = spaces.Text(100)
        self.observation_spaces = dict.fromkeys(self.possible_agents, spaces.Dict({"text": space}))
        self.action_spaces = dict.fromkeys(self.possible_agents, space)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        self.agents = list(self.possible_agents)
        self.moves = 0
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        self.agent_selection = "player_0"

    def observe(self, agent: str) -> dict[str, str]:
        return {"text": "go"}

    def step(self, action: str | None) -> None:
        self.moves += 1
        if self.moves == 3:
            raise RuntimeError("boom")
        self.rewards = dict.fromkeys(self.agents, 1.0)
        self.agent_selection = self.agents[self.moves % 2]


def test_a_game_that_raises_stops_the_run_with_a_replay() -> None:
    with pytest.raises(GameError, match=r"RuntimeError: boom .*seed 3, actions \['a', 'b', 'c'\]"):
        one(Script("a", "b", "c"), game="tests.test_play:Exploding")


def test_a_reward_before_an_agents_first_turn_waits_for_it() -> None:
    episode = one(Script("a", "b"), game="tests.test_play:Exploding", max_turns=2)
    assert [turn.rewards for turn in episode.turns] == [{"outcome": 2.0}, {"outcome": 2.0}]
    assert episode.returns == {"player_0": 2.0, "player_1": 2.0}


class Calling(Exploding):
    """The second player works for the first one, who is asked again when it is done."""

    def step(self, action: str | None) -> None:
        super().step(action)
        caller = {"caller": "player_0"}
        self.infos = {agent: caller if agent == "player_1" else {} for agent in self.agents}


def test_a_turn_knows_the_turn_that_called_it() -> None:
    episode = one(Script("call", "work"), game="tests.test_play:Calling", max_turns=2)
    assert [turn.parent for turn in episode.turns] == [None, 0]


class Wrapped(BaseWrapper):  # type: ignore[misc]
    """Passes `clone` on to the game inside, as PettingZoo's wrappers do."""


def group(game: str) -> list[Match]:
    return [Match(id=f"m{i}", game=game, seed=5, group="g", seats={}, member=i) for i in range(3)]


@pytest.mark.parametrize("game", ["leduc_poker", "negotiation", "tests.test_play:wrapped_leduc"])
def test_each_match_of_a_group_plays_the_game_that_its_seed_gives(game: str) -> None:
    random = {"*": "random"}
    together = play([replace(match, seats=random) for match in group(game)], {"random": make_scripted("random", {})})
    alone = [
        next(play([replace(match, seats=random)], {"random": make_scripted("random", {})})) for match in group(game)
    ]
    assert sorted(together, key=lambda episode: episode.match.id) == alone


def wrapped_leduc() -> AECEnv:
    return Wrapped(games.make("leduc_poker"))


@pytest.mark.parametrize(("game", "copied"), [("kuhn_poker", True), ("tests.test_play:wrapped_leduc", False)])
def test_a_group_is_dealt_once_where_the_game_can_be_copied_whole(game: str, copied: bool) -> None:
    deals = Deals()
    first, second, _ = group(game)
    env = deals.deal(first, make_game(game, {}))
    twin = deals.copy(second)
    assert (twin is not None) == copied
    if twin is not None:
        env.step("bet")
        assert twin.agent_selection == "player_0"
    assert deals.copy(replace(second, seed=6)) is None
