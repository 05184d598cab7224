"""The index of episodes: what it finds, and what it makes of files that grow, change, are damaged or go away."""

import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from marl_llm.episodes import read_episodes
from marl_llm.errors import ConfigError, RunError
from marl_llm.metrics import win_rates
from marl_llm.watch.browser import Browser
from marl_llm.watch.index import PROBLEMS, Index
from marl_llm.watch.reading import read_one, read_whole
from marl_llm.watch.search import Search, search
from tests.watch.conftest import episode, lines, read, step_file, turn


def ids(index: Index, **wanted: object) -> list[str]:
    found = search(index, Search(**wanted))  # type: ignore[arg-type]
    assert found["total"] >= len(found["rows"])
    return [row["id"] for row in found["rows"]]


def test_every_episode_is_found_where_it_is(reader: Browser, trained: Path) -> None:
    episodes = {one.match.id: one for one in read_episodes(trained)}
    assert search(reader.index, Search())["total"] == len(episodes)
    assert set(ids(reader.index, limit=200)) == episodes.keys()
    for match, known in episodes.items():
        place = reader.index.place(match)
        assert place is not None
        assert read_one(place.file, place.offset) == known
        assert match.startswith(f"s{place.step}/")


def test_who_won_is_what_win_rates_say(reader: Browser, trained: Path) -> None:
    for one in read_episodes(trained):
        (row,) = [row for row in search(reader.index, Search(limit=200))["rows"] if row["id"] == one.match.id]
        told = {seat["agent"]: seat["outcome"] for seat in row["seats"]}
        names = {0.0: "lost", 0.5: "drew", 1.0: "won"}
        assert told == {agent: names[rate] for agent, rate in win_rates(one).items()}
        assert {seat["agent"]: seat["return"] for seat in row["seats"]} == one.returns


def test_filters_together_find_what_all_of_them_allow(written: Path) -> None:
    first = [
        episode(0, turn("player_0", "bet", observation="Card: J"), turn("player_1", "fold")),
        episode(1, turn("player_0", "check", observation="Card: Q"), turn("player_1", "illegal", legal=False)),
        episode(2, turn("player_0", "check"), turn("player_1", "x", policy="random"), first=-1.0),
    ]
    second = [
        episode(0, turn("player_0", "a"), turn("player_1", "b"), first=0.0, step=2, hidden={"correct": True}),
        episode(1, turn("player_0", "a"), first=2.0, step=2, status="truncated", hidden={"correct": False}),
    ]
    step_file(written, 1).write_bytes(lines(first))
    step_file(written, 2).write_bytes(lines(second))
    index = read(written)
    assert ids(index) == ["s2/g0/m1", "s2/g0/m0", "s1/g0/m2", "s1/g0/m1", "s1/g0/m0"]
    assert ids(index, order="oldest")[0] == "s1/g0/m0"
    assert ids(index, order="best")[0] == "s2/g0/m1"
    assert ids(index, order="worst", role="player_1") == ["s2/g0/m1", "s1/g0/m1", "s1/g0/m0", "s2/g0/m0", "s1/g0/m2"]
    assert ids(index, policy="random") == ["s1/g0/m2"]
    assert ids(index, policy="random", outcome="won") == ["s1/g0/m2"]
    assert ids(index, policy="random", outcome="lost") == []
    assert ids(index, role="player_1", policy="random", outcome="won") == ["s1/g0/m2"]
    assert ids(index, role="player_0", policy="random") == []
    assert ids(index, outcome="drew") == ["s2/g0/m0"]
    assert ids(index, outcome="illegal") == ["s1/g0/m1"]
    assert ids(index, outcome="truncated") == ["s2/g0/m1"]
    assert ids(index, outcome="fault") == []
    assert ids(index, outcome="right") == ["s2/g0/m0"]
    assert ids(index, outcome="wrong") == ["s2/g0/m1"]
    assert ids(index, first=2) == ids(index, steps=[2]) == ["s2/g0/m1", "s2/g0/m0"]
    assert ids(index, last=1, text="card j") == ["s1/g0/m0"]
    assert ids(index, text="check") == ["s1/g0/m2", "s1/g0/m1"]
    assert ids(index, text="che") == []
    assert ids(index, text="Card: Q", outcome="illegal") == ["s1/g0/m1"]
    assert ids(index, text="j bet") == ["s1/g0/m0"]
    assert ids(index, text="bet j") == []
    assert ids(index, text="?!") == []
    assert ids(index, game="kuhn_poker", limit=2, offset=2) == ["s1/g0/m2", "s1/g0/m1"]
    assert ids(index, game="chess") == []


@pytest.mark.parametrize(
    "text", ['"', "a OR b", "NEAR(", "*", "text:x", "-", "'; DROP TABLE episodes; --", "\x00", "("]
)
def test_any_text_may_be_searched_for(written: Path, text: str) -> None:
    step_file(written, 1).write_bytes(lines([episode(0, turn("player_0", "fold"))]))
    index = read(written)
    assert ids(index, text=text) == []
    assert ids(index, game=text) == []
    assert ids(index) == ["s1/g0/m0"]


@pytest.mark.parametrize(
    "wanted", [{"outcome": "lucky"}, {"order": "random"}, {"kind": "x"}, {"limit": 1000}, {"offset": -1}]
)
def test_what_is_not_allowed_is_refused(wanted: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wanted))):
        Search(**wanted)  # type: ignore[arg-type]


def test_a_line_that_is_still_being_written_waits_until_it_is_whole(written: Path) -> None:
    whole = lines([episode(0, turn("player_0", "a")), episode(1, turn("player_0", "b"))])
    first = whole.index(b"\n") + 1
    step_file(written, 1).write_bytes(whole[: first + 40])
    index = read(written)
    assert (ids(index), index.problems) == (["s1/g0/m0"], [])
    with step_file(written, 1).open("ab") as file:
        file.write(whole[first + 40 :])
    index = read(written)
    assert (ids(index), index.problems) == (["s1/g0/m1", "s1/g0/m0"], [])
    assert index.indexed == {"files": 1, "of": 1, "episodes": 2}


def test_a_damaged_line_is_named_and_skipped(written: Path) -> None:
    good = lines([episode(0, turn("player_0", "a")), episode(1, turn("player_0", "b"))]).splitlines(keepends=True)
    step_file(written, 1).write_bytes(good[0] + b'{"match": 3}\n\xff\xfe\n' + good[1])
    step_file(written, 2).write_bytes(b"\x00" * 100 + b"\n" * (PROBLEMS + 5))
    index = read(written)
    assert ids(index) == ["s1/g0/m1", "s1/g0/m0"]
    assert index.problems[0].startswith("episodes/step_000001.jsonl: line 2 is not an episode, and is skipped: ")
    assert index.problems[1].startswith("episodes/step_000001.jsonl: line 3 is not an episode")
    assert index.problems[2].startswith("episodes/step_000002.jsonl: line 1 ")
    assert index.problems[-1] == "episodes/step_000002.jsonl: 5 more lines are not episodes"


def test_a_file_that_cannot_be_read_is_named(written: Path) -> None:
    step_file(written, 1).mkdir()
    step_file(written, 2).write_bytes(lines([episode(0, turn("player_0", "a"), step=2)]))
    index = read(written)
    assert ids(index) == ["s2/g0/m0"]
    assert index.problems == ["episodes/step_000001.jsonl: cannot be read: Is a directory"]


def test_a_resumed_run_is_read_anew_from_where_it_changed(written: Path) -> None:
    for step in (1, 2, 3):
        step_file(written, step).write_bytes(lines([episode(0, turn("player_0", "old"), step=step)]))
    index = read(written)
    step_file(written, 3).unlink()
    new = step_file(written, 2).with_suffix(".tmp")
    new.write_bytes(lines([episode(7, turn("player_0", "new"), step=2)]))
    new.rename(step_file(written, 2))
    for _ in index.refresh():
        pass
    assert ids(index) == ["s2/g0/m7", "s1/g0/m0"]
    assert ids(index, text="old") == ["s1/g0/m0"]
    assert index.indexed == {"files": 2, "of": 2, "episodes": 2}


def test_branches_and_played_games_stand_beside_the_logged_ones(written: Path) -> None:
    step_file(written, 1).write_bytes(lines([episode(0, turn("player_0", "a"))]))
    (written / "whatif").mkdir()
    fields = json.loads(lines([episode(0, turn("player_0", "b"))]))
    fields["match"] |= {"id": "s1/g0/m0/t0n1", "branch": {"episode": "s1/g0/m0", "turn": 0}}
    (written / "whatif" / "step_000001.jsonl").write_text(f"{json.dumps(fields)}\n")
    fields["match"] |= {"id": "played/1", "branch": None}
    (written / "whatif" / "played.jsonl").write_text(f"{json.dumps(fields)}\n")
    index = read(written)
    assert ids(index, kind="branch") == ids(index, original="s1/g0/m0") == ["s1/g0/m0/t0n1"]
    assert ids(index, kind="played") == ["played/1"]
    assert ids(index, kind="logged") == ["s1/g0/m0"]


def test_an_index_of_another_form_or_a_damaged_one_is_no_obstacle(written: Path) -> None:
    step_file(written, 1).write_bytes(lines([episode(0, turn("player_0", "a"))]))
    with sqlite3.connect(written / "watch.sqlite") as database:
        database.execute("CREATE TABLE something(x)")
        database.execute("PRAGMA user_version = 999")
    database.close()
    assert ids(read(written)) == ["s1/g0/m0"]
    for end in ("", "-wal", "-shm"):
        (written / f"watch.sqlite{end}").unlink(missing_ok=True)
    (written / "watch.sqlite").write_bytes(b"no database " * 100)
    assert ids(read(written)) == ["s1/g0/m0"]


def test_an_index_that_cannot_be_written_says_where(written: Path) -> None:
    (written / "watch.sqlite").mkdir()
    with pytest.raises(RunError, match=r"watch\.sqlite: the index of episodes cannot be written"):
        Index(written)


def test_an_index_that_is_deleted_is_made_again(written: Path) -> None:
    step_file(written, 1).write_bytes(lines([episode(0, turn("player_0", "a"))]))
    index = read(written)
    for end in ("", "-wal", "-shm"):
        (written / f"watch.sqlite{end}").unlink(missing_ok=True)
    for _ in index.refresh():
        pass
    with ThreadPoolExecutor(1) as others:  # as requests do, from threads of their own
        assert others.submit(ids, index).result() == ["s1/g0/m0"]
    assert index.problems == []


def test_a_full_disk_spoils_nothing(written: Path) -> None:
    index = read(written)
    texts = [episode(n, turn(f"player_{n % 2}", f"{n} " * 2000, policy=f"policy {n}")) for n in range(40)]
    step_file(written, 1).write_bytes(lines(texts))
    ((pages,),) = index.rows("PRAGMA page_count")
    index.rows(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(RunError, match="disk is full"):
        list(index.refresh())
    index.rows("PRAGMA max_page_count = 100000")
    for _ in index.refresh():
        pass
    for n in range(40):
        assert ids(index, policy=f"policy {n}") == [f"s1/g0/m{n}"]


def test_what_no_database_can_hold_is_not_there(written: Path) -> None:
    step_file(written, 1).write_bytes(lines([episode(0, turn("player_0", "a"))]))
    index = read(written)
    huge = 10**30
    assert ids(index, first=-huge, last=huge) == ["s1/g0/m0"]
    assert ids(index, first=huge) == ids(index, offset=huge) == ids(index, role="\ud800") == []
    assert index.place("\ud800") is None


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("hidden", ['{"correct":NaN}', f'{{"correct":{10**400}}}', DEEP, '{"correct":1e999}'])
def test_a_line_that_nobody_can_read_is_named_and_the_rest_is_there(written: Path, hidden: str) -> None:
    one, other = lines([episode(0, turn("player_0", "a")), episode(1, turn("player_0", "b"))]).split(b"\n")[:2]
    damaged = one[:-1] + f',"hidden":{hidden}}}'.encode()
    step_file(written, 1).write_bytes(damaged + b"\n" + other + b"\n")
    index = read(written)
    assert ids(index) == ["s1/g0/m1"]
    (problem,) = index.problems
    assert problem.startswith("episodes/step_000001.jsonl: line 1 is not an episode")


@pytest.mark.parametrize(
    ("known", "damaged"),
    [
        (b'"seed":1', b'"seed":"x"'),
        (b'"legal":true', b'"legal":true,"parent":9'),
        (b'"legal":true', b'"legal":true,"rewards":{"game":"x"}'),
        (b'"tokens":[1,2,3]', b'"tokens":[-1,2,3]'),
        (b'"tokens":[1,2,3]', b'"tokens":[1]'),
        (b'"logprobs":[-0.1', b'"logprobs":["x"'),
        (b'"action":"a"', b'"action":5'),
        (b'"status":"done"', b'"status":"done","hidden":[1]'),
        (b'"seats":', b'"branch":{"episode":"s1/g0/m0","turn":1},"seats":'),
    ],
)
def test_what_is_no_episode_is_refused_when_it_is_read(written: Path, known: bytes, damaged: bytes) -> None:
    file = step_file(written, 1)
    whole = lines([episode(0, turn("player_0", "a"))])
    assert known in whole
    file.write_bytes(whole.replace(known, damaged) + whole)
    with pytest.raises(RunError, match="what begins at byte 0 is no episode"):
        read_one(file, 0)
    assert len(read_whole(file)) == 1


def test_names_that_are_no_steps_and_what_would_keep_one_waiting_are_no_obstacle(written: Path) -> None:
    line = lines([episode(0, turn("player_0", "a"))])
    for name in (f"step_{'9' * 30}.jsonl", "step_\u0663.jsonl"):
        (written / "episodes" / name).write_bytes(line)
    os.mkfifo(step_file(written, 2))
    step_file(written, 1).write_bytes(line)
    index = read(written)
    assert ids(index) == ["s1/g0/m0"]
    assert index.problems == ["episodes/step_000002.jsonl: cannot be read: Not a regular file"]


def test_a_step_that_was_played_again_is_read_anew_even_under_the_number_of_the_old_file(written: Path) -> None:
    file = step_file(written, 1)
    file.write_bytes(lines([episode(0, turn("player_0", "old"))]))
    step_file(written, 2).write_bytes(lines([episode(0, turn("player_0", "a"), step=2)]))
    before = file.stat().st_ino
    read(written)
    with file.open("r+b") as same:  # as file systems do that give a number again
        same.write(lines([episode(0, turn("player_0", "new, and longer")), episode(1, turn("player_0", "b"))]))
    assert file.stat().st_ino == before
    index = read(written)
    assert sorted(ids(index)) == ["s1/g0/m0", "s1/g0/m1", "s2/g0/m0"]
    assert (ids(index, text="old"), ids(index, text="longer"), index.problems) == ([], ["s1/g0/m0"], [])


def test_two_watchers_of_one_run_count_every_episode_once(written: Path) -> None:
    step_file(written, 1).write_bytes(lines([episode(n, turn("player_0", "a")) for n in range(3)]))
    one, other = Index(written), Index(written)
    for index in (one, other):
        for _ in index.refresh():
            pass
    assert len(ids(one)) == len(ids(other)) == 3


def test_a_text_that_is_new_or_long_is_found_and_one_that_comes_again_is_kept_once(written: Path) -> None:
    long = "begin " + "x" * 3000 + " finish"
    step_file(written, 1).write_bytes(lines([episode(n, turn("player_0", long)) for n in range(3)]))
    index = read(written)
    assert len(ids(index, text="finish")) == 3
    assert index.rows("SELECT count(*) FROM digests") == [(1,)]
