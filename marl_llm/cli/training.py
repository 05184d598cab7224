"""Commands that train, and that look at what was trained."""

import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from marl_llm.cli.base import Json, Overrides, app, log, out
from marl_llm.config import (
    load_config,
    load_machines,
    require_same_settings,
    to_yaml,
)
from marl_llm.credit.agreement import agreement_json, agreement_table, agreements
from marl_llm.credit.audit import as_json, audit, credited_batches, parts_text, table
from marl_llm.credit.origin import origins, origins_json, origins_tree
from marl_llm.credit.recipe import Credited, load_recipe
from marl_llm.doctor import examine, findings
from marl_llm.episodes import batch_files, read_episodes
from marl_llm.errors import ConfigError, RunError
from marl_llm.evaluation.measure import evaluate as measure
from marl_llm.live import LiveView, comparison
from marl_llm.matchmaking import trained_policy
from marl_llm.plan.forecast import forecast
from marl_llm.plan.memory import stated
from marl_llm.run import Run, checkpoint_of, checkpoint_path, latest_checkpoint, latest_run
from marl_llm.sweep import sweep as run_sweep
from marl_llm.team import found
from marl_llm.train import train as run_training


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the experiment, or a run directory to resume")],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the newest run of this experiment")] = False,
    into: Annotated[Path | None, typer.Option(help="Run directory; default: a new one under run.dir")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Show the resolved settings and stop")] = False,
    as_json_: Json = False,
) -> None:
    """Train as the YAML file says, and measure the policy before and after.

    Example: marl-llm train configs/kuhn.yaml run.seed=1 policies.agent.learner.lr=0.001
    """
    settings = load_config(_config_file(config), overrides or [])
    if print_config:
        out.print(to_yaml(settings), markup=False)
        return
    path = into or (config if config.is_dir() else None)
    if resume:
        path = path or latest_run(settings)
        if path is None:
            raise RunError(f"{settings.run.dir}: no run of {settings.run.name} with seed {settings.run.seed} to resume")
        require_same_settings(settings, Run.config(path))
    show = log if as_json_ else out
    with LiveView(show) as view, _finish_step_on_interrupt() as interrupted:
        path = run_training(settings, view, path=path, resume=resume, stop=lambda: bool(interrupted))
    if interrupted and latest_checkpoint(path) is None:
        show.print("stopped during the warm-up, of which nothing is saved", markup=False)
        show.print(f"begin it anew with: marl-llm train {path} --resume", markup=False)
    elif interrupted:
        show.print(f"stopped and saved; go on with: marl-llm train {path} --resume", markup=False)
    else:
        policy = trained_policy(settings)
        show.print("\nnext:")
        show.print(f"  marl-llm report {path}              # what it does and why, as a folder of HTML", markup=False)
        show.print(f"  marl-llm watch {path}               # every episode in the browser", markup=False)
        show.print(f"  marl-llm play {path}                # sit down against {policy}", markup=False)
        show.print(f"  marl-llm evaluate {path} --json     # the numbers above, from the saved weights", markup=False)
        show.print(f"  marl-llm credit mars {path} --compare grpo   # who was praised for what", markup=False)
    if as_json_:
        measured = {str(step): evaluation.to_json() for step, evaluation in sorted(view.evaluations.items())}
        print(json.dumps({"run": str(path), "finished": not interrupted, "evaluations": measured}))
    else:
        out.print(f"run: {path}", markup=False)


def _config_file(path: Path) -> Path:
    return path / "config.yaml" if path.is_dir() else path


@contextmanager
def _finish_step_on_interrupt() -> Iterator[list[int]]:
    """The first Ctrl-C (or SIGTERM) fills the list; the second ends the program at once."""
    received: list[int] = []

    def handler(number: int, frame: Any) -> None:
        received.append(number)
        # Not through rich, which may be in the middle of printing or of being imported.
        os.write(2, b"stopping after the last whole step; press Ctrl-C again to stop at once\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="YAML file of the experiment, or a run directory")],
    overrides: Overrides = None,
    like: Annotated[Path | None, typer.Option(help="An earlier run whose tokens and times are taken")] = None,
    flops: Annotated[float | None, typer.Option(help="Operations per second; default: measured for a moment")] = None,
    memory: Annotated[
        list[str] | None, typer.Option(help="What a device has, as DEVICE=GIB, for example cuda=80")
    ] = None,
    cluster: Annotated[
        Path | None, typer.Option(help="YAML file that describes machines; default with runtime=ray: this one")
    ] = None,
    as_json_: Json = False,
) -> None:
    """Forecast memory, tokens and time per step of each policy, before anything is loaded; exit code 1: does not fit.

    With --cluster, or runtime=ray, processes are put on machines as the settings of `cluster` say, and what waits for
    what is told.

    Example: marl-llm plan configs/kuhn.yaml policies.agent.tiny.hidden=512 --memory cpu=4
    """
    settings = load_config(_config_file(config), overrides or [])
    machines = None if cluster is None else load_machines(cluster)
    told = forecast(settings, like=like, flops=flops, has=stated(memory or []), machines=machines)
    if as_json_:
        print(json.dumps(told.to_json()))
    else:
        for part in told.tables():
            out.print(part)
        for line in (
            *told.assumed,
            *told.advice,
            f"a step takes {told.step_s:.3g} s, {told.steps} steps {told.step_s * told.steps:.3g} s",
        ):
            out.print(line, markup=False)
        for line in told.verdicts:
            out.print(line, markup=False)
    if not told.fits:
        raise typer.Exit(1)


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(help="YAML file of the experiment")],
    overrides: Overrides = None,
    seeds: Annotated[str, typer.Option(help="Seeds, for example 0-4 or 0,3,7")] = "0-2",
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; default: one per core", min=1)] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the sweep is kept; default runs/sweep-NAME")] = None,
    as_json_: Json = False,
) -> None:
    """Run an experiment for several seeds and settings; resumable; one table and one plot with bands.

    Example: marl-llm sweep configs/kuhn.yaml --seeds 0-4 credit=mars,grpo
    """
    result = run_sweep(_config_file(config), overrides or [], seeds=seeds, jobs=jobs, folder=folder, console=log)
    if as_json_:
        print(json.dumps(result.to_json()))
    else:
        out.print(result.table())
        out.print(f"plot: {result.plot}\nsweep: {result.folder}", markup=False)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory")],
    step: Annotated[int | None, typer.Option(help="Checkpoint to measure; default: the latest")] = None,
    games_: Annotated[int | None, typer.Option("--games", help="Games per opponent and seat")] = None,
    opponent: Annotated[list[str] | None, typer.Option(help="Policy of the run's settings, or start")] = None,
    best_response: Annotated[
        int | None, typer.Option("--best-response", help="Simulations per seat of the search for a best response")
    ] = None,
    as_json_: Json = False,
) -> None:
    """Measure the saved weights of a run: exploitability, and results against opponents from each seat.

    --best-response N bounds the exploitability of larger two-player zero-sum games from below: a response is searched
    for in N simulations per seat and plays fresh games. Where all positions can be listed (tic-tac-toe) it is exact.

    Example: marl-llm evaluate runs/kuhn-seed0-1 --opponent random --games 500 --json
    """
    settings = Run.config(run)
    wanted = settings.evaluation
    wanted = replace(wanted, games=wanted.games if games_ is None else games_)
    wanted = replace(wanted, best_response=wanted.best_response if best_response is None else best_response)
    if opponent is not None:
        wanted = replace(wanted, opponents=opponent)
        played = {name: replace(game, opponents=None) for name, game in settings.games.items()}
        settings = replace(settings, games=played)
    settings = replace(settings, evaluation=wanted)
    at, checkpoint = checkpoint_of(run, step)
    team = found(settings, checkpoint, learn=False)
    evaluation = measure(settings, team.policies, checkpoint_path(run, 0))
    if as_json_:
        print(json.dumps({"run": str(run), "step": at, **evaluation.to_json()}))
    else:
        out.print(comparison(None, evaluation, at))


@app.command(context_settings={"allow_extra_args": True})
def credit(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="Name in configs/credit, or a YAML file")],
    episodes: Annotated[Path, typer.Argument(help="An episodes file, or a run directory")],
    compare: Annotated[list[str] | None, typer.Option(help="Further recipes, one or more, shown side by side")] = None,
    turn: Annotated[str | None, typer.Option(help="EPISODE#TURN: where its number comes from, stage by stage")] = None,
    limit: Annotated[int, typer.Option(help="Turns to show in the table", min=1)] = 40,
    as_json_: Json = False,
) -> None:
    """Compute the advantages of logged episodes, with the value of every stage per turn, and how far recipes agree.

    A run directory is credited step by step, as in training. One file is a fresh start: a recipe that remembers
    earlier steps (stage history, as in rae) gives the numbers of its training for the whole run directory only.

    Example: marl-llm credit mars runs/kuhn-seed0-1/episodes/step_000010.jsonl --compare grpo rae --turn s10/g0/m0#1
    """
    if context.args and not compare:
        raise ConfigError(f"credit: {context.args} is one file too many; recipes to compare come after --compare")
    recipes = [load_recipe(name) for name in [recipe, *(compare or []), *context.args]]
    files = batch_files(episodes)
    batches = credited_batches({file.stem: read_episodes(file) for file in files}, recipes)
    if turn is not None:
        _explain(turn, batches, as_json_=as_json_)
        return
    rows = [row for name, credited in batches for row in audit(credited, batch=name if len(files) > 1 else "")]
    pairs = agreements(rows)
    if as_json_:
        print(json.dumps(as_json(rows) | {"agreement": agreement_json(pairs)}))
        return
    out.print(table(rows[:limit]))
    if len(rows) > limit:
        out.print(f"{limit} of {len(rows)} turns; --limit shows more, --json all of them")
    if pairs:
        out.print(agreement_table(pairs))
        flip = next((pair.example for pair in pairs if pair.example), None)
        if flip is not None:
            out.print(f"--turn '{flip}' shows where its numbers come from", markup=False)


def _explain(turn: str, batches: Iterable[tuple[str, list[Credited]]], *, as_json_: bool) -> None:
    """Show every stage of every recipe for one turn."""
    episode, _, index = turn.rpartition("#")
    if not episode or not index.isdigit():
        raise ConfigError(f"--turn: {turn!r} is not allowed; it must be EPISODE#TURN, as in s10/g0/m0#1")
    for _, credited in batches:
        if episode not in credited[0].turns.names["episode"]:
            continue
        stages_of = [origins(one, episode, int(index)) for one in credited]
        row = next(row for row in audit(credited) if (row.episode, row.turn) == (episode, int(index)))
        found = dict(zip(row.advantages, stages_of, strict=True))
        if as_json_:
            print(json.dumps({"turn": turn, "recipes": {name: origins_json(stages) for name, stages in found.items()}}))
            return
        out.print(f"{turn}: {row.agent} as {row.role} played {row.action or '-'}", markup=False)
        for (name, stages), one in zip(found.items(), credited, strict=True):
            parts, by_token = parts_text(row.rewards), one.recipe.by_token
            out.print(origins_tree(name, parts, row.advantages[name], stages, by_token=by_token))
        return
    raise ConfigError(f"--turn: there is no episode {episode!r} here")


@app.command()
def doctor(as_json_: Json = False) -> None:
    """Show versions and devices, what is missing, and how to install it.

    Example: marl-llm doctor
    """
    rows = examine()
    if as_json_:
        print(json.dumps([row.__dict__ for row in rows]))
    else:
        out.print(findings(rows))
