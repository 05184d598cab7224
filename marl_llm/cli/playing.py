"""Commands that play games, and that tell of them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

import games
from games.conformance import check as check_game
from marl_llm.cli.base import GameSettings, Json, app, games_app, log, out
from marl_llm.config import (
    GameConfig,
    game_settings,
)
from marl_llm.episodes import episode_to_json
from marl_llm.errors import ConfigError, RunError
from marl_llm.evaluation.leaderboard import add, read_all, require_fit, tallies
from marl_llm.evaluation.meetings import Meeting
from marl_llm.evaluation.tournament import score
from marl_llm.evaluation.tournament import tournament as hold_tournament
from marl_llm.matchmaking import one_against, series, trained_policy
from marl_llm.play import make_game
from marl_llm.play import play as play_matches
from marl_llm.players import seat_players
from marl_llm.policies.human import HumanPolicy
from marl_llm.run import Run, checkpoint_of
from marl_llm.standings import plot_payoffs, standings
from marl_llm.team import found


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
