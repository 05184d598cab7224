"""What its text costs a game: games per second with random players, against the same game without text.

    python scripts/bench/game_text.py [--only kuhn_poker hanabi] [--seconds 0.3] [--rounds 5] [--json]

With text, every player to move is observed, as in play. Without, nobody is: what a seat sees, the offer of its actions
and its state key are never made, while rules, rewards, infos and the actions' names stay as they are. Where OpenSpiel
has the rules, a bare loop over its states is a third contender. Contenders play the same number of games in turn, in
one process, and CPU seconds are counted; a ratio is the median over rounds. Exit code 1 if text makes a game more than
three times as slow.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pettingzoo import AECEnv
from rich.console import Console
from rich.table import Table

import games
from games.openspiel import OpenSpielEnv, draw_chance

LIMIT = 3.0
"""How many times as slow text may make a game."""

PlayGame = Callable[[int], None]
"""Plays the game of a seed."""


def without_text(name: str) -> AECEnv:
    """The game with everything left out that only makes text for a seat."""
    env = games.make(name)
    game = getattr(env, "parallel", env)
    nothing = {"see": lambda *_: "", "offer": lambda *_: "", "state_key": lambda *_: None}
    game.__class__ = type("WithoutText", (type(game),), nothing)
    return env


def play_env(env: AECEnv, *, watch: bool) -> PlayGame:
    """Random games of the environment; `watch`: whoever is to move is observed."""

    def play(seed: int) -> None:
        chooser = random.Random(seed)
        env.reset(seed=seed)
        while env.agents:
            agent = env.agent_selection
            if env.terminations[agent] or env.truncations[agent]:
                env.step(None)
                continue
            if watch:
                env.observe(agent)
            info = env.infos[agent]
            legal = info["legal_actions"]
            env.step(chooser.choice(info["examples"] if legal is None else legal))

    return play


def play_openspiel(game: Any) -> PlayGame:
    """Random games on OpenSpiel's own states."""

    def play(seed: int) -> None:
        chooser, draws = random.Random(seed), np.random.default_rng(seed)
        state = game.new_initial_state()
        draw_chance(state, draws)
        while not state.is_terminal():
            state.apply_action(chooser.choice(state.legal_actions()))
            draw_chance(state, draws)

    return play


def measure(name: str, *, seconds: float, rounds: int) -> dict[str, float]:
    """Games per second of every contender (medians), and the ratios of their times."""
    env = games.make(name)
    contenders = {"text": play_env(env, watch=True), "no_text": play_env(without_text(name), watch=False)}
    if isinstance(env, OpenSpielEnv):
        contenders["openspiel"] = play_openspiel(env.game)
    count = enough(contenders["text"], seconds)
    rows = []
    for number in range(rounds):
        seeds = range(number * count, (number + 1) * count)
        rows.append({contender: timed(play, seeds) for contender, play in contenders.items()})
    return summary(rows, count)


def enough(play: PlayGame, seconds: float) -> int:
    """How many games take about so many seconds; plays some first, so that everything is warm."""
    count = 1
    while (took := timed(play, range(count))) < seconds / 4:
        count *= 2
    return max(1, round(count * seconds / took))


def timed(play: PlayGame, seeds: range) -> float:
    """CPU seconds of the games of these seeds."""
    start = time.process_time()
    for seed in seeds:
        play(seed)
    return time.process_time() - start


def summary(rows: list[dict[str, float]], count: int) -> dict[str, float]:
    """Of the seconds that `count` games took each contender in each round."""
    row = {f"{name}_games_per_s": count / statistics.median(r[name] for r in rows) for name in rows[0]}
    others = [name for name in rows[0] if name != "text"]
    return row | {f"over_{name}": statistics.median(r["text"] / r[name] for r in rows) for name in others}


def table(results: dict[str, dict[str, float]]) -> Table:
    """The figures side by side; a ratio over the limit in red."""
    shown = Table(title="Games per second with random players, and what text costs")
    shown.add_column("game", no_wrap=True)
    for heading in ("with text", "without text", "times as slow", "bare OpenSpiel", "times as slow"):
        shown.add_column(heading, justify="right")
    for name, row in results.items():
        bare = [""] * 2
        if "over_openspiel" in row:
            bare = [f"{row['openspiel_games_per_s']:,.0f}", f"{row['over_openspiel']:.1f}"]
        color = "red" if row["over_no_text"] > LIMIT else "green"
        ratio = f"[{color}]{row['over_no_text']:.2f}[/{color}]"
        shown.add_row(name, f"{row['text_games_per_s']:,.0f}", f"{row['no_text_games_per_s']:,.0f}", ratio, *bare)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=games.names(), default=games.names(), metavar="GAME")
    parser.add_argument("--seconds", type=float, default=0.3, help="CPU seconds of a contender's round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {name: measure(name, seconds=args.seconds, rounds=args.rounds) for name in args.only}
    if args.json:
        print(json.dumps(results))
    else:
        Console().print(table(results))
    if any(row["over_no_text"] > LIMIT for row in results.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
