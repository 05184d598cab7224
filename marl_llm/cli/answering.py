"""Commands with which policies and teams answer questions, here or for others."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from marl_llm.cli.base import PASSED_ON, Json, Overrides, app, log, out
from marl_llm.config import (
    load_benchmark,
)
from marl_llm.errors import ConfigError
from marl_llm.evaluation.accuracy import accuracies
from marl_llm.evaluation.accuracy import as_json as as_objects
from marl_llm.evaluation.answers import Answer
from marl_llm.evaluation.benchmark import ANSWERS, answer_all
from marl_llm.evaluation.benchmark import CONFIG as BENCHMARK
from marl_llm.export import export_policy, export_team
from marl_llm.files import writing
from marl_llm.harness.lm_eval import command as harness
from marl_llm.scoreboard import plot_accuracy, scoreboard


@app.command()
def benchmark(
    config: Annotated[Path, typer.Argument(help="YAML file of the benchmark, or a folder with results to go on with")],
    overrides: Overrides = None,
    into: Annotated[Path | None, typer.Option(help="Folder of the results; default: dir/name of the settings")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Ask again what has failed")] = False,
    as_json_: Json = False,
) -> None:
    """Have teams answer benchmarks by protocols: accuracy beside the majority of single answers at equal tokens.

    Whatever stops it, the same command goes on where it was, and asks nothing twice.

    Example: marl-llm benchmark configs/benchmarks/small.yaml teams.trained.runs='[runs/comas_tiny-seed0-1]'
    """
    settings = load_benchmark(config / BENCHMARK if config.is_dir() else config, overrides or [])
    folder = into or (config if config.is_dir() else Path(settings.dir) / settings.name)
    answers = answer_all(settings, folder, retry=retry, watch=_count_right)
    results = accuracies(answers, samples=settings.samples, matched=settings.matched, baseline=settings.baseline)
    summary = json.dumps(as_objects(results), indent=1)
    with writing(folder / "results.json"):
        (folder / "results.json").write_text(summary)
    plot_accuracy(results, folder / "accuracy.png")
    if as_json_:
        print(summary)
    else:
        out.print(scoreboard(results, settings.baseline))
        out.print(f"plot: {folder / 'accuracy.png'}\nanswers: {folder / ANSWERS}", markup=False)


def _count_right(answers: Iterable[Answer], total: int, about: str) -> Iterator[Answer]:
    """Pass answers on, and show how many there are and how many are right."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as progress:
        task, right = progress.add_task(about, total=total), 0.0
        for number, answer in enumerate(answers, start=1):
            right += answer.correct
            progress.update(task, advance=1, description=f"{escape(about)}: {right / number:.1%} right")
            yield answer


@app.command("lm-eval", add_help_option=False, context_settings=PASSED_ON)
def lm_eval(context: typer.Context) -> None:
    """Run the lm-evaluation-harness; a team of a run is the model `marl_llm`, and all arguments are the harness's.

    Example: marl-llm lm-eval --model marl_llm --model_args run=runs/crew-seed0-1,protocol=debate --tasks questions
    """
    harness(context.args)


@app.command()
def serve(
    run: Annotated[Path, typer.Argument(help="Run directory, or YAML file of an experiment that has not begun")],
    host: Annotated[str, typer.Option(help="Address to listen at; by default only this machine")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="MARL_LLM_API_KEY", help="Clients must send it; default: nobody must")
    ] = None,
    max_requests: Annotated[int, typer.Option(help="Answered at a time; more get status 429", min=1)] = 512,
    max_tokens: Annotated[
        int | None, typer.Option(help="Most that a request may ask for; default: what the context has room for", min=1)
    ] = None,
    max_body: Annotated[int, typer.Option(help="Bytes of a request; more get status 413", min=1)] = 2**20,
) -> None:
    r"""Serve the policies of a run, and teams of them, behind an OpenAI-compatible API (docs/serving.md).

    SIGTERM or Ctrl-C ends it: no new requests, those in flight are finished. Needs pip install 'marl-llm\[serve]'.

    Example: marl-llm serve runs/debate_tiny-seed0-1 --port 8000
    """
    try:
        from marl_llm.serve.gate import Limits
        from marl_llm.serve.server import serve_run
    except ImportError as error:
        raise ConfigError(f"serve needs FastAPI and uvicorn ({error}): pip install 'marl-llm[serve]'") from error

    def started(address: str, names: Sequence[str]) -> None:
        out.print(f"{run} at {address}/v1 (Ctrl-C ends it)", markup=False)
        also = "" if run.is_file() else "; each also as NAME@STEP of a checkpoint"
        out.print(f"models: {', '.join(names)}{also}", markup=False)
        key = "" if api_key is None else " -H 'Authorization: Bearer '$MARL_LLM_API_KEY"
        body = json.dumps({"model": names[0], "messages": [{"role": "user", "content": "Hello"}]})
        out.print(f"try: curl {address}/v1/chat/completions{key} --json '{body}'", markup=False)

    limits = Limits(max_requests=max_requests, max_tokens=max_tokens, max_body=max_body)
    serve_run(run, host=host, port=port, key=api_key, limits=limits, started=started)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run directory")],
    to: Annotated[Path, typer.Argument(help="New folder")],
    policy: Annotated[str | None, typer.Option(help="Which one; default: the trained policy")] = None,
    step: Annotated[int | None, typer.Option(help="Checkpoint; default: the latest")] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="Its adapter alone, not merged with the base")] = False,
    team: Annotated[bool, typer.Option("--team", help="All policies with a model, and a manifest")] = False,
) -> None:
    """Write a policy as a Hugging Face folder with a model card, or a whole team as one folder with a manifest.

    Example: marl-llm export runs/kuhn-seed0-1 exported/kuhn
    """
    if team and (policy is not None or adapter):
        raise ConfigError(
            "export: --team takes all policies, each merged with its base: leave --policy and --adapter out"
        )
    if team:
        names = export_team(run, to, step=step)
    else:
        names = [export_policy(run, to, policy=policy, step=step, adapter=adapter)]
    out.print(f"{', '.join(names)}: {to}", markup=False)
