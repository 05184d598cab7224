"""One experiment for several seeds and settings: fills the cores, resumes, and ends in one table and one plot."""

import itertools
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

from marl_llm.config import Config, load_config, require_same_settings
from marl_llm.config.variants import short
from marl_llm.errors import ConfigError, RunError
from marl_llm.evaluation.measure import logged
from marl_llm.evaluation.team_score import TeamScore
from marl_llm.run import Run, list_evaluations, read_evaluation, read_metrics

mpl.use("agg")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep."""

    variant: str
    """The settings that tell it from the others, space-separated; `base` if there are none."""
    seed: int
    """Its seed."""
    folder: Path
    """Its run directory."""
    overrides: tuple[str, ...]
    """Everything that is set on the command line."""


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a finished sweep measured."""

    folder: Path
    """Where it is kept."""
    plot: Path
    """PNG with one band per variant in each panel."""
    measures: Mapping[str, Mapping[str, Sequence[float]]]
    """Variant -> measure -> one value per seed."""

    def to_json(self) -> dict[str, Any]:
        """Mean, spread (standard deviation, ddof 1) and values of every measure."""
        summary = {
            variant: {name: _summary(values) for name, values in measures.items()}
            for variant, measures in self.measures.items()
        }
        return {"folder": str(self.folder), "plot": str(self.plot), "variants": summary}

    def table(self) -> Table:
        """One row per measure, one column per variant: mean ± spread and the values."""
        table = Table(title=f"mean ± standard deviation over seeds ({self.folder})")
        table.add_column("measure")
        for variant in self.measures:
            table.add_column(variant, justify="right")
        for name in dict.fromkeys(name for measures in self.measures.values() for name in measures):
            table.add_row(name, *(_cell(measures.get(name, ())) for measures in self.measures.values()))
        return table


def sweep(
    config: Path,
    overrides: Sequence[str],
    *,
    seeds: str,
    jobs: int | None,
    folder: Path | None,
    console: Console,
) -> SweepResult:
    """Run every combination of seeds, the experiment's variants and comma-separated overrides.

    Finished runs are not repeated. Each run is a process of its own with one thread, so that results do not depend on
    how many run at a time.

    Raises:
        ConfigError: the settings of a combination are wrong, or a run in the folder was made with others (nothing is
            started then).
        RunError: a run failed or stopped early; the message names its log. Run the same command again to go on.
    """
    base = load_config(config, [values[0] for values in choices(overrides)])
    folder = folder or Path(base.run.dir) / f"sweep-{base.run.name}"
    cells = [
        _make_cell(config, folder, name, settings, seed)
        for name, settings in variants(base.variants, overrides).items()
        for seed in parse_seeds(seeds)
    ]
    for cell in cells:
        if cell.folder.is_dir():
            _require_own(cell, config)
    folder.mkdir(parents=True, exist_ok=True)
    _run_all(config, cells, jobs or os.cpu_count() or 1, console)
    measures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        for name, value in final_measures(cell.folder).items():
            measures[cell.variant][name].append(value)
    result = SweepResult(folder=folder, plot=_plot(cells, folder), measures=measures)
    (folder / "sweep.json").write_text(json.dumps(result.to_json(), indent=1))
    return result


def parse_seeds(text: str) -> list[int]:
    """`0-4` or `0,3,7` or both.

    Raises:
        ConfigError: the text is neither.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"--seeds: {text!r} is not allowed; it must be like 0-4 or 0,3,7")
        chosen = range(int(first), int(last if dash else first) + 1)
        if not chosen:
            raise ConfigError(f"--seeds: {part!r} is empty; it must be like 0-4 or 0,3,7")
        seeds += chosen
    return list(dict.fromkeys(seeds))


def final_measures(run: Path) -> dict[str, float]:
    """The numbers of a finished run: its last evaluation, and the time it took."""
    steps = [step for step, _ in list_evaluations(run)]
    before, evaluation = (logged(run, step) for step in (steps[0], steps[-1]))
    assert before is not None
    assert evaluation is not None
    measures = {}
    for game, after in evaluation.games.items():
        name = f"{game}: " if len(evaluation.games) > 1 else ""
        exploited = before.games[game].exploitability
        if exploited is not None and after.exploitability is not None:
            measures[f"{name}exploitability before"] = exploited.value
            measures[f"{name}exploitability"] = after.exploitability.value
        if after.illegal_fraction is not None:
            measures[f"{name}illegal fraction"] = after.illegal_fraction
        measures |= _team_measures(name, before.games[game].team, after.team)
        for opponent, seats in after.opponents.items():
            for seat, score in seats.items():
                measures[f"{name}return against {opponent} as {seat}"] = score.mean
                measures[f"{name}not lost against {opponent} as {seat}"] = score.not_lost
                for detail, value in score.details.items():
                    measures[f"{name}{detail.partition('/')[2]} against {opponent} as {seat}"] = value
    for key, values in later_exploitability(read_metrics(run)).items():
        measures[f"{key}, mean of the second half"] = sum(values) / len(values)
    measures["steps"] = steps[-1]
    measures["minutes"] = (read_metrics(run)[-1]["time_s"] or 0.0) / 60
    return measures


def _team_measures(name: str, before: TeamScore | None, after: TeamScore | None) -> dict[str, float]:
    """What a team's games told, before and after, and what a game costs it."""
    if before is None or after is None:
        return {}
    told = {f"{name}team: {fact} before": mean.mean for fact, mean in before.facts.items()}
    told |= {f"{name}team: {fact}": mean.mean for fact, mean in after.facts.items()}
    told[f"{name}team: tokens per game"] = after.sampled_tokens + after.prompt_tokens
    return dict(sorted(told.items()))


def later_exploitability(rows: Sequence[Mapping[str, float | None]]) -> dict[str, list[float]]:
    """By game, what was computed in the second half of a run: tells who has settled from who is passing by."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows[len(rows) // 2 :]:
        for key, value in row.items():
            if key.startswith("eval/") and key.endswith("/exploitability") and value is not None:
                found[key.removeprefix("eval/").replace("/", ": ")].append(value)
    return found


def plotted(measured: Collection[str]) -> list[str]:
    """Exploitability where it was computed, else what the games told and the shares of actions, else illegal moves."""
    exact = sorted(key for key in measured if key.startswith("eval/") and key.endswith("/exploitability"))
    telling = sorted(key for key in measured if key.startswith(("play/fact/", "play/action/")))
    return exact or telling or ["play/illegal_fraction"]


def variants(named: Mapping[str, Sequence[str]], overrides: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What is set in each variant, by its name: the unchanged experiment and its named variants, each in every
    combination of the values of `key=value,value` overrides.

    The overrides decide over the variants' own settings. A name tells the variant and the settings in which it is
    special; where it would be empty it is `base`.

    Raises:
        ConfigError: an override has no `=`.
    """
    options = choices(overrides)
    chosen = [index for index, values in enumerate(options) if len(values) > 1]
    found = {}
    for name, changes in {"": (), **named}.items():
        for settings in itertools.product(*options):
            title = " ".join((*([name] if name else []), *(settings[index] for index in chosen)))
            found[title or "base"] = (*changes, *settings)
    return found


def choices(overrides: Sequence[str]) -> list[list[str]]:
    """Each `key=value,value` as the `key=value` texts to choose from.

    Raises:
        ConfigError: an override has no `=`.
    """
    options = []
    for override in overrides:
        key, equals, values = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r}: must be key=value or key=value,value")
        options.append([f"{key}={value}" for value in _split(values)])
    return options


def _split(values: str) -> list[str]:
    """Commas separate values, except inside brackets and braces."""
    parts, depth = [""], 0
    for character in values:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _make_cell(config: Path, folder: Path, variant: str, settings: tuple[str, ...], seed: int) -> Cell:
    safe = "".join(c if c.isalnum() or c in "=.-" else "_" for c in variant)
    # One thread per run, so that results do not depend on how many run at a time.
    overrides = (*settings, f"run.seed={seed}", "run.threads=1")
    load_config(config, overrides)
    return Cell(variant=variant, seed=seed, folder=folder / f"{safe}-seed{seed}", overrides=overrides)


def _require_own(cell: Cell, config: Path) -> None:
    """Refuse a folder of that name whose run has other settings: its numbers would be reported as this one's."""
    try:
        require_same_settings(load_config(config, cell.overrides), Run.config(cell.folder))
    except ConfigError as error:
        raise ConfigError(
            f"sweep: {cell.folder} holds another experiment ({error}); choose another --folder"
        ) from error


def _run_all(config: Path, cells: Sequence[Cell], jobs: int, console: Console) -> None:
    waiting = [cell for cell in cells if not _finished(cell, load_config(config, cell.overrides))]
    console.print(f"{len(cells)} runs, {len(cells) - len(waiting)} already finished, {jobs} at a time")
    running: dict[Cell, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                running[cell] = _start(config, cell)
                console.print(f"started  {cell.folder.name}")
            sleep(0.2)
            for cell, process in list(running.items()):
                if process.poll() is not None:
                    del running[cell]
                    if process.returncode or not _finished(cell, load_config(config, cell.overrides)):
                        raise RunError(f"run {cell.folder.name} failed or stopped early; its log is {_log(cell)}")
                    console.print(f"finished {cell.folder.name}")
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(config: Path, cell: Cell) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "marl_llm.cli", "train", str(config), *cell.overrides]
    command += ["--into", str(cell.folder)]
    command += ["--resume"] if cell.folder.is_dir() else []
    with _log(cell).open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _log(cell: Cell) -> Path:
    return cell.folder.with_name(f"{cell.folder.name}.log")  # a suffix would be cut off after the last dot of a setting


def _finished(cell: Cell, config: Config) -> bool:
    return read_evaluation(cell.folder, config.run.steps) is not None


def _summary(values: Sequence[float]) -> dict[str, Any]:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "spread": spread, "values": list(values)}


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}  ({', '.join(f'{value:.4g}' for value in values)})"


def _plot(cells: Sequence[Cell], folder: Path) -> Path:
    """Mean and range over seeds, by step, of the metrics that say what was learned; one panel each."""
    metrics = {cell: read_metrics(cell.folder) for cell in cells}
    keys = plotted({key for lines in metrics.values() for line in lines for key in line})
    figure, panels = pyplot.subplots(len(keys), figsize=(8, 1 + 4 * len(keys)), squeeze=False, layout="constrained")
    for key, axes in zip(keys, panels[:, 0], strict=True):
        curves: dict[str, list[dict[int, float]]] = defaultdict(list)
        for cell, lines in metrics.items():
            curves[cell.variant].append({int(line["step"] or 0): line[key] or 0.0 for line in lines if key in line})
        for label, seeds in zip(short(list(curves)), curves.values(), strict=True):
            steps = sorted(set.intersection(*(set(curve) for curve in seeds)))
            values = np.array([[curve[step] for step in steps] for curve in seeds])
            (line,) = axes.plot(steps, values.mean(0), label=f"{label} ({len(seeds)} seeds)")
            axes.fill_between(steps, values.min(0), values.max(0), alpha=0.2, color=line.get_color())
        axes.set(xlabel="step", ylabel=key.partition("/")[2].replace("/", " "), ylim=(0, None))
        axes.legend()
    path = folder / "sweep.png"
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path
