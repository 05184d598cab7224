"""Leaderboards: what is written is read again, merging is a union, and files of others are not trusted."""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marl_llm.config import GameConfig
from marl_llm.errors import ConfigError, RunError
from marl_llm.evaluation.leaderboard import FORMAT, add, merge, read, read_all, require_fit, tallies
from marl_llm.evaluation.meetings import Deal, Meeting
from marl_llm.evaluation.tournament import Mean, Tournament, tournament
from marl_llm.policies.scripted import make_scripted
from tests.evaluation.test_tournament import RPS, Always, Unreachable

WON = Deal(payoffs=(1.0, -1.0), wins=(1.0, 0.0), advantage=2.0)
LOST = Deal(payoffs=(-1.0, 1.0), wins=(0.0, 1.0), advantage=-2.0)
MET = Meeting(game=GameConfig(), seed=0, players=("a", "b"), deals=(WON, LOST, None), episodes=6, faults=1)


@st.composite
def meetings(draw: st.DrawFn) -> Meeting:
    """What came out follows from the key, as where the same is played again."""
    one, other = sorted(draw(st.tuples(*[st.sampled_from("abc")] * 2)))
    settings = draw(st.sampled_from([{}, {"players": 2}, {"players": 3, "more": [None, "x"]}]))
    game = GameConfig(name=draw(st.sampled_from(["kuhn_poker", "[red]"])), settings=settings)
    seed = draw(st.integers(-2, 2))
    even = Deal(payoffs=(seed / 3, seed / 3), wins=(0.0, 0.0), advantage=0.0)
    deals = (WON, None, LOST)[: 1 + seed % 3] if one != other else (even, None)
    return Meeting(game=game, seed=seed, players=(one, other), deals=deals, episodes=6, faults=1)


boards = st.lists(meetings(), max_size=6)


@given(boards, boards, boards)
def test_merging_is_associative_commutative_and_idempotent(
    one: list[Meeting], two: list[Meeting], three: list[Meeting]
) -> None:
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(one, two) == merge(two, one)
    assert merge(one, one) == merge(one) == merge(merge(one))
    assert {json.dumps(met.game.settings) for met in merge(one)} == {json.dumps(met.game.settings) for met in one}


@given(boards, boards)
def test_where_two_differ_every_order_of_merging_refuses(one: list[Meeting], two: list[Meeting]) -> None:
    other = replace(MET, faults=0)
    for parts in (([MET], one, [other], two), (two, [other], [MET, *one]), ([*one, other], two, [MET])):
        with pytest.raises(RunError, match=r"^game 'kuhn_poker', seed 0, 'a' against 'b': known with other results"):
            merge(*parts)


def test_what_is_written_is_read_again_and_in_whatever_order_the_same_file(tmp_path: Path) -> None:
    mets = [MET, replace(MET, seed=-7), replace(MET, players=("a", "\u202ec")), replace(MET, game=RPS)]
    for name, order in (("x", mets), ("y", mets[::-1])):
        for met in order:
            known = add(tmp_path / name, [met])
    assert read(tmp_path / "x") == known == merge(mets)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert read_all([tmp_path / "x", tmp_path / "y"]) == known
    (tmp_path / "link").symlink_to("x")
    add(tmp_path / "link", [replace(MET, seed=8)])
    assert (tmp_path / "link").is_symlink()
    assert len(read(tmp_path / "x")) == 5


def numbers(result: Tournament) -> dict[str, Any]:
    """All but the order of players, and notes of faults, which stay with whoever played."""
    assert result.players == tuple(sorted(result.players))
    return {key: value for key, value in result.to_json().items() if key != "fault_notes"}


def test_the_standings_of_a_file_are_those_of_the_tournament(tmp_path: Path) -> None:
    kuhn = {"cfr": make_scripted("cfr", {"iterations": 10}), "gone": Unreachable(0, deal=2), "random": Always(1)}
    dilemma = GameConfig(name="matrix_game", settings={"max_rounds": 3})
    kinds = {"kind": make_scripted("tit_for_tat", {}), "mean": Always(1)}
    played = [tournament(GameConfig(), kuhn, num_games=5, seed=1), tournament(dilemma, kinds, num_games=3, seed=1)]
    for result in played:
        add(tmp_path / "board", result.meetings)
    found = tallies(read(tmp_path / "board"))
    assert [numbers(result) for result in found] == [numbers(result) for result in played]
    assert found[0].faults == {"cfr against gone": 1, "gone against random": 1}


def test_players_who_met_on_other_seeds_pool_their_deals_and_strangers_have_an_empty_cell() -> None:
    """a wins two of three and loses one; b beats c; a and c never met."""
    (result,) = tallies(
        [MET, replace(MET, seed=1, deals=(WON,)), replace(MET, players=("b", "c"), deals=(WON, WON), faults=0)]
    )
    assert result.players == ("a", "b", "c")
    assert result.pairings["a", "b"].deals == result.pairings["b", "a"].deals == 3
    assert result.pairings["a", "b"].payoff.mean == pytest.approx(1 / 3)
    assert result.pairings["b", "a"].win_rate == pytest.approx(1 / 3)
    assert result.pairings["b", "c"].advantage == Mean(mean=2.0, low=2.0, high=2.0)
    assert result.to_json()["payoff"]["mean"][0][2] is None
    assert result.ratings["b"].mu > result.ratings["c"].mu
    assert (result.episodes, result.faults) == (18, {"a against b": 2})


def test_a_ring_shows_when_files_come_together() -> None:
    """Each file knows one arrow."""
    won = replace(MET, game=RPS, deals=(WON, WON), faults=0)
    lost = replace(won, deals=(LOST, LOST), players=("a", "c"))
    (result,) = tallies(merge([won], [replace(won, players=("b", "c"))], [lost]))
    assert result.cycles == (("a", "b", "c"),)
    assert list(result.alpha_rank.values()) == pytest.approx([1 / 3] * 3)


def test_games_with_other_settings_are_other_games() -> None:
    three = replace(MET, game=GameConfig(settings={"players": 3}))
    assert [result.game.settings for result in tallies([three, MET])] == [{"players": 3}, {}]


def row(**other: Any) -> dict[str, Any]:
    told = {"game": "g", "settings": {}, "seed": 0, "players": ["a", "b"], "episodes": 2, "faults": 0}
    return {**told, "deals": [[1, -1, 1, 0, 2]], **other}


def board(*rows: Any, told: str = FORMAT) -> str:
    return json.dumps({"format": told, "meetings": rows})


DEEP: dict[str, Any] = {}
for _ in range(25):
    DEEP = {"x": DEEP}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "Expecting value"),
        (board(row())[:-9], r"Expecting value: line 1 column \d+"),
        ("[1]", "not a leaderboard"),
        ("[" * 100_000, "nested too deeply"),
        ('{"meetings": []}', "not a leaderboard"),
        (board(told="marl-llm leaderboard, version 2"), "its format is 'marl-llm leaderboard, version 2'; this"),
        (board(row(), {}), "meeting 2: it must be an object of deals, episodes, faults, game"),
        (board(row(more=1)), "meeting 1: it must be an object of"),
        (board(row(game=3)), "game: 3 is not allowed"),
        (board(row(settings=[1])), r"settings: \[1\] is not allowed"),
        (board(row(settings=DEEP)), "nested at most 20 deep"),
        (board(row(settings={"x": float("nan")})), "meeting 1: Out of range float values"),
        (board(row(seed=True)), "seed: True is not allowed; it must be a whole number"),
        (board(row(seed=0.5)), "seed: 0.5"),
        (board(row(faults=3)), "faults: 3 is not allowed; it must be 0 or more, and no more than episodes"),
        (board(row(players=["b", "a"])), r"players: \['b', 'a'\] .* in alphabetical order"),
        (board(row(players=["a", "b" * 101])), "two names of 1 to 100 characters"),
        (board(row(players=["", "b"])), "two names of 1 to 100 characters"),
        (board(row(players=["a", 7])), "two names"),
        (board(row(deals=[])), "a list of one or more"),
        (board(row(deals=[[1, 2]])), r"deals: \[1, 2\] is not allowed; it must be null or five numbers"),
        (board(row(deals=[[float("nan"), 0, 0, 0, 0]])), r"deals: \[nan, 0"),
        (board(row(deals=[[1e300, 0, 0, 0, 0]])), "five numbers of at most 1e"),
        (board(row(deals=[[10**400, 0, 0, 0, 0]])), "five numbers of at most 1e"),
        (board(row(deals=[[0, 0, True, 0, 0]])), "five numbers"),
        (board(row(deals=[[0, 0, 1.5, 0, 0]])), "two payoffs, two shares and an advantage"),
        (board(row(players=["a", "a"])), "even where a player meets itself"),
        (board(row(), row(deals=[None])), "game 'g', seed 0, 'a' against 'b': known with other results"),
        ('{"format": "\xff"}', "'utf-8' codec can't decode"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it_and_stays_as_it_is(
    content: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "board.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError, match=problem) as refused:
        read_all([path])
    line = str(refused.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 500 + len(str(path))
    with pytest.raises(RunError, match=problem):
        add(path, [MET])
    assert path.read_bytes() == content.encode("latin-1")


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    before = add(path, [MET])
    for wrong in (float("nan"), 1e13):
        deal = replace(WON, payoffs=(wrong, 0.0))
        with pytest.raises(RunError, match=r"board\.json cannot hold this: "):
            add(path, [replace(MET, seed=1, deals=(deal,))])
    assert read(path) == before


def test_who_and_what_a_leaderboard_could_not_hold_is_refused_before_it_is_played() -> None:
    require_fit(GameConfig(settings={"players": 2}), ["a" * 100])
    with pytest.raises(ConfigError, match=r"at most 100 characters long in a leaderboard; NAME=SPEC gives it a name"):
        require_fit(GameConfig(), ["random", f"run:{'x' * 97}"])
    with pytest.raises(ConfigError, match=r"cannot hold the settings \{'scale': nan\}"):
        require_fit(GameConfig(settings={"scale": float("nan")}), ["a"])


@contextmanager
def no_more_than(size: int) -> Iterator[None]:
    """As on a full disk, the operating system writes no file beyond this size (bytes)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    before = add(path, [MET])
    with (
        no_more_than(path.stat().st_size),
        pytest.raises(RunError, match=r"could not write .*board\.json: File"),
    ):
        add(path, [replace(MET, seed=1)])
    assert read(path) == before
    with pytest.raises(RunError, match=r"could not write .*nowhere"):
        add(tmp_path / "nowhere" / "board.json", [MET])
    with pytest.raises(RunError, match=r"could not read .*: Is a directory"):
        read(tmp_path)
    with pytest.raises(RunError, match="gone: no such file"):
        read(tmp_path / "gone")


ADDS = """
import sys
from dataclasses import replace
from pathlib import Path
from marl_llm.evaluation.leaderboard import add
from tests.evaluation.test_leaderboard import MET
for seed in range(int(sys.argv[2]), int(sys.argv[3])):
    add(Path(sys.argv[1]), [replace(MET, seed=seed)])
    print(seed, flush=True)
"""


def test_processes_that_add_at_once_lose_nothing_even_when_one_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    ranges = [(0, 15), (100, 10**6)]
    adding = [
        subprocess.Popen([sys.executable, "-c", ADDS, path, *map(str, seeds)], stdout=subprocess.PIPE, text=True)
        for seeds in ranges
    ]
    killed = adding[1]
    assert killed.stdout is not None
    for _ in range(15):
        killed.stdout.readline()
    killed.kill()
    told = [100 + number for number in range(15)] + [int(line) for line in killed.stdout]
    killed.stdout.close()
    killed.wait()
    assert adding[0].communicate()[0].split() == [str(seed) for seed in range(15)]
    known = {met.seed for met in read(path)}
    assert known >= {*range(15), *told}
