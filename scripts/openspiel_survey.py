"""Which of OpenSpiel's games can be played here: random games of every one that needs no parameters.

Each game has a process of its own with a time limit, since a game may hang or crash. Ends with the games that are
refused, and why, and those in which something is wrong; exit code 1 if any is.

    python scripts/openspiel_survey.py --games 50
"""

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pyspiel

import games
from games.conformance import check


def survey(name: str, count: int) -> None:
    """Check one game and print the verdict in one line."""
    try:
        env = games.make(f"openspiel:{name}")
    except ValueError as error:
        print(f"refused: {error}")
        return
    start = time.perf_counter()
    problems = check(lambda: games.make(f"openspiel:{name}"), games=count)
    seconds = time.perf_counter() - start
    print(f"wrong: {problems}" if problems else f"fine: {len(env.possible_agents)} players, {seconds:.1f} s")


def _in_a_process(name: str, count: int, limit: float) -> str:
    command = [sys.executable, __file__, "--games", str(count), "--only", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"wrong: not done after {limit:g} s"
    if done.returncode:
        return f"wrong: exit code {done.returncode}: {done.stderr[-300:]!r}"
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=50, help="random games of each")
    parser.add_argument("--only", help="one game, in this process")
    parser.add_argument("--limit", type=float, default=300, help="seconds for each game")
    parser.add_argument("--processes", type=int, default=1)
    wanted = parser.parse_args()
    if wanted.only:
        survey(wanted.only, wanted.games)
        return
    names = [game.short_name for game in pyspiel.registered_games() if game.default_loadable]
    counts = {"fine": 0, "refused": 0, "wrong": 0}
    with ThreadPoolExecutor(wanted.processes) as pool:
        verdicts = pool.map(lambda name: _in_a_process(name, wanted.games, wanted.limit), names)
        for name, verdict in zip(names, verdicts):
            counts[verdict.partition(":")[0]] += 1
            print(f"{name:28}{verdict}", flush=True)
    print(f"{len(names)} games: {', '.join(f'{count} {word}' for word, count in counts.items())}")
    if counts["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
