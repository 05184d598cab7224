"""The run directory: what it holds, that it survives kill -9 and a full disk, and that it says what is wrong."""

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from marl_llm.checkpoints import checkpoint_path, checkpoint_values, latest_checkpoint, list_checkpoints
from marl_llm.config import Config, RunConfig
from marl_llm.episodes import episode_from_json, episode_to_json
from marl_llm.errors import ConfigError, RunError
from marl_llm.run import (
    Run,
    keep_whatif,
    latest_run,
    read_episodes,
    read_evaluation,
    read_metrics,
    whatif_file,
    whatif_ids,
)
from marl_llm.types import Branch, Completion, Episode, Match, Turn

MATCH = Match(id="s1/g0/m0", game="kuhn_poker", seed=7, group="s1/g0", seats={"player_*": "agent"})
COMPLETION = Completion(tokens=(5, 6), logprobs=(-0.1, math.log(1 / 3)), stop="eos", versions=(3, 3))
MODEL_TURN = Turn(
    agent="player_0",
    role="player_0",
    policy="agent",
    observation="Your card: K — “go”\u2028",
    legal_actions=("bet", "pass"),
    prompt=(1, 2, 3),
    completion=COMPLETION,
    reply="<answer>bet</answer>",
    action="bet",
    legal=True,
    rewards={"outcome": 0.1 + 0.2, "judge": None},
    parent=0,
    state_key="K",
    weight=0.5,
    probes={"value": 1e-300},
)
BARE_TURN = Turn(
    agent="player_1", role="x", policy="random", observation="", reply="?", action=None, legal=False, rewards={}
)
EPISODE = Episode(match=MATCH, turns=(MODEL_TURN, BARE_TURN), returns={"player_0": 1.0, "player_1": -1.0})


def settings(folder: Path, **changes: object) -> Config:
    return Config(run=replace(RunConfig(name="kuhn", dir=str(folder), seed=3), **changes))


def weights(text: str):  # type: ignore[no-untyped-def]
    return lambda folder: (folder / "model.safetensors").write_text(text)


def steps_of(path: Path) -> list[float | None]:
    return [row["step"] for row in read_metrics(path)]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The disk, as it were, takes no file of more than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- the JSON form of an episode ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "episode",
    [
        EPISODE,
        Episode(match=MATCH, turns=(), returns={}, status="fault", note="engine died"),
        replace(
            EPISODE,
            match=replace(MATCH, branch=Branch(episode="s1/g0/m1", turn=2, token=4)),
            hidden={"gold": [1, {"a": None}]},
        ),
        replace(
            EPISODE, match=replace(MATCH, branch=Branch(episode="s1/g0/m1", turn=2)), status="truncated", note="context"
        ),
        replace(EPISODE, match=replace(MATCH, member=2, settings={"num_players": 3})),
        replace(EPISODE, turns=(replace(MODEL_TURN, legal=None, completion=None, prompt=(), legal_actions=()),)),
    ],
)
def test_an_episode_comes_back_as_it_was(episode: Episode) -> None:
    assert episode_from_json(episode_to_json(episode)) == episode
    assert "\n" not in episode_to_json(episode)


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    logprobs=st.lists(numbers).map(tuple),
    rewards=st.dictionaries(st.text(), st.none() | numbers),
    text=st.text(),
    settings=st.dictionaries(st.text(), st.integers() | st.booleans() | st.text() | st.lists(numbers)),
)
def test_any_number_and_any_text_comes_back_exactly(logprobs, rewards, text, settings) -> None:  # type: ignore[no-untyped-def]
    completion = replace(COMPLETION, logprobs=logprobs)
    turn = replace(MODEL_TURN, completion=completion, rewards=rewards, reply=text, action=text)
    episode = replace(EPISODE, turns=(turn,), match=replace(MATCH, settings=settings))
    assert repr(episode_from_json(episode_to_json(episode))) == repr(episode)


def test_without_tokens_the_text_stays() -> None:
    (turn, _) = episode_from_json(episode_to_json(EPISODE, tokens=False)).turns
    assert turn == replace(MODEL_TURN, prompt=None, completion=None)


def test_a_line_leaves_out_what_is_absent() -> None:
    line = json.loads(episode_to_json(EPISODE))
    assert line["turns"][1].keys() == {"agent", "role", "policy", "observation", "reply", "action", "legal"}
    assert "branch" not in line
    assert "note" not in line


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        episode_to_json(replace(EPISODE, returns={"player_0": math.nan}))


def test_what_json_cannot_express_is_refused() -> None:
    with pytest.raises(TypeError, match="JSON cannot express"):
        episode_to_json(replace(EPISODE, hidden={"gold": {1, 2}}))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "it is not an object"),
        ("{}", "'match' is missing"),
        (episode_to_json(EPISODE).replace('"seed":7,', ""), "seed"),
        (episode_to_json(EPISODE).replace('"agent":', '"agnet":'), "agnet"),
        (episode_to_json(EPISODE).replace('"returns":', '"retruns":'), "retruns"),
        (episode_to_json(EPISODE).replace('"prompt":[1,2,3]', '"prompt":3'), "not iterable"),
    ],
)
def test_a_malformed_episode_is_named_by_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(f"{episode_to_json(EPISODE)}\n{line}\n")
    episodes = read_episodes(file)
    assert next(episodes) == EPISODE
    with pytest.raises(RunError, match=rf"log.jsonl:2: not an episode: .*{reason}"):
        next(episodes)


def test_a_file_without_a_final_newline_is_read(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(episode_to_json(EPISODE))
    assert list(read_episodes(tmp_path / "log.jsonl")) == [EPISODE]


def test_six_hundred_turns_are_written_within_a_step(tmp_path: Path) -> None:
    numbers = tuple(math.log((i + 1) / 99) for i in range(16))
    completion = Completion(tokens=tuple(range(16)), logprobs=numbers, stop="eos", versions=(1,) * 16)
    turn = replace(MODEL_TURN, prompt=tuple(range(100)), completion=completion)
    episodes = [replace(EPISODE, turns=(turn,) * 3)] * 200
    with Run.create(settings(tmp_path)) as run:
        seconds = []
        for step in range(5):
            began = time.perf_counter()
            run.episodes(step, episodes, tokens=True)
            seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.1, "30 ms on a quiet machine"


# --- the directory -----------------------------------------------------------------------------------------------


def test_a_run_directory_holds_what_the_readme_says(tmp_path: Path) -> None:
    config = settings(tmp_path / "runs")
    with Run.create(config) as run:
        run.episodes(12, [EPISODE], tokens=True)
        run.step(12, {"play/illegal_fraction": 0.25, "undefined": math.nan})
        run.checkpoint(12, weights("w"), {"rng": [1, 2]})
        run.evaluation(12, {"exploitability": 0.5})
    path = tmp_path / "runs" / "kuhn-seed3-1"
    assert run.path == path
    assert Run.config(path) == config
    (row,) = read_metrics(path)
    assert row | {"time_s": 0} == {"step": 12, "time_s": 0, "play/illegal_fraction": 0.25, "undefined": None}
    assert list(read_episodes(path)) == list(read_episodes(path / "episodes" / "step_000012.jsonl")) == [EPISODE]
    checkpoint = path / "checkpoints" / "step_12"
    assert latest_checkpoint(path) == run.latest_checkpoint() == (12, checkpoint)
    assert checkpoint_path(path, 12) == checkpoint
    assert (checkpoint / "model.safetensors").read_text() == "w"
    assert checkpoint_values(checkpoint) == {"rng": [1, 2]}
    assert read_evaluation(path, 12) == {"exploitability": 0.5}
    assert read_evaluation(path, 0) is None
    assert not list(path.rglob(".*"))


@pytest.mark.parametrize("content", [b"", b'{"exploitability": 0.', b"\xff", b"[]"])
def test_a_damaged_evaluation_is_named_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "step_3.json").write_bytes(content)
    with pytest.raises(RunError, match=r"evaluations/step_3.json: damaged \(.*\); delete it to measure again$"):
        read_evaluation(tmp_path, 3)


def test_files_that_are_no_steps_episodes_are_left_alone(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        strays = [run.path / "episodes" / name for name in ("step_copy.jsonl", "step_1.jsonl.bak", "step_.jsonl")]
        for stray in strays:
            stray.write_text("not an episode")
        run.episodes(1, [EPISODE], tokens=True)
        assert list(read_episodes(run.path)) == [EPISODE]
        run.rewind(None)
        assert list(read_episodes(run.path)) == []
        assert all(stray.exists() for stray in strays)


def test_two_runs_never_share_a_directory(tmp_path: Path) -> None:
    config = settings(tmp_path)
    with Run.create(config) as one, Run.create(config) as two, Run.create(settings(tmp_path, seed=4)) as other:
        assert [run.path.name for run in (one, two, other)] == ["kuhn-seed3-1", "kuhn-seed3-2", "kuhn-seed4-1"]
        assert latest_run(config) == two.path
    assert latest_run(settings(tmp_path, seed=5)) is None
    assert latest_run(settings(tmp_path / "elsewhere")) is None


def test_a_path_of_ones_own_must_be_new(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path), tmp_path / "mine") as run:
        assert run.path == tmp_path / "mine"
    (tmp_path / "file").touch()
    for taken in ("mine", "file"):
        with pytest.raises(RunError, match=f"{taken} exists already"):
            Run.create(settings(tmp_path), tmp_path / taken)
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "file"}


def test_what_is_not_a_run_directory_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError, match="not a run directory"):
            Run.open(path)
    with pytest.raises(RunError, match="no folder episodes"):
        read_episodes(tmp_path)
    for read in (read_episodes, read_metrics):
        with pytest.raises(RunError, match="no such file"):
            read(tmp_path / "missing")
    (tmp_path / "config.yaml").write_text("run: {sed: 1}")
    with pytest.raises(ConfigError, match="nearest valid name: seed"):
        Run.open(tmp_path)


def test_a_directory_in_use_is_refused_with_the_process_that_uses_it(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        script = f"from marl_llm.run import Run; Run.open({str(run.path)!r})"
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert f"{run.path} is in use by process {os.getpid()}" in other.stderr.splitlines()[-1]
    Run.open(run.path).close()


def test_a_malformed_metrics_line_is_named(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        run.step(1, {"a": 1.0})
    file = run.path / "metrics.jsonl"
    good = file.read_text()
    for bad in ("{}", "nonsense", "[]", '{"step":"1","time_s":0}', '{"step":1,"time_s":null}', "\xff"):
        file.write_bytes(f"{good}{bad}\n{good}".encode("latin-1"))
        with pytest.raises(RunError, match=r"metrics.jsonl:2: not the metrics of a step"):
            read_metrics(file)


def test_tensorboard_shows_the_metrics_and_hides_what_was_played_again(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        run.checkpoint(0, weights("w"), None)
        for step in (1, 2, 3):
            run.step(step, {"a": float(step), "b": math.inf})
            if step == 1:
                run.checkpoint(1, weights("w"), None)
    with Run.open(run.path) as run:
        run.rewind(1)
        run.step(2, {"a": 20.0})
    board = EventAccumulator(str(run.path / "tensorboard"))
    board.Reload()
    assert board.Tags()["scalars"] == ["a"]
    assert [(event.step, event.value) for event in board.Scalars("a")] == [(1, 1.0), (2, 20.0)]


# --- checkpoints and resuming ------------------------------------------------------------------------------------


def play(run: Run, first: int, last: int, every: int = 2) -> None:
    """Steps `first` to `last`, in the order that the trainer writes them."""
    for step in range(first, last + 1):
        if step > 0:
            run.episodes(step, [EPISODE], tokens=False)
            run.step(step, {"loss": 1.0 / step})
        if step % every == 0:
            run.checkpoint(step, weights(f"weights {step}"), {"step": step})


def test_only_the_newest_checkpoints_and_the_first_stay(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path, keep_checkpoints=2)) as run:
        play(run, 0, 9)
    assert [step for step, _ in list_checkpoints(run.path / "checkpoints")] == [0, 6, 8]


def test_rewinding_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        play(run, 0, 5)
        run.evaluation(0, {})
        run.evaluation(5, {})
    with Run.open(run.path) as run:
        assert run.latest_checkpoint() == (4, run.path / "checkpoints" / "step_4")
        run.rewind(4)
        assert steps_of(run.path) == [1, 2, 3, 4]
        assert len(list(read_episodes(run.path))) == 4
        assert read_evaluation(run.path, 5) is None
        assert read_evaluation(run.path, 0) == {}
        play(run, 5, 6)
        run.rewind(2)
        assert latest_checkpoint(run.path) == (2, run.path / "checkpoints" / "step_2")
        play(run, 3, 3)
    assert steps_of(run.path) == [1, 2, 3]


def test_what_people_asked_for_is_kept_while_it_is_trained_and_stays_when_it_is_rewound(tmp_path: Path) -> None:
    branch = replace(EPISODE, match=replace(EPISODE.match, id="s3/g0/m0/t0wn0"))
    with Run.create(settings(tmp_path)) as run:
        play(run, 0, 3)
        assert keep_whatif(run.path, 3, [branch]) == [branch]
        run.rewind(2)
    assert list(read_episodes(whatif_file(run.path, 3))) == [branch]
    assert whatif_ids(run.path, 3) == {"s3/g0/m0/t0wn0"}
    assert whatif_ids(run.path, None) == set()
    assert len(list(read_episodes(run.path))) == 2


def test_where_branches_cannot_be_written_it_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "whatif").write_text("a file")
    with pytest.raises(RunError, match=r"could not write .*whatif"):
        keep_whatif(tmp_path, 3, [replace(EPISODE, match=replace(EPISODE.match, id="x1"))])


def test_without_a_checkpoint_everything_is_played_again(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        run.episodes(1, [EPISODE], tokens=True)
        run.step(1, {})
    with Run.open(run.path) as run:
        assert run.latest_checkpoint() is None
        run.rewind(None)
        assert steps_of(run.path) == list(read_episodes(run.path)) == []


def test_a_half_written_last_line_is_forgotten(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        play(run, 0, 2)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step":3,"ti')
    assert steps_of(run.path) == [1, 2]
    with Run.open(run.path) as run:
        run.rewind(2)
        play(run, 3, 3)
    assert steps_of(run.path) == [1, 2, 3]


def test_time_goes_on_from_the_last_line_that_was_kept(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        play(run, 0, 2)
    file = run.path / "metrics.jsonl"
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert 0 <= first["time_s"] <= second["time_s"] < 60
    file.write_text("".join(json.dumps(row | {"time_s": 1000.0 * row["step"]}) + "\n" for row in (first, second)))
    with Run.open(run.path) as run:
        run.rewind(2)
        play(run, 3, 3)
    assert 2000 <= (read_metrics(run.path)[-1]["time_s"] or 0) < 2060


def test_a_checkpoint_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        for text in ("first", "second"):
            run.checkpoint(0, weights(text), None)
    assert (run.path / "checkpoints/step_0/model.safetensors").read_text() == "first"


@pytest.mark.parametrize(
    ("file", "content", "damage"),
    [
        ("model.safetensors", "weights 5", "model.safetensors has changed since it was written"),
        ("model.safetensors", "weight", "model.safetensors has 6 bytes instead of 9"),
        ("model.safetensors", None, "model.safetensors is missing"),
        ("values.json", '{"step": 5}', "values.json has changed since it was written"),
        ("manifest.json", None, "manifest.json is missing or malformed"),
        ("manifest.json", "{", "manifest.json is missing or malformed"),
        ("manifest.json", '{"a": 1}', "manifest.json is missing or malformed"),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_way_out(
    tmp_path: Path, file: str, content: str | None, damage: str
) -> None:
    with Run.create(settings(tmp_path)) as run:
        play(run, 0, 4)
    newest = run.path / "checkpoints" / "step_4"
    (newest / file).unlink()
    if content is not None:
        (newest / file).write_text(content)
    with pytest.raises(RunError, match=rf"step_4 is damaged: {damage}; delete that folder to go on from step 2"):
        latest_checkpoint(run.path)
    with pytest.raises(RunError, match=rf"step_4 is damaged: {damage}"):
        checkpoint_path(run.path, 4)
    shutil.rmtree(newest)
    assert latest_checkpoint(run.path) == (2, run.path / "checkpoints" / "step_2")


def test_without_an_intact_checkpoint_the_message_says_so(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        play(run, 0, 0)
    (run.path / "checkpoints/step_0/values.json").unlink()
    with pytest.raises(RunError, match=r"values.json is missing; no older checkpoint can be used"):
        latest_checkpoint(run.path)
    with pytest.raises(RunError, match=r"no checkpoint of step 7; there are \[0\]"):
        checkpoint_path(run.path, 7)


# --- kill -9 -----------------------------------------------------------------------------------------------------

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from marl_llm.run import Run, latest_run, read_episodes, read_metrics
sys.path.insert(0, {tests!r})
from test_run import play, settings

def session(config):
    path = latest_run(config)
    if path is None:
        run, first = Run.create(config), 0
    else:
        run = Run.open(path)
        found = run.latest_checkpoint()
        run.rewind(found[0] if found else None)
        first = found[0] + 1 if found else 0
    with run:
        play(run, first, first + {steps})

def killed_session(config, arm):
    child = os.fork()
    if child == 0:
        arm()
        session(config)
        os._exit(0)
    return child

def check(config):
    path = latest_run(config)
    if path is None:
        return -1  # killed before there was a directory
    with Run.open(path) as run:
        found = run.latest_checkpoint()
        last = found[0] if found else None
        run.rewind(last)
    steps = [row["step"] for row in read_metrics(path)]
    assert steps == list(range(1, (last or 0) + 1)), (last, steps)
    assert len(list(read_episodes(path))) == len(steps)
    if found:
        assert (found[1] / "model.safetensors").read_text() == f"weights {{last}}"
    return last or 0
"""


def run_script(script: str, folder: Path, steps: int) -> str:
    preamble = KILLED.format(tests=str(Path(__file__).parent), steps=steps)
    code = preamble + f"config = settings(Path({str(folder)!r}), keep_checkpoints=1)\n" + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: these tests write some thousand files and wait for each."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else tmp_path) as folder:
        yield Path(folder)


def test_a_run_killed_before_any_file_operation_can_be_resumed(memory_folder: Path) -> None:
    """Python announces each change of a file's name or existence; the child dies at the n-th, for every n."""
    script = """
    import shutil
    def arm():
        left = n
        def hook(event, details):
            nonlocal left
            writes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate") or (
                event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR))
            left -= writes
            if writes and left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
    runs, base = Path(config.run.dir), Path(config.run.dir + "-base")
    session(config)
    runs.rename(base)  # with records after its last checkpoint, so that resuming deletes some
    for start in ("nothing", "base"):
        for n in range(1000):
            shutil.rmtree(runs, ignore_errors=True)
            if start == "base":
                shutil.copytree(base, runs)
            _, status = os.waitpid(killed_session(config, arm), 0)
            check(config)
            if os.WIFEXITED(status):
                break
        print(n)
    """
    fresh, resumed = map(int, run_script(script, memory_folder / "runs", steps=3).split())
    assert fresh > 20
    assert resumed > 20


def test_a_run_killed_at_random_moments_makes_progress(memory_folder: Path) -> None:
    script = """
    chance, reached = random.Random(0), []
    while len(reached) < 15 or reached[-1] <= 0:  # a loaded machine gets longer lives, until one saves something
        child = killed_session(config, lambda: None)
        time.sleep(chance.uniform(0, 0.15) * (1 + len(reached) // 15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reached.append(check(config))
    assert reached == sorted(reached), reached
    print(reached[-1])
    """
    assert int(run_script(script, memory_folder / "runs", steps=1000)) > 0


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    run = Run.create(settings(tmp_path))
    run.close()
    script = f"from marl_llm.run import Run; r = Run.open({str(run.path)!r}); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"in use by process {other.pid}"):
            Run.open(run.path)
        other.send_signal(signal.SIGKILL)
        other.wait()
        Run.open(run.path).close()


# --- a disk that is full -----------------------------------------------------------------------------------------


def test_when_nothing_can_be_written_one_line_says_what_and_files_stay(tmp_path: Path) -> None:
    with Run.create(settings(tmp_path)) as run:
        play(run, 0, 2)
        before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
        big = replace(EPISODE, note="x" * 20_000)
        with file_size_limit(10_000):
            with pytest.raises(RunError, match=r"^could not write .*step_000003.jsonl: File too large$"):
                run.episodes(3, [big], tokens=True)
            with pytest.raises(RunError, match=r"^could not write .*metrics.jsonl: File too large$"):
                run.step(3, {f"metric {i}": 0.5 for i in range(1000)})
            with pytest.raises(RunError, match=r"^could not write .*checkpoints/step_1: File too large$"):
                run.checkpoint(1, weights("x" * 20_000), None)
        assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
        play(run, 3, 4)
    assert steps_of(run.path) == [1, 2, 3, 4]


FULL = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from marl_llm.errors import RunError
from marl_llm.run import Run, latest_checkpoint
sys.path.insert(0, {tests!r})
from test_run import play, settings
run = Run.create(settings(Path(sys.argv[1])))
play(run, 0, 2)
big = torch.zeros(1_000_000)
writers = [lambda f: save_file({{"w": big}}, f / "a"), lambda f: torch.save(big, f / "a"),
           lambda f: (f / "a").write_bytes(bytes(4_000_000))]
for write in writers:
    try:
        run.checkpoint(1, write, None)
    except RunError as error:
        print(error)
filler = open(Path(sys.argv[1]) / "filler", "wb", buffering=0)
try:
    while filler.write(bytes(4096)): pass
except OSError: pass
for attempt in (
    lambda: play(run, 3, 3),
    lambda: run.step(3, {{f"metric {{i}}": 0.5 for i in range(1000)}}),
    lambda: run.evaluation(3, {{}}),
    lambda: Run.create(settings(Path(sys.argv[1]))),
):
    try:
        attempt()
    except RunError as error:
        print(error)
run.close()
filler.truncate(0)
with Run.open(run.path) as run:
    run.rewind(run.latest_checkpoint()[0])
    play(run, 3, 4)
print(latest_checkpoint(run.path)[0])
"""


def test_a_full_disk_stops_the_run_and_space_lets_it_go_on(tmp_path: Path) -> None:
    code = FULL.format(tests=str(Path(__file__).parent))
    mount = f'mount -t tmpfs -o size=3m tmpfs {tmp_path} && exec "$@"'
    private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*private, mount, "sh", "true"], capture_output=True).returncode
    ):
        pytest.skip("this system lets a test have no disk of its own")
    done = subprocess.run(
        [*private, mount, "sh", sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    files = ["checkpoints/step_1"] * 3 + ["episodes/step_000003.jsonl", "metrics.jsonl", "evaluations/step_3.json"]
    expected = [f"could not write {tmp_path}/kuhn-seed3-1/{file}: No space left on device" for file in files]
    expected[1] = expected[1].replace("No space left on device", "torch.save failed; is the disk full?")
    assert lines == [*expected, f"could not write {tmp_path}/kuhn-seed3-2: No space left on device"]
    assert last == "4"
