"""The command line: `marl-llm COMMAND --help` explains each command with an example."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

import games
from games.conformance import check as check_game
from marl_llm.config import (
    GameConfig,
    game_settings,
    load_benchmark,
    load_config,
    load_machines,
    require_same_settings,
    to_yaml,
)
from marl_llm.credit.audit import as_json, audit_batches, table
from marl_llm.credit.recipe import load_recipe
from marl_llm.doctor import examine, findings
from marl_llm.episodes import batch_files, episode_to_json, read_episodes
from marl_llm.errors import ConfigError, MarlError, RunError
from marl_llm.evaluation.accuracy import accuracies
from marl_llm.evaluation.accuracy import as_json as as_objects
from marl_llm.evaluation.answers import Answer
from marl_llm.evaluation.benchmark import ANSWERS, answer_all
from marl_llm.evaluation.benchmark import CONFIG as BENCHMARK
from marl_llm.evaluation.leaderboard import add, read_all, require_fit, tallies
from marl_llm.evaluation.measure import evaluate as measure
from marl_llm.evaluation.meetings import Meeting
from marl_llm.evaluation.tournament import score
from marl_llm.evaluation.tournament import tournament as hold_tournament
from marl_llm.export import export_policy, export_team
from marl_llm.files import writing
from marl_llm.harness.lm_eval import command as harness
from marl_llm.live import LiveView, comparison
from marl_llm.matchmaking import one_against, series, trained_policy
from marl_llm.plan.forecast import forecast
from marl_llm.plan.memory import stated
from marl_llm.play import make_game
from marl_llm.play import play as play_matches
from marl_llm.players import seat_players
from marl_llm.policies.human import HumanPolicy
from marl_llm.run import Run, checkpoint_of, checkpoint_path, latest_checkpoint, latest_run
from marl_llm.scoreboard import plot_accuracy, scoreboard
from marl_llm.standings import plot_payoffs, shown, standings
from marl_llm.sweep import sweep as run_sweep
from marl_llm.team import found
from marl_llm.train import train as run_training

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100},
)
games_app = typer.Typer(no_args_is_help=True, help="List, describe and check games.")
app.add_typer(games_app, name="games")

out = Console(highlight=False, soft_wrap=True)
log = Console(stderr=True, highlight=False, soft_wrap=True)

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, for example run.steps=50")]
GameSettings = Annotated[list[str] | None, typer.Argument(help="The game's settings as key=value")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table")]


PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def main() -> None:
    """Entry point: errors that a user can mend end in one line and exit code 2."""
    sys.path.insert(0, os.getcwd())  # a user's own games and rewards are modules of the folder they work in
    try:
        app()
    except MarlError as error:
        log.print("[bold red]error:[/]", shown(" ".join(str(error).split()), longest=None))
        sys.exit(2)


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


@app.command()
def play(
    run: Annotated[Path, typer.Argument(help="Run directory")],
    game: Annotated[str | None, typer.Option(help="Which of the run's games; default: the first")] = None,
    seat: Annotated[str | None, typer.Option(help="Your seat; default: the first")] = None,
    against: Annotated[str | None, typer.Option(help="Policy of the run's settings; default: the trained one")] = None,
    seed: Annotated[int, typer.Option(help="Fixes the deal")] = 0,
    step: Annotated[int | None, typer.Option(help="Checkpoint; default: the latest")] = None,
    as_json_: Json = False,
) -> None:
    """Sit down yourself against a policy of a run.

    Example: marl-llm play runs/kuhn-seed0-1 --seat player_1 --seed 7
    """
    settings = Run.config(run)
    if game is not None and game not in settings.games:
        raise ConfigError(f"--game: {game!r} is not allowed; it must be one of {list(settings.games)}")
    played = settings.games[game or next(iter(settings.games))]
    env = make_game(played.name, played.settings).unwrapped
    agents = list(env.possible_agents)
    mine = seat or agents[0]
    if mine not in agents:
        raise ConfigError(f"--seat: {mine!r} is not allowed; it must be one of {agents}")
    opponent = against or trained_policy(settings)
    if opponent not in settings.policies:
        raise ConfigError(f"--against: {opponent!r} is not allowed; it must be one of {sorted(settings.policies)}")
    team = found(settings, checkpoint_of(run, step)[1], learn=False)
    show = log if as_json_ else out
    show.print(env.metadata["rules"] + "\n", markup=False)
    person = HumanPolicy(lambda text: show.print(text, markup=False), lambda text: show.input(text, markup=False))
    matches = series(played, one_against(agents, mine, "you", opponent), name="person", games=1, seed=seed)
    try:
        episodes = list(play_matches(matches, {**team.policies, "you": person}))
    except (EOFError, KeyboardInterrupt):
        show.print("\nyou left the table")
        raise typer.Exit(1) from None
    if as_json_:
        print(episode_to_json(episodes[0], tokens=False))
        return
    if episodes[0].status == "fault":
        raise RunError(f"the game ended at fault: {episodes[0].note}")
    for turn in episodes[0].turns:
        out.print(f"  {turn.agent} ({turn.policy}): {turn.reply}", markup=False)
    out.print(f"your return: {score(episodes, mine).mean:+g}")


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
    plot_accuracy(results, folder / "accuracy.png")
    summary = json.dumps(as_objects(results), indent=1)
    with writing(folder / "results.json"):
        (folder / "results.json").write_text(summary)
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
    """Serve the policies of a run, and teams of them, behind an OpenAI-compatible API (docs/serving.md).

    SIGTERM or Ctrl-C ends it: no new requests, those in flight are finished. Needs pip install 'marl-llm[serve]'.

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


@app.command(context_settings={"allow_extra_args": True})
def tournament(
    context: typer.Context,
    game: Annotated[str, typer.Option(help="Any form of name that `games list` shows")],
    players: Annotated[str, typer.Option(help="Comma-separated: random,noisy,minimax,mcts:100,cfr,...")],
    episodes: Annotated[int, typer.Option(help="Games per pair and seat; all play the same deals", min=2)] = 100,
    seed: Annotated[int, typer.Option(help="Fixes deals and draws")] = 0,
    settings: Annotated[list[str] | None, typer.Option(help="The game's, as key=value, one or more")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the payoffs as a heat map (PNG)")] = None,
    board: Annotated[
        Path | None, typer.Option("--leaderboard", help="Add the results to this file, for `marl-llm leaderboard`")
    ] = None,
    as_json_: Json = False,
) -> None:
    """Let players meet, each against each from every seat: payoffs, ratings, and who beats whom in rings.

    Players: random, noisy[:TEMPERATURE], cfr[:ITERATIONS], minimax, mcts[:SIMULATIONS], tit_for_tat, bargainer,
    run:PATH[@STEP] (the trained policy of a run), openai:URL#MODEL (a chat endpoint; the key is read from
    OPENAI_API_KEY); NAME=PLAYER gives one a name of its own.

    Example: marl-llm tournament --game kuhn_poker --players random,noisy,cfr,run:runs/kuhn-seed0-1 --episodes 500
    """
    wanted = GameConfig(name=game, settings=game_settings([*(settings or []), *context.args]))
    policies = seat_players([name.strip() for name in players.split(",")], wanted)
    if board is not None:
        require_fit(wanted, policies)
        _tell_known(board, add(board, ()), wanted, policies, seed)
    result = hold_tournament(
        wanted,
        policies,
        num_games=episodes,
        seed=seed,
        watch=lambda played, total: track(
            played, "playing", total=total, console=log, transient=True, disable=not log.is_terminal
        ),
    )
    try:
        if board is not None:
            add(board, result.meetings)
    finally:  # whatever becomes of the file, what was played is told
        if as_json_:
            print(json.dumps(result.to_json(), allow_nan=False))
        else:
            out.print(standings(result))
    if plot is not None:
        plot_payoffs(result, plot)
    for what, path in (("plot", plot), ("leaderboard", board)):
        if path is not None and not as_json_:
            out.print(f"{what}: {path}", markup=False)


def _tell_known(path: Path, known: Iterable[Meeting], game: GameConfig, players: Iterable[str], seed: int) -> None:
    """Say before anything is played that some of it is in the leaderboard already."""
    names = set(players)
    again = [met for met in known if (met.game, met.seed) == (game, seed) and names.issuperset(met.players)]
    if again:
        log.print(
            f"{path} knows {len(again)} of the pairs with seed {seed}: they count once, and only if the same comes out "
            "again; another --seed adds to them",
            markup=False,
        )


@app.command()
def leaderboard(
    files: Annotated[list[Path], typer.Argument(help="Files that `marl-llm tournament --leaderboard` has written")],
    into: Annotated[Path | None, typer.Option(help="Add all of it to this file, which may be new")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the payoffs as heat maps (PNG), one per game")] = None,
    as_json_: Json = False,
) -> None:
    """Show the standings in each game over all that leaderboards know, which may be many people's.

    The same deals of the same players count once, whichever files they are in; deals of other seeds are added.

    Example: marl-llm leaderboard mine.json theirs.json --into all.json
    """
    known = read_all(files)
    if into is not None:
        known = add(into, known)
    results = tallies(known)
    if as_json_:
        print(json.dumps({"games": [result.to_json() for result in results]}, allow_nan=False))
    else:
        for result in results:
            out.print(standings(result))
    for number, result in enumerate(results, start=1):
        if plot is not None:
            plot_payoffs(result, plot if number == 1 else plot.with_stem(f"{plot.stem}-{number}"))


@app.command(context_settings={"allow_extra_args": True})
def credit(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="Name in configs/credit, or a YAML file")],
    episodes: Annotated[Path, typer.Argument(help="An episodes file, or a run directory")],
    compare: Annotated[list[str] | None, typer.Option(help="Further recipes, one or more, shown side by side")] = None,
    limit: Annotated[int, typer.Option(help="Turns to show in the table", min=1)] = 40,
    as_json_: Json = False,
) -> None:
    """Compute the advantages of logged episodes, with the value of every stage per turn.

    A run directory is credited step by step, as in training. One file is a fresh start: a recipe that remembers
    earlier steps (stage history, as in rae) gives the numbers of its training for the whole run directory only.

    Example: marl-llm credit mars runs/kuhn-seed0-1/episodes/step_000010.jsonl --compare grpo rae
    """
    if context.args and not compare:
        raise ConfigError(f"credit: {context.args} is one file too many; recipes to compare come after --compare")
    recipes = [load_recipe(name) for name in [recipe, *(compare or []), *context.args]]
    rows = audit_batches({file.stem: read_episodes(file) for file in batch_files(episodes)}, recipes)
    if as_json_:
        print(json.dumps(as_json(rows)))
    else:
        out.print(table(rows[:limit]))
        if len(rows) > limit:
            out.print(f"{limit} of {len(rows)} turns; --limit shows more, --json all of them")


@games_app.command("list")
def games_list(as_json_: Json = False) -> None:
    """List the games that come with the program.

    Example: marl-llm games list
    """
    rules = {name: make_game(name, {}).unwrapped.metadata["rules"] for name in games.names()}
    if as_json_:
        print(json.dumps(rules))
    else:
        width = max(map(len, (*rules, *games.FORMS))) + 2
        for name, text in rules.items():
            out.print(f"{name:{width}}{text.split('. ')[0]}.", markup=False)
        for form, what in games.FORMS.items():
            out.print(f"{form:{width}}{what}", markup=False)


@games_app.command("describe")
def games_describe(name: str, settings: GameSettings = None, as_json_: Json = False) -> None:
    """Show a game's rules, what it declares, and a first observation.

    Example: marl-llm games describe leduc_poker players=3
    """
    env = make_game(name, game_settings(settings or []))
    env.reset(seed=0)
    first = env.observe(env.unwrapped.agent_selection)["text"]
    metadata = {key: value for key, value in env.unwrapped.metadata.items() if key != "render_modes"}
    if as_json_:
        print(json.dumps({**metadata, "agents": list(env.unwrapped.possible_agents), "first_observation": first}))
    else:
        for key, value in metadata.items():
            out.print(f"{key:18}{value}", markup=False)
        out.print(f"{'agents':18}{list(env.unwrapped.possible_agents)}\n\n{first}", markup=False)


@games_app.command("check")
def games_check(name: str, settings: GameSettings = None, as_json_: Json = False) -> None:
    """Tell a game's author, in words, what is wrong with it; exit code 1 if anything is.

    Example: marl-llm games check mypackage.mygame:env
    """
    given = game_settings(settings or [])
    make_game(name, given)
    problems = check_game(lambda: make_game(name, given))
    if as_json_:
        print(json.dumps({"game": name, "problems": problems}))
    else:
        for problem in problems:
            out.print(f"- {problem}", markup=False)
        out.print(f"{name}: {f'{len(problems)} problems' if problems else 'conforms'}", markup=False)
    if problems:
        raise typer.Exit(1)


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


@app.command("lm-eval", add_help_option=False, context_settings=PASSED_ON)
def lm_eval(context: typer.Context) -> None:
    """Run the lm-evaluation-harness; a team of a run is the model `marl_llm`, and all arguments are the harness's.

    Example: marl-llm lm-eval --model marl_llm --model_args run=runs/crew-seed0-1,protocol=debate --tasks questions
    """
    harness(context.args)


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


if __name__ == "__main__":
    main()
