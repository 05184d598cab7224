"""Compare credit methods on small games with a known optimum: what is learned, and who tells good turns from bad.

python scripts/credit_comparison.py configs/credit_comparison/comparison.yaml --into runs/credit_comparison \\
    [--seeds 0-4] [--jobs 2] [--methods grpo,mars] [--tasks signals] [--plot docs/credit_comparison.png]

Every run begins with the same weights and ends when it has sampled its task's number of tokens, forks and replays
included. Each method's advantages are brought to unit deviation over the batch, so that learning rate, pull to the
reference and entropy bonus mean the same for all; correlations do not depend on such a factor. Now and then the
policy's expected return is computed exactly, and the advantages that the method gave the turns of that step's batch
are correlated with the true ones (`marl_llm.evaluation.true_advantages`). What is done is not done again. Ends in
results.json, table.md and the plot.
"""

import argparse
import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import matplotlib as mpl
import numpy as np
import yaml  # type: ignore[import-untyped]
from matplotlib import pyplot

from marl_llm.config import Config, load_config
from marl_llm.config.require import require
from marl_llm.credit.load import Recipe, Step
from marl_llm.credit.recipe import Credited, credit, load_recipe
from marl_llm.credit.table import FloatArray
from marl_llm.errors import ConfigError
from marl_llm.evaluation.true_advantages import StateGraph, Values
from marl_llm.files import whole_folder
from marl_llm.runtime.rollouts import LocalRollouts
from marl_llm.seeds import derive
from marl_llm.sweep import parse_seeds
from marl_llm.team import Team
from marl_llm.train import Progress, advance, assemble, prepare, rare_collections
from marl_llm.warmup import warm_up

mpl.use("agg")
DEALS = 1000
"""Deals over which the expected return is a mean."""
GRID = 101
"""Points of a learning curve, from no token to all of them."""


HEAD = (
    "method (seeds)",
    "return at the end",
    "area under the curve",
    "correlation with the true advantage",
    "at the start",
    "looks without one",
    "steps",
    "seconds of one core",
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One experiment, and how long its runs are."""

    name: str
    """Of its file in the folder of the comparison."""
    file: Path
    """The experiment."""
    tokens: int
    """Sampled tokens of a run, after which it ends with the step."""
    every: int
    """Sampled tokens from one look to the next."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run."""

    task: Task
    """What is played."""
    method: str
    """Its name."""
    changes: tuple[str, ...]
    """What the method changes in the experiment."""
    seed: int
    """Of the run."""
    into: Path
    """Folder of the comparison."""

    @property
    def file(self) -> Path:
        """Where its result is kept."""
        return self.into / self.task.name / f"{self.method}-seed{self.seed}.json"

    @property
    def start(self) -> Path:
        """The checkpoint that all runs of the task begin with."""
        return self.into / self.task.name / "start"

    def asked(self) -> dict[str, Any]:
        """What the result depends on, to be held against what an earlier result was made with."""
        return {
            "experiment": self.task.file.read_text(),
            "changes": list(self.changes),
            "tokens": self.task.tokens,
            "every": self.task.every,
        }


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was found at one point of a run."""

    tokens: int
    """Sampled so far."""
    value: float
    """Expected return, a mean over the agents: exact, from the policy's probabilities."""
    correlation: float | None
    """Pearson's, between given and true advantages of the step's turns; None: one of the two was the same for all."""


def read(path: Path, into: Path, seeds: str, tasks: str | None, methods: str | None) -> list[Cell]:
    """All runs of the comparison, seed by seed, so that what is there early says something about every method.

    Raises:
        ConfigError: the file is not as it should be, or a task or method is unknown.
    """
    require(path.is_file(), "comparison", str(path), "a YAML file")
    given = yaml.safe_load(path.read_text())
    for key in ("tasks", "methods"):
        require(isinstance(given, dict) and bool(given.get(key)), f"{path}: {key}", None, "a mapping with entries")
    chosen = {
        "tasks": _chosen("--tasks", tasks, given["tasks"]),
        "methods": _chosen("--methods", methods, given["methods"]),
    }
    known = [Task(name=name, file=path.with_name(f"{name}.yaml"), **given["tasks"][name]) for name in chosen["tasks"]]
    return [
        Cell(task=task, method=method, changes=tuple(given["methods"][method]), seed=seed, into=into)
        for seed in parse_seeds(seeds)
        for task in known
        for method in chosen["methods"]
    ]


def _chosen(key: str, wanted: str | None, known: Mapping[str, Any]) -> list[str]:
    names = list(known) if wanted is None else wanted.split(",")
    for name in names:
        require(name in known, key, name, f"one of {sorted(known)}")
    return names


def settings(cell: Cell) -> Config:
    """The experiment as the run has it, with what its recipe says belongs to the method (`with`).

    One thread, so that results do not depend on how many run at a time.
    """
    ours = [f"run.seed={cell.seed}", "run.threads=1"]
    belongs = load_recipe(load_config(cell.task.file, cell.changes).credit).settings
    return load_config(cell.task.file, [*belongs, *cell.changes, *ours])


def begin(cell: Cell) -> None:
    """Make the checkpoint that all runs of the task begin with, if it is not there: a warm-up with seed 0."""
    if cell.start.is_dir():
        return
    config = load_config(cell.task.file, ["run.seed=0", "run.threads=1"])
    prepare(config)
    team = assemble(config)
    warm_up(config, team, lambda *_: None)
    with whole_folder(cell.start) as folder:
        team.save(folder)


def run(cell: Cell) -> dict[str, Any]:
    """Train, look now and then, and keep what was found."""
    began, cpu = perf_counter(), process_time()
    config = settings(cell)
    recipe, rewards = prepare(config)
    recipe = at_one_scale(recipe)
    team = assemble(config, cell.start)
    rollouts, progress = LocalRollouts(config, team, Path(), rewards), Progress(step=0, credit={})
    eye = Eye(config)
    looks: list[Look] = []
    tokens = 0
    with rare_collections():
        while tokens < cell.task.tokens:
            before = progress.credit
            metrics, episodes = advance(config, team, recipe, rollouts, progress)
            if tokens >= cell.task.every * len(looks):  # the engine still has the weights that this batch was played by
                eye.learn(episode.match.seed for episode in episodes)
                values = eye.values(team)
                found = correlation(credit(episodes, recipe, before), values.advantages(episodes))
                looks.append(Look(tokens=tokens, value=eye.expected(values), correlation=found))
            tokens += int(metrics["play/sampled_tokens"] + metrics.get("play/replay_tokens", 0))
    team.publish()
    looks.append(Look(tokens=tokens, value=eye.expected(eye.values(team)), correlation=None))
    result = {
        "asked": cell.asked(),
        "looks": [asdict(look) for look in looks],
        "steps": progress.step,
        "seconds": perf_counter() - began,
        "cpu_seconds": process_time() - cpu,
    }
    unfinished = cell.file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(result))
    unfinished.rename(cell.file)
    return result


def at_one_scale(recipe: Recipe) -> Recipe:
    """The recipe with one more stage: unit deviation over the batch of each policy, which is a factor for all turns."""
    unit = {"keys": ("policy",), "per": "turn", "ddof": 0, "eps": 1e-8, "illegal": "include"}
    return replace(recipe, stages=(*recipe.stages, Step(stage="scale", label="unit", params=unit)))


class Eye:
    """Sees the true values of the game that an experiment trains on."""

    def __init__(self, config: Config) -> None:
        ((label, game),) = config.trained_games.items()
        self._seats = config.seats(label)
        self._graph = StateGraph(game.trained)
        self._deals = [derive("deal", number) for number in range(DEALS)]
        self.learn(iter(self._deals))

    def learn(self, seeds: Iterator[int]) -> None:
        """Get to know deals."""
        for seed in seeds:
            self._graph.root(seed)

    def values(self, team: Team) -> Values:
        """What the states are worth with the weights that the engines have now."""
        return Values(self._graph, team.policies, self._seats)

    def expected(self, values: Values) -> float:
        """Return, as a mean over deals and agents."""
        return float(np.mean(list(values.returns(self._deals).values())))


def correlation(credited: Credited, true: Mapping[tuple[str, int], float]) -> float | None:
    """Pearson's, over turns by their weights in the loss; None where one of the two is the same for all of them.

    Of a method that thinks in tokens a turn has the mean over its tokens.
    """
    turns = zip(credited.turns.episode.tolist(), credited.turns.turn.tolist())
    values = zip(turns, credited.per_turn(credited.advantages), credited.per_turn(credited.weights))
    rows = [(given, true[turn], weight) for turn, given, weight in values if turn in true and weight > 0]
    if not rows:
        return None
    given_N, true_N, weights_N = np.array(rows).T
    covariance_22 = np.cov(given_N, true_N, aweights=weights_N, ddof=0)
    spread = np.sqrt(np.diag(covariance_22))
    return None if spread.min() < 1e-9 else float(covariance_22[0, 1] / spread.prod())


def curve(looks: Sequence[Mapping[str, Any]], tokens: int) -> FloatArray:
    """Expected return along `GRID` points from 0 to `tokens`, on straight lines between looks."""
    at = [look["tokens"] for look in looks]
    values: FloatArray = np.interp(np.linspace(0, tokens, GRID), at, [look["value"] for look in looks])
    return values


def measures(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one run. `correlation`: mean over the looks in the first half of its tokens; `start`: that of the
    first one, when all methods have the same policy, and those without extra play the same batch."""
    tokens = result["asked"]["tokens"]
    curve_G = curve(result["looks"], tokens)
    found = [look["correlation"] for look in result["looks"] if look["tokens"] < tokens / 2]
    known = [value for value in found if value is not None]
    start = found[0] if found and found[0] is not None else float("nan")
    return {
        "start": start,
        "final": float(curve_G[-1]),
        "area": float((curve_G[1:] + curve_G[:-1]).mean() / 2),
        "correlation": float(np.mean(known)) if known else float("nan"),
        "looks": len(found),
        "skipped": len(found) - len(known),
        "steps": result["steps"],
        "seconds": result["seconds"],
        "cpu_seconds": result["cpu_seconds"],
    }


Results = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""Task to method to one result per seed."""


def gather(cells: Sequence[Cell]) -> Results:
    """All results that are there."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for cell in cells:
        if cell.file.exists():
            found.setdefault(cell.task.name, {}).setdefault(cell.method, []).append(json.loads(cell.file.read_text()))
    return found


def summary(results: Results) -> dict[str, Any]:
    """Per task and method: every measure of every run, with mean and standard deviation (ddof 1) over seeds."""
    told: dict[str, Any] = {}
    for task, methods in results.items():
        told[task] = {}
        for method, runs in methods.items():
            columns = {name: [measures(run)[name] for run in runs] for name in measures(runs[0])}
            told[task][method] = {name: _spread(values) for name, values in columns.items()}
    return told


def _spread(values: Sequence[float]) -> dict[str, Any]:
    known = [value for value in values if not np.isnan(value)]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "values": [None if np.isnan(value) else value for value in values],
    }


def table(told: Mapping[str, Any]) -> str:
    """Markdown: one table per task, the method with the greatest area first."""
    blocks = []
    for task, methods in told.items():
        lines = [f"**{task}**", "", f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
        for method, row in _ranked(methods):
            seeds = len(row["final"]["values"])
            skipped = f"{sum(row['skipped']['values'])} of {sum(row['looks']['values'])}"
            cells = [_cell(row[name]) for name in ("final", "area", "correlation", "start")]
            steps, seconds = row["steps"]["mean"], row["cpu_seconds"]["mean"]
            lines.append(f"| `{method}` ({seeds}) | {' | '.join(cells)} | {skipped} | {steps:.0f} | {seconds:.0f} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _ranked(methods: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(methods.items(), key=lambda item: -item[1]["area"]["mean"])


def _cell(spread: Mapping[str, Any]) -> str:
    if spread["mean"] is None:
        return ""
    return f"{spread['mean']:.3f}" + ("" if spread["std"] is None else f" ± {spread['std']:.3f}")


def plot(results: Results, told: Mapping[str, Any], path: Path) -> None:
    """Per task: learning curves (mean, and a band of one standard deviation over seeds), and correlations by method."""
    names = list(dict.fromkeys(method for methods in results.values() for method in methods))
    colors = {name: mpl.colormaps["nipy_spectral"]((number + 0.5) / len(names)) for number, name in enumerate(names)}
    height = max(4.0, 1 + 0.28 * len(names))
    figure, panels = pyplot.subplots(
        len(results), 2, figsize=(15, height * len(results)), squeeze=False, layout="constrained"
    )
    for (task, methods), (left, right) in zip(results.items(), panels):
        for method, runs in methods.items():
            tokens = runs[0]["asked"]["tokens"]
            curves_SG = np.array([curve(run["looks"], tokens) for run in runs])
            at_G, mean_G = np.linspace(0, tokens, GRID) / 1000, curves_SG.mean(0)
            std_G = curves_SG.std(0, ddof=1) if len(runs) > 1 else np.zeros_like(mean_G)
            (line,) = left.plot(at_G, mean_G, color=colors[method], label=method)
            left.fill_between(at_G, mean_G - std_G, mean_G + std_G, alpha=0.12, color=line.get_color(), linewidth=0)
        left.set(
            title=task, xlabel="thousand sampled tokens", ylabel="expected return, exact (optimum 1)", ylim=(None, 1.02)
        )
        ranked = [(method, row) for method, row in _ranked(told[task]) if row["correlation"]["mean"] is not None]
        for place, (method, row) in enumerate(reversed(ranked)):
            found = row["correlation"]
            right.errorbar(found["mean"], place, xerr=found["std"] or 0, fmt="o", color=colors[method], capsize=3)
        right.set_yticks(range(len(ranked)), [method for method, _ in reversed(ranked)])
        right.set(title=f"{task}: best learner on top", xlabel="correlation with the true advantage, first half")
        right.grid(axis="x", alpha=0.3)
        left.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def waiting(cells: Sequence[Cell]) -> list[Cell]:
    """Those that are not done.

    Raises:
        ConfigError: one of the results was made with other settings.
    """
    for cell in cells:
        if cell.file.exists() and json.loads(cell.file.read_text())["asked"] != cell.asked():
            raise ConfigError(f"{cell.file}: made with other settings; delete it, or choose another --into")
    return [cell for cell in cells if not cell.file.exists()]


def runs(cells: Sequence[Cell], jobs: int) -> Iterator[tuple[Cell, Mapping[str, Any]]]:
    """Do all runs, `jobs` at a time, and tell of each when it is done."""
    for cell in {cell.start: cell for cell in cells}.values():
        begin(cell)
    if jobs == 1:
        yield from ((cell, run(cell)) for cell in cells)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        doing = {pool.submit(run, cell): cell for cell in cells}
        for done in as_completed(doing):
            yield doing[done], done.result()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="YAML file with tasks and methods")
    parser.add_argument("--into", type=Path, required=True, help="folder for what is found")
    parser.add_argument("--seeds", default="0-4", help="as in 0-4 or 0,3,7")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one core")
    parser.add_argument("--tasks", help="some of them, comma-separated")
    parser.add_argument("--methods", help="some of them, comma-separated")
    parser.add_argument("--plot", type=Path, help="PNG to write; by default in --into")
    given = parser.parse_args()
    cells = read(given.comparison, given.into, given.seeds, given.tasks, given.methods)
    todo = waiting(cells)
    for cell in cells:
        prepare(settings(cell))  # what is wrong with a method is told before anything is played
        cell.file.parent.mkdir(parents=True, exist_ok=True)
    print(f"{len(cells)} runs, {len(cells) - len(todo)} already done, {given.jobs} at a time", flush=True)
    for number, (cell, result) in enumerate(runs(todo, given.jobs), 1):
        line = ", ".join(f"{name} {value:.3g}" for name, value in measures(result).items())
        print(f"{number}/{len(todo)} {cell.task.name} {cell.method} seed {cell.seed}: {line}", flush=True)
    results = gather(cells)
    told = summary(results)
    (given.into / "results.json").write_text(json.dumps(told, indent=1))
    (given.into / "table.md").write_text(table(told))
    plot(results, told, given.plot or given.into / "credit_comparison.png")
    print(table(told))


if __name__ == "__main__":
    main()
