"""True values and advantages against numbers by hand."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from marl_llm.config import GameConfig
from marl_llm.evaluation.true_advantages import StateGraph, Values
from marl_llm.matchmaking import series
from marl_llm.play import play
from marl_llm.policies.base import Policy, Strategy, View
from marl_llm.policies.scripted import RandomPolicy, make_scripted
from marl_llm.types import Episode, Match, Turn
from tests.tiny import dictated, saying, seated

SEATS = {"*": "a"}
# From the door one way leads to the kitchen and one into the well, which has no way on; from the kitchen one leads back
# and one to the attic, where the treasure is.
COTTAGE = GameConfig(name="treasure_hunt", settings={"place": "cottage", "moves": 2})


class Leaning(RandomPolicy):
    """Picks the sun at 0.75 when it hears `ba`, and at 0.25 else; speaks at random. Some replies are illegal."""

    def __init__(self, illegal: float = 0.0) -> None:
        super().__init__()
        self.illegal = illegal

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        return [replace(self._lean(s, v), illegal_mass=self.illegal) for s, v in zip(super().strategies(views), views)]

    def _lean(self, strategy: Strategy, view: View) -> Strategy:
        if view.agent != "player_1":
            return strategy
        sun = 0.75 if "Word: ba" in view.observation else 0.25
        return Strategy(actions={"sun": sun, "moon": 1 - sun})


def episode(game: GameConfig, *moves: tuple[str, str | None], seed: int = 0) -> Episode:
    """Moves as (agent, action); None: an illegal reply."""
    turns = tuple(
        Turn(agent=agent, role=agent, policy="a", observation="", reply="", action=action, legal=action is not None)
        for agent, action in moves
    )
    match = Match(id="m", game=game.name, settings=game.settings, seed=seed, group="g", seats=SEATS)
    return Episode(match=match, turns=turns, returns={})


def values(game: GameConfig, policy: Policy, *seeds: int) -> Values:
    graph = StateGraph(game)
    for seed in seeds or (0,):
        graph.root(seed)
    return Values(graph, {"a": policy}, SEATS)


def worth(game: GameConfig, policy: Policy, *moves: tuple[str, str | None], seed: int = 0) -> list[float]:
    found = values(game, policy, seed).advantages([episode(game, *moves, seed=seed)])
    assert list(found) == [("m", number) for number in range(len(moves))]
    return list(found.values())


def seeker(*actions: str | None) -> list[tuple[str, str | None]]:
    return [("player_0", action) for action in actions]


def test_random_play_in_the_cottage() -> None:
    random = make_scripted("random", {})
    assert values(COTTAGE, random).returns([0]) == {"player_0": pytest.approx(1 / 4)}
    assert worth(COTTAGE, random, *seeker("kitchen", "attic")) == pytest.approx([1 / 4, 1 / 2])
    assert worth(COTTAGE, random, *seeker("well")) == pytest.approx([-1 / 4])
    # With four moves one may come back: from the kitchen 1/2 + 1/2 * 1/4, from the door half of that.
    longer = replace(COTTAGE, settings={"place": "cottage", "moves": 4})
    assert values(longer, random).returns([0]) == {"player_0": pytest.approx(5 / 16)}
    assert worth(longer, random, *seeker("kitchen", "door")) == pytest.approx([5 / 16, 1 / 4 - 5 / 8])


def test_states_that_are_reached_in_different_ways_are_one() -> None:
    graph = StateGraph(replace(COTTAGE, settings={"place": "cottage", "moves": 6}))
    graph.root(0)
    # The door with 6, 4, 2 moves left, the kitchen with 5, 3, 1.
    assert len(graph.states) == 6
    graph.root(1)
    assert len(graph.states) == 6


def test_an_illegal_reply_counts_with_its_probability() -> None:
    # In the kitchen with one move left: 0.9 * 1/2 - 0.1, at the door 0.9 * 1/2 * 0.35 - 0.1.
    hasty = Leaning(illegal=0.1)
    assert values(COTTAGE, hasty).returns([0]) == {"player_0": pytest.approx(0.45 * 0.35 - 0.1)}
    assert worth(COTTAGE, hasty, *seeker("kitchen", None))[1] == pytest.approx(-1 - 0.35)
    # Where the first action is played instead, it leads back to the door, and nothing is lost but the move.
    mild = replace(COTTAGE, settings={**COTTAGE.settings, "on_illegal": "default_action"})
    assert worth(mild, hasty, *seeker("kitchen", None))[1] == pytest.approx(0 - 0.45)


def test_a_model_is_asked_for_the_chances_of_its_words() -> None:
    model = seated(dictated(saying({"kitchen": 0.6, "attic": 0.4}), "treasure_hunt"))
    # At the door attic is illegal; in the kitchen, kitchen is: 0.4 - 0.6. Then 0.6 * -0.2 - 0.4.
    assert values(COTTAGE, model).returns([0])["player_0"] == pytest.approx(-0.52, abs=1e-4)


def test_what_a_word_is_worth_depends_on_the_private_symbol() -> None:
    game = GameConfig(name="signals", settings={"symbols": 2, "rounds": 1, "code": "free"})
    found = []
    for seed in range(4):
        told = worth(game, Leaning(), ("player_0", "ba"), ("player_1", "sun"), seed=seed)
        found.append([round(value, 6) for value in told])
    # `ba` is heard as the sun at 0.75, a word at random at 0.5. Where it is a moon, 1/4 - 1/2 and 0 - 1/4.
    assert sorted(found)[0] == [-0.25, -0.25]
    assert sorted(found)[-1] == [0.25, 0.25]
    assert all(told in ([-0.25, -0.25], [0.25, 0.25]) for told in found)
    assert values(game, Leaning(), 0, 1).returns([0, 1]) == {
        "player_0": pytest.approx(0.5),
        "player_1": pytest.approx(0.5),
    }


def test_after_a_wrong_word_the_listener_can_neither_win_nor_lose() -> None:
    game = GameConfig(name="signals", settings={"symbols": 2, "rounds": 1, "code": "given"})
    told = set()
    for seed in range(8):
        for word in ("ba", "du"):
            pair = worth(game, Leaning(), ("player_0", word), ("player_1", "sun"), seed=seed)
            told.add(tuple(round(value, 6) for value in pair))
    # The right word of two is worth 0.75, V = 0.375. Of a sun `ba` is right, and then the sun adds 1/4; of a moon `du`,
    # and then the sun loses 3/4.
    assert told == {(0.375, 0.25), (-0.375, 0.0), (0.375, -0.75)}


def test_rounds_that_are_over_make_no_difference_to_what_a_turn_is_worth() -> None:
    game = GameConfig(name="signals", settings={"symbols": 2, "rounds": 2, "code": "free"})
    for symbol in ("sun", "moon"):
        moves = [("player_0", "ba"), ("player_1", symbol), ("player_0", "du"), ("player_1", "moon")]
        told = worth(game, Leaning(), *moves)
        # `moon` after `du` has 0.75, and each round pays half.
        assert abs(told[3]) in (pytest.approx(0.125), pytest.approx(0.375))
        assert abs(told[2]) == pytest.approx(0.125)


def test_who_chooses_second_in_a_round_is_judged_by_what_the_first_has_chosen() -> None:
    game = GameConfig(name="matrix_game", settings={"payoffs": "rock_paper_scissors", "max_rounds": 1})
    told = worth(game, make_scripted("random", {}), ("player_0", "rock"), ("player_1", "paper"))
    assert told == pytest.approx([0.0, 1.0])


def test_the_advantages_of_random_games_average_to_zero_in_a_game_of_histories() -> None:
    kuhn = GameConfig(name="kuhn_poker")
    random = {"a": make_scripted("random", {})}
    played = list(play(series(kuhn, SEATS, name="s", games=400, seed=0), random))
    graph = StateGraph(kuhn)
    for one in played:
        graph.root(one.match.seed)
    found = Values(graph, random, SEATS).advantages(played)
    assert len(found) == sum(len(one.turns) for one in played)
    assert sum(found.values()) / len(found) == pytest.approx(0, abs=3 / len(found) ** 0.5)
    last = {one.match.id: found[one.match.id, len(one.turns) - 1] for one in played}
    assert any(value > 0.4 for value in last.values())


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (GameConfig(name="taboo"), "lists no actions in 'You are player_0"),
        (GameConfig(name="deep_research"), "game deep_research"),
    ],
)
def test_games_that_cannot_be_listed_are_refused(game: GameConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StateGraph(game).root(0)


def test_policies_with_a_memory_are_refused() -> None:
    model = seated(dictated(saying({"kitchen": 1.0}), "treasure_hunt"), context="dialogue")
    with pytest.raises(ValueError, match="what they see alone"):
        values(COTTAGE, model)
