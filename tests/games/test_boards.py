"""Games that are played on a board, how every game is shown, and the boards of episodes."""

import random
from dataclasses import replace
from typing import Any

import pytest

import games
from games import signals
from games.base import Board, Cell
from games.tic_tac_toe import TicTacToe
from games.turns import in_turns
from marl_llm.errors import ConfigError
from marl_llm.play import play
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Episode, Match
from marl_llm.watch.boards import about, board, boards

ON_BOARDS = ["connect_four", "hanabi", "mini_hanabi", "simple_hanabi", "tic_tac_toe"]
IN_COLUMNS = [
    "autogen",
    "debate",
    "discussion",
    "generate_verify_refine",
    "mad",
    "mixture_of_agents",
    "self_consistency",
]


class Broken(TicTacToe):
    """A board that raises, once somebody has moved."""

    def board(self, agent: str) -> Board:
        if agent == "player_1":
            raise RuntimeError("no board today")
        return super().board(agent)


def broken() -> Broken:
    return Broken(lines=False, opening=0, on_illegal="forfeit", scale=None)


def played(game: str, *, seed: int = 0, **settings: Any) -> Episode:
    match = Match(id="m", game=game, settings=settings, seed=seed, group="m", seats={"*": "random"})
    (episode,) = play([match], {"random": make_scripted("random", {})})
    return episode


def texts(shown: Any) -> list[list[str]]:
    return [[cell["text"] for cell in row] for row in shown["rows"]]


def test_every_game_says_how_it_is_shown() -> None:
    forms = {name: about(name, {})["form"] for name in games.names()}
    assert sorted(name for name, form in forms.items() if form == "board") == ON_BOARDS
    assert sorted(name for name, form in forms.items() if form == "columns") == IN_COLUMNS
    assert {form for name, form in forms.items() if name not in ON_BOARDS + IN_COLUMNS} == {"list"}


@pytest.mark.parametrize("name", ON_BOARDS)
def test_cells_mean_legal_actions_of_who_is_to_move_and_nothing_to_others(name: str) -> None:
    env, draws = games.make(name), random.Random(1)
    for seed in range(5):
        env.reset(seed=seed)
        game = env.unwrapped
        while env.agents and not env.terminations[env.agent_selection]:
            legal = env.infos[env.agent_selection]["legal_actions"]
            for agent in env.agents:
                actions = [cell.action for row in game.board(agent) for cell in row if cell.action is not None]
                mine = legal if agent == env.agent_selection and "hanabi" not in name else ()
                assert sorted(actions) == sorted(mine)
            env.step(draws.choice(legal))
        assert all(cell.action is None for row in game.board("player_0") for cell in row)


def test_marks_stand_where_they_were_put() -> None:
    env = games.make("tic_tac_toe")
    env.reset(seed=0)
    for action in "ae":
        env.step(action)
    rows = env.unwrapped.board("player_0")
    assert [[cell.text for cell in row] for row in rows] == [["X", "", ""], ["", "O", ""], ["", "", ""]]
    assert rows[0][1] == Cell("", "b")


def test_a_mark_falls_to_the_cell_that_means_its_column() -> None:
    env = games.make("connect_four")
    env.reset(seed=0)
    for action in "4444447":
        env.step(action)
    rows = env.unwrapped.board("player_1")
    assert [row[3].text for row in rows] == ["o", "x", "o", "x", "o", "x"]
    assert [cell.text for cell in rows[5]] == ["", "", "", "x", "", "", "x"]
    assert [cell.action for cell in rows[5]] == ["1", "2", "3", None, "5", "6", None]
    assert rows[4][6].action == "7"


def test_nobody_sees_the_own_cards() -> None:
    env = games.make("mini_hanabi")
    env.reset(seed=3)
    for agent, other in (("player_0", "player_1"), ("player_1", "player_0")):
        top, mine, theirs = env.unwrapped.board(agent)
        assert [cell.text for cell in top] == ["played", "R0", "Y0"]
        assert [cell.text for cell in mine] == [agent, "?", "?", "?"]
        assert theirs[0].text == other
        assert all(cell.text in env.observe(agent)["text"] for cell in theirs[1:])
        assert all(cell.text[0] in "RY" for cell in theirs[1:])


@pytest.mark.parametrize("name", ON_BOARDS)
def test_an_episode_has_the_board_before_each_turn_and_at_the_end(name: str) -> None:
    episode = played(name, seed=2)
    found = boards(episode)
    assert len(found.before) == len(episode.turns)
    for index, (turn, shown) in enumerate(zip(episode.turns, found.before, strict=True)):
        actions = {cell["action"] for row in shown["rows"] for cell in row} - {None}
        assert actions <= set(turn.legal_actions)
        assert texts(shown) != texts(found.before[index - 1] if index else found.final)
    assert found.final is not None


def test_the_last_board_of_a_forfeit_is_that_before_it() -> None:
    episode = played("tic_tac_toe", seed=1)
    cut = replace(episode, turns=(*episode.turns[:2], replace(episode.turns[2], action=None, legal=False)))
    found = boards(cut)
    assert texts(found.final) == texts(found.before[2])


def test_an_episode_of_a_game_without_boards_has_none() -> None:
    episode = played("kuhn_poker")
    assert boards(episode).before == (None,) * len(episode.turns)
    assert boards(episode).final is None


def test_where_it_does_not_come_out_as_it_did_there_are_no_more_boards() -> None:
    episode = played("tic_tac_toe", seed=1)
    turns = list(episode.turns)
    turns[2] = replace(turns[2], observation="something else")
    found = boards(replace(episode, turns=tuple(turns)))
    assert [shown is None for shown in found.before[:4]] == [False, False, True, True]
    assert found.final is None


def test_a_game_that_raises_or_is_gone_costs_its_boards_alone() -> None:
    episode = played("tests.games.test_boards:broken", seed=1)
    assert [shown is None for shown in boards(episode).before[:4]] == [False, True, False, True]
    gone = replace(episode, match=replace(episode.match, game="no.such.module:env"))
    assert boards(gone).before == (None,) * len(episode.turns)
    with pytest.raises(ConfigError, match=r"no\.such\.module"):
        about("no.such.module:env", {})


def test_the_board_of_a_game_in_rounds_is_that_of_the_game_inside() -> None:
    inside = signals.env()
    assert board(in_turns(inside), "player_1") is None
    inside.board = lambda agent: [[Cell(agent)]]
    assert board(in_turns(inside), "player_1") == {"rows": [[{"text": "player_1", "action": None}]]}


def test_what_a_page_needs_to_know_of_a_game() -> None:
    told = about("taboo", {})
    assert (told["agents"], told["roles"]) == (["player_0", "player_1"], ["describer", "guesser"])
    assert (told["talks"], told["form"]) == (True, "list")
    assert told["rules"].startswith("Taboo. ")
    assert not about("kuhn_poker", {})["talks"]
    assert about("matrix_game", {"talk": True})["talks"]
