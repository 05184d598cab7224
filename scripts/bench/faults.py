"""What it costs when a process or a node of a run is killed (SIGKILL) in the middle of training.

For each kind: steps that were done again, episodes that are missing or there twice in the log (must be 0), and the
seconds from the kill to the end of the next step, beside the median of an undisturbed step. Two nodes of a local Ray
cluster.

    python scripts/bench/faults.py [--json FILE]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import ray
from ray.cluster_utils import Cluster

from marl_llm.config import Config, load_config, to_yaml
from marl_llm.evaluation.measure import Evaluation
from marl_llm.run import read_episodes, read_metrics
from marl_llm.runtime.ray import NICENESS
from marl_llm.train import train

ROOT = Path(__file__).parents[2]
KILL_AFTER = 4
STEPS = 8
FAR = {"far": 8.0}
"""What the second node alone has."""
QUICK = (
    f"run.steps={STEPS}",
    "run.checkpoint_every=3",
    "run.threads=1",
    "policies.agent.warmup.steps=50",
    "evaluation={every: 0, exploitability: false, games: 0}",
    "runtime=ray",
)
TWO = "workers: 2, evaluators: 0"
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rollout worker": ("WorkerProcess", (f"cluster={{{TWO}}}",)),
    "rollout worker, asynchronous": ("WorkerProcess", (f"cluster={{{TWO}, mode: async}}",)),
    "engine of two workers": ("EngineProcess", (f"cluster={{{TWO}, engines: 1, engine: {{gpus: 0}}}}",)),
    "learner": ("LearnerProcess", (f"cluster={{{TWO}}}",)),
    "one of a learner's two processes": (
        "LearnerProcess",
        (f"cluster={{{TWO}}}", "policies.agent.learner.processes=2"),
    ),
    "store": ("StoreProcess", (f"cluster={{{TWO}}}", "store={}")),
    "node with the workers": ("node", (f"cluster={{{TWO}, worker: {{resources: {{far: 1}}}}}}",)),
    "node with the learner": ("node", (f"cluster={{{TWO}, learner: {{resources: {{far: 1}}}}}}",)),
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one kill."""

    kind: str
    """Of what was killed."""
    steps_again: int
    """Steps that were done twice."""
    episodes_lost: int
    """That are not in the log of the finished run."""
    episodes_double: int
    """That are there twice."""
    seconds: float
    """From the kill to the end of the next step."""
    step_s: float
    """Median of a step before it."""


class Watching:
    """An observer that takes the time and kills once."""

    def __init__(self, kill: Callable[[], None]) -> None:
        self.ends: list[float] = []
        self.again = 0
        self.recovered_s = 0.0
        self._kill: Callable[[], None] | None = kill
        self._killed = 0.0
        self._last = 0

    def started(self, run: Path, config: Config, step: int) -> None: ...

    def warming_up(self, policy: str, step: int, steps: int, loss: float) -> None: ...

    def evaluated(self, step: int, evaluation: Evaluation) -> None: ...

    def alarmed(self, step: int, alarm: Any) -> None: ...

    def noted(self, text: str) -> None:
        print(f"  {text}", flush=True)

    def stepped(self, step: int, metrics: Mapping[str, float]) -> None:
        self.again += step <= self._last
        self._last = max(self._last, step)
        self.ends.append(perf_counter())
        if self._killed:
            self.recovered_s, self._killed = perf_counter() - self._killed, 0.0
        if step == KILL_AFTER and self._kill is not None:
            kill, self._kill = self._kill, None
            kill()
            self._killed = perf_counter()


def ancestors(process: int) -> list[int]:
    """Its parent, that one's, and so on: of others' clusters nobody is to be killed."""
    found = []
    while process > 1:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            break
        found.append(process)
    return found


def processes(kind: str) -> list[int]:
    """Ids of the processes of this one's clusters in which actors of a class are."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if title.startswith(f"ray::{kind}".encode()) and os.getpid() in ancestors(int(folder.name)):
            found.append(int(folder.name))
    return sorted(found)


def kill_process(kind: str) -> None:
    """Kill one process in which an actor of a class is."""
    os.kill(processes(kind)[0], signal.SIGKILL)


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Two nodes with more cores than there are, for most processes wait most of the time; this process has joined."""
    os.environ[NICENESS] = "0"
    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    nodes: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 16, "_system_config": soon})
    nodes.add_node(num_cpus=8, resources=FAR)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def lose_node(nodes: Any) -> None:
    """Kill the second node, and add one like it."""
    (far,) = (node for node in nodes.list_all_nodes() if not node.is_head())
    nodes.remove_node(far, allow_graceful=False)
    nodes.add_node(num_cpus=8, resources=FAR)


def counted(kind: str, path: Path, config: Config, again: int, seconds: float, step_s: float) -> Cost:
    """The cost, with what the finished run's log says."""
    making = config.matchmaking
    found = Counter(episode.match.id for episode in read_episodes(path))
    wanted = config.run.steps * making.groups * making.group_size
    return Cost(
        kind=kind,
        steps_again=again,
        episodes_lost=wanted - len(found),
        episodes_double=sum(count - 1 for count in found.values()),
        seconds=seconds,
        step_s=step_s,
    )


def kill_while_training(kind: str, nodes: Any, folder: Path) -> Cost:
    """Train, kill one after `KILL_AFTER` steps, and see what that costs."""
    process, settings = KINDS[kind]
    config = load_config(ROOT / "configs/kuhn.yaml", [f"run.dir={folder}", *QUICK, *settings])
    watching = Watching(lambda: lose_node(nodes) if process == "node" else kill_process(process))
    path = train(config, watching)
    before = watching.ends[:KILL_AFTER]
    step_s = median(b - a for a, b in pairwise(before))
    return counted(kind, path, config, watching.again, watching.recovered_s, step_s)


def kill_driver(nodes: Any, folder: Path) -> Cost:
    """Kill the process that trains, and resume the run from the command line."""
    settings = [f"run.dir={folder}", *QUICK, f"cluster={{{TWO}, address: '{nodes.address}'}}"]
    config = load_config(ROOT / "configs/kuhn.yaml", settings)
    file, path = folder / "settings.yaml", folder / "kuhn-seed0-1"
    file.write_text(to_yaml(config))
    command = [sys.executable, "-m", "marl_llm.cli", "train"]
    with subprocess.Popen([*command, str(file)], stdout=subprocess.DEVNULL) as first:
        while not path.is_dir() or len(read_metrics(path)) < KILL_AFTER:
            sleep(0.02)
        first.kill()
    rows, killed = len(read_metrics(path)), perf_counter()
    step_s = median([row["time/step_s"] or 0.0 for row in read_metrics(path)])
    with subprocess.Popen([*command, str(path), "--resume"], stdout=subprocess.DEVNULL) as second:
        while len(read_metrics(path)) <= rows and second.poll() is None:
            sleep(0.02)
        seconds = perf_counter() - killed
        second.wait()
    return counted("driver, then --resume", path, config, rows - rows // 3 * 3, seconds, step_s)


def main() -> None:
    """Print a table, and write it if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    costs: list[Cost] = []
    with two_nodes() as nodes, tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate([*KINDS, "driver"]):
            place = Path(folder) / str(number)
            place.mkdir()
            cost = kill_driver(nodes, place) if kind == "driver" else kill_while_training(kind, nodes, place)
            costs.append(cost)
            lost = f"lost {cost.episodes_lost}, twice {cost.episodes_double}"
            print(
                f"{cost.kind}: {cost.steps_again} steps again, {lost}, {cost.seconds:.1f} s (a step: {cost.step_s:.1f})"
            )
    if options.json:
        options.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1))


if __name__ == "__main__":
    main()
