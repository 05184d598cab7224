"""A small run with two policies and a team, made once, and a server of it."""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from marl_llm.config import load_config, to_yaml
from marl_llm.evaluation.protocols import PROTOCOLS
from marl_llm.live import LiveView
from marl_llm.train import train

ROOT = Path(__file__).parents[2]
TINY = "{hidden: 32, layers: 1, heads: 2, mlp: 64, vocabulary: 400}"
TEAMS = tuple(f"team:{name}" for name in PROTOCOLS)
CONFIG = f"""
run: {{name: talk, steps: 2, checkpoint_every: 1, threads: 1}}
games:
  sums: {{name: debate, settings: {{tasks: {{source: arithmetic, level: 1}}, debaters: 2, rounds: 2, judge: true}}}}
play: {{context: turn, max_reply_tokens: 8, context_tokens: 400}}
policies:
  debater:
    tiny: {TINY}
    warmup: {{teacher: informed, games: 16, steps: 20, batch: 16, lr: 0.01}}
    engine: {{slots: 64, cache_slots: 8}}
    learner: {{lr: 0.001}}
    objective: {{entropy: 0.1}}
  judge:
    tiny: {TINY}
    warmup: {{teacher: informed, games: 16, steps: 20, batch: 16, lr: 0.01}}
    engine: {{slots: 64, cache_slots: 8}}
  informed: {{kind: informed}}
matchmaking: {{groups: 1, group_size: 2, seats: {{"debater_*": debater, judge_0: judge}}}}
credit: rae
evaluation: {{every: 0, exploitability: false, games: 2}}
"""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "talk.yaml").write_text(CONFIG)
    path = train(load_config(folder / "talk.yaml", [f"run.dir={folder}"]), LiveView(Console(file=io.StringIO())))
    broken = "games.broken={name: 'tests.serve.broken_game:env', share: 0, seats: {'*': debater}}"
    (path / "config.yaml").write_text(to_yaml(load_config(path / "config.yaml", [broken])))
    return path


class Server:
    """A server in a process of its own, as a user starts it."""

    def __init__(self, run: Path, *options: str, **environment: str) -> None:
        command = [sys.executable, "-m", "marl_llm.cli", "serve", str(run), "--port", "0", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, **pipes, text=True, env={**os.environ, **environment}, cwd=ROOT)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        found = re.search(r"http://\S+/v1", self.said)
        assert found, self.said + self.process.stderr.read()  # type: ignore[union-attr]
        self.url = found[0]
        self.said += self.process.stdout.readline() + self.process.stdout.readline()

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **more)

    def metrics(self) -> dict[str, float]:
        lines = httpx.get(self.url.removesuffix("/v1") + "/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code, and what it said of errors."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@contextmanager
def serving(run: Path, *options: str, **environment: str) -> Iterator[Server]:
    server = Server(run, *options, **environment)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="session")
def server(run: Path) -> Iterator[Server]:
    with serving(run) as made:
        yield made
