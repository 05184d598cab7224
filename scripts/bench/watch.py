"""The episode browser beside a run: what a watcher costs, and how a run of 100,000 episodes is to look at.

Big: a run of that many episodes is written from the episodes of a small real one, once as they are (small games say
the same again and again) and once with a thought of 60 random words in every reply (nothing is said twice). Told are
the seconds from the start of `marl-llm watch` to its first page, from there to the whole index, and of the slowest of
many filters, before and after; and the most memory that the server had.

Live: `marl-llm train configs/kuhn.yaml` and `marl-llm watch` on it, asked as the page asks while its tab is in
front. Told are the CPU seconds of both.

    python scripts/bench/watch.py [--episodes 100000] [--steps 500] [--json]
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from marl_llm.config import load_config
from marl_llm.episodes import episode_to_json, read_episodes
from marl_llm.run import Run
from marl_llm.types import Episode

SMALL = ["run.steps=4", "evaluation.games=10", "policies.agent.warmup.steps=20", "evaluation.every=0"]
PER_STEP = 250
LIVE_S, CURVES_S = 4.0, 10.0
"""Seconds between what the page asks, as in its app.js and episodes.js."""
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"game": "kuhn_poker"},
    {"role": "player_0", "outcome": "won"},
    {"policy": "agent", "outcome": "lost", "order": "worst"},
    {"outcome": "illegal"},
    {"from": 10, "to": 60},
    {"text": "fold"},
    {"text": "player_1", "order": "best"},
    {"text": "word77"},
    {"text": "legal actions check bet"},
    {"role": "player_1", "text": "call", "outcome": "won", "from": 100, "order": "longest"},
    {"order": "oldest", "offset": 90_000},
    {"alarm": "entropy_collapse/agent"},
    {"kind": "branch"},
)


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=500, help="of the live run; 0: only the big one")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told: dict[str, Any] = {}
        if asked.episodes:
            small = train(Path(folder) / "small", SMALL).path
            for name, thinking in (("texts that repeat", False), ("texts that are all different", True)):
                big = write_big(small, Path(folder) / f"big-{thinking}", asked.episodes, thinking=thinking)
                told[name] = look(big)
        if asked.steps:
            told["live"] = watch_live(Path(folder) / "live", asked.steps)
    if asked.json:
        print(json.dumps(told))
        return
    for part, numbers in told.items():
        print(part)
        for name, value in numbers.items():
            print(f"  {name:40}{value:.3g}" if isinstance(value, float) else f"  {name:40}{value}")


class Training:
    """A run that has been trained in a process of its own."""

    def __init__(self, path: Path, cpu_s: float) -> None:
        self.path, self.cpu_s = path, cpu_s


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "marl_llm.cli", *arguments]


def start_training(path: Path, settings: list[str]) -> "subprocess.Popen[bytes]":
    """Train the demo's configuration into a folder."""
    command = _command("train", "configs/kuhn.yaml", "run.threads=1", *settings, "--into", str(path))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def train(path: Path, settings: list[str]) -> Training:
    """The same, to its end."""
    return Training(path, finished(start_training(path, settings)))


def finished(process: "subprocess.Popen[bytes]") -> float:
    """CPU seconds of a process that is waited for."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a process ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def write_big(small: Path, path: Path, total: int, *, thinking: bool) -> Path:
    """A run directory with copies of a small run's episodes under names of their own."""
    known = list(read_episodes(small))
    draws = random.Random(0)
    config = load_config(small / "config.yaml")
    with Run.create(config, path) as run:
        run.rewind(None)
        for step in range(1, total // PER_STEP + 1):
            copies = [renamed(draws.choice(known), step, number, draws, thinking) for number in range(PER_STEP)]
            file = path / "episodes" / f"step_{step:06d}.jsonl"
            file.write_text("".join(f"{episode_to_json(one)}\n" for one in copies))
            run.step(
                step, {"play/return/player_0": draws.random(), "alarm/entropy_collapse/agent": float(step % 7 == 0)}
            )
    return path


def renamed(episode: Episode, step: int, number: int, draws: random.Random, thinking: bool) -> Episode:
    """A copy of another step."""
    group = f"s{step}/g{number // 8}"
    match = replace(episode.match, id=f"{group}/m{number % 8}", group=group)
    turns = episode.turns
    if thinking:
        turns = tuple(replace(turn, reply=f"<think>{_thought(draws)}</think>{turn.reply}") for turn in turns)
    return replace(episode, match=match, turns=turns)


def _thought(draws: random.Random) -> str:
    return " ".join(f"word{draws.randrange(5000)}" for _ in range(60))


class Server:
    """`marl-llm watch` in a process of its own."""

    def __init__(self, run: Path) -> None:
        self.began = time.monotonic()
        command = _command("watch", str(run), "--port", "0")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        assert self.process.stdout is not None
        found = re.search(rb"http://\S+?/", self.process.stdout.readline())
        assert found is not None
        self.address = found[0].decode()

    def get(self, path: str, **asked: Any) -> tuple[Any, float]:
        """An answer, and the seconds that it took."""
        began = time.monotonic()
        with urllib.request.urlopen(f"{self.address}{path}?{urllib.parse.urlencode(asked)}") as answer:
            body = answer.read()
        return (json.loads(body) if path.startswith("api/") else body), time.monotonic() - began

    def first_page(self) -> float:
        """Seconds until all of the first page has come."""
        began = time.monotonic()
        for path in ("", "app.js", "style.css", "api/run", "api/curves", "api/episodes"):
            self.get(path)
        return time.monotonic() - began

    def slowest(self) -> tuple[float, str]:
        """Of all filters."""
        return max((self.get("api/episodes", **asked)[1], json.dumps(asked)) for asked in FILTERS)

    def peak_mb(self) -> float:
        """The most memory that it has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1e3

    def close(self) -> float:
        """Its CPU seconds."""
        self.process.terminate()
        return finished(self.process)


@contextmanager
def server(run: Path) -> Iterator[Server]:
    """A server that is ended at the end, whatever happens."""
    found = Server(run)
    try:
        yield found
    finally:
        if found.process.returncode is None:
            found.process.kill()


def look(run: Path) -> dict[str, Any]:
    """What somebody who opens the run for the first time waits for, and then for the second time."""
    with server(run) as first:
        start = time.monotonic() - first.began
        page = first.first_page()
        early, _ = first.slowest()
        while (told := first.get("api/run")[0]["indexed"])["files"] < told["of"]:
            time.sleep(0.2)
        indexed = time.monotonic() - first.began
        slowest, which = first.slowest()
        peak = first.peak_mb()
        cpu_s = first.close()
    with server(run) as second:
        again = second.first_page()
        episodes = second.get("api/run")[0]["indexed"]["episodes"]
        second.close()
    return {
        "episodes": episodes,
        "run directory (MB)": sum(file.stat().st_size for file in run.rglob("*.jsonl")) / 1e6,
        "start of the server (s)": start,
        "first page, nothing indexed (s)": page,
        "slowest filter while it is indexed (s)": early,
        "all indexed after (s)": indexed,
        "slowest filter (s)": slowest,
        "which was": which,
        "first page, the next time (s)": again,
        "most memory of the server (MB)": peak,
        "CPU of the server (s)": cpu_s,
        "index (MB)": (run / "watch.sqlite").stat().st_size / 1e6,
    }


def watch_live(path: Path, steps: int) -> dict[str, Any]:
    """Train, and look on as the page does."""
    training = start_training(path, [f"run.steps={steps}"])
    while not (path / "metrics.jsonl").exists():
        time.sleep(0.1)
    with server(path) as watcher:
        watcher.first_page()
        shown, drawn, wait_until = 0, 0.0, 0.0
        while not _ended(training):
            time.sleep(LIVE_S)
            step = watcher.get("api/run")[0]["step"]
            if step != shown:
                shown = step
                if time.monotonic() - drawn > CURVES_S:
                    drawn = time.monotonic()
                    watcher.get("api/curves")
                if time.monotonic() > wait_until:
                    _, took = watcher.get("api/episodes")
                    wait_until = time.monotonic() + 100 * took
        trained = finished(training)
        peak = watcher.peak_mb()
        episodes = watcher.get("api/run")[0]["indexed"]["episodes"]
        watched = watcher.close()
    return {
        "episodes": episodes,
        "CPU of the run (s)": trained,
        "CPU of the watcher (s)": watched,
        "watcher/run (%)": 100 * watched / trained,
        "most memory of the watcher (MB)": peak,
    }


def _ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether it is over, without taking its CPU time away from who waits for it."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    main()
