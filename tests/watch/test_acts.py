"""The server's side of the process that acts: asked, killed, begun anew, and ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from marl_llm.run import read_episodes, whatif_file
from marl_llm.watch.acts import ActError, Acts, _Child
from tests.watch.trained import trained


def branch(run: Path, **request: Any) -> dict[str, Any]:
    file = str(run / "episodes" / "step_000002.jsonl")
    return {"do": "branch", "file": file, "offset": 0, "turn": 2, **request}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def acts(run: Path) -> Iterator[Acts]:
    acts = Acts(run)
    yield acts
    acts.close()


def child(acts: Acts) -> "subprocess.Popen[str]":
    assert acts._child is not None
    return acts._child._process


def test_it_is_started_when_it_is_first_asked_and_progress_is_told(run: Path, acts: Acts) -> None:
    told: list[dict[str, Any]] = []
    assert acts._child is None
    result = acts.ask(branch(run, n=2, id="s2/g0/m0"), told.append)
    assert result["episodes"] == ["s2/g0/m0/t2wn0", "s2/g0/m0/t2wn1"]
    assert [episode.match.id for episode in read_episodes(whatif_file(run, 2))] == result["episodes"]
    assert told[0] == {"doing": "starting the process that plays", "done": 0, "of": 1}
    assert told[1] == {"doing": "loading the policies of step 1", "done": 0, "of": 2}
    assert told[-1] == {"doing": "playing", "done": 2, "of": 2}


def test_what_is_refused_is_an_error_and_the_process_goes_on(run: Path, acts: Acts) -> None:
    with pytest.raises(ActError, match="turn: 99 is not allowed"):
        acts.ask(branch(run, turn=99))
    before = child(acts)
    assert acts.ask({"do": "play", "game": "game", "against": "random"})["legal_actions"] == list("abcdefghi")
    assert child(acts) is before


def test_several_threads_wait_for_each_other(acts: Acts) -> None:
    tables: list[str] = []

    def begin() -> None:
        tables.append(acts.ask({"do": "play", "game": "game", "against": "random"})["table"])

    threads = [Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(tables)) == 4


def test_one_that_is_killed_fails_its_request_and_the_next_one_starts_another(run: Path, acts: Acts) -> None:
    table = acts.ask({"do": "play", "game": "game", "against": "random"})["table"]

    def kill(progress: dict[str, Any]) -> None:
        os.kill(child(acts).pid, signal.SIGKILL)

    with pytest.raises(ActError, match=r"the process that plays has died \(signal 9.*\), .*: ask again"):
        acts.ask(branch(run, policy="mcts:1000", n=64), kill)
    with pytest.raises(ActError, match=f"table {table} is gone: the process that played there has ended"):
        acts.ask({"do": "move", "table": table, "reply": "a"})
    again = acts.ask({"do": "play", "game": "game", "against": "random"})["table"]
    assert int(again[1:]) > int(table[1:]), "who is at the old table does not sit down at another one's"


def test_one_that_died_while_nobody_asked_is_replaced_without_a_word(acts: Acts) -> None:
    child(acts).kill()
    child(acts).wait()
    assert acts.ask({"do": "play", "game": "game", "against": "random"})["table"]


def test_it_ends_by_itself_when_nobody_can_ask_any_more(run: Path, acts: Acts) -> None:
    errors: list[str] = []
    process, begun = child(acts), []

    def begin() -> None:
        try:
            acts.ask(branch(run, policy="mcts:20000", n=64), begun.append)
        except ActError as error:
            errors.append(str(error))

    thread = Thread(target=begin)
    thread.start()
    while not begun:
        thread.join(0.01)
    acts.close()
    thread.join()
    assert process.returncode == 0, "it was not killed, and did not play to the end"
    assert len(errors) == 1
    with pytest.raises(ActError, match="the watcher is closing"):
        acts.ask(branch(run))


def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    acts = Acts(tmp_path)
    with pytest.raises(ActError, match=r"has died \(exit code 1, .*not a run directory"):
        acts.ask(branch(tmp_path))
    acts.close()


def test_the_server_loads_no_model_library() -> None:
    code = (
        "import sys\n"
        "from marl_llm.watch.acts import Acts\n"
        "from marl_llm.watch.boards import about, boards\n"
        "assert about('tic_tac_toe', {})['form'] == 'board'\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_what_is_closed_while_it_starts_is_ended_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acts, begun, go_on = Acts(run), Event(), Event()
    start = _Child.__init__

    def slowly(child: _Child, *given: Any) -> None:
        begun.set()
        go_on.wait(20)
        start(child, *given)

    monkeypatch.setattr(_Child, "__init__", slowly)
    errors: list[ActError] = []

    def ask() -> None:
        try:
            acts.ask(branch(run))
        except ActError as error:
            errors.append(error)

    asker, closer = Thread(target=ask), Thread(target=acts.close)
    asker.start()
    assert begun.wait(20)
    closer.start()
    go_on.set()
    for thread in (asker, closer):
        thread.join(60)
        assert not thread.is_alive()
    assert len(errors) == 1
