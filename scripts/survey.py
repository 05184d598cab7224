"""What the surveys of other people's games share: each in a process of its own, since a game may hang or crash."""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import games
from games.conformance import check

VERDICTS = ("fine", "refused", "wrong")
Survey = Callable[[str, int], Iterable[tuple[str, str]]]
"""(what one process tries, random games) -> what was tried and the verdict on it, which begins with a `VERDICTS`."""


def verdict(name: str, count: int, settings: Mapping[str, Any]) -> str:
    """Check `count` random games of the game with these settings."""
    try:
        env = games.make(name, **settings)
    except ValueError as error:
        return f"refused: {error}"[:200]
    start = time.perf_counter()
    problems = check(lambda: games.make(name, **settings), games=count)
    seconds = time.perf_counter() - start
    return f"wrong: {problems}" if problems else f"fine: {len(env.possible_agents)} players, {seconds:.1f} s"


def main(about: str | None, script: str, names: Sequence[str], survey: Survey) -> None:
    """The command line of a survey over all names; exit code 1 if any verdict is `wrong`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=50, help="random games of each")
    parser.add_argument("--only", help="one name, in this process")
    parser.add_argument("--limit", type=float, default=300, help="seconds for each process")
    parser.add_argument("--processes", type=int, default=1)
    wanted = parser.parse_args()
    if wanted.only:
        for name, said in survey(wanted.only, wanted.games):
            print(f"{name:36}{said}", flush=True)
        return
    counts = dict.fromkeys(VERDICTS, 0)
    with ThreadPoolExecutor(wanted.processes) as pool:
        for lines in pool.map(lambda name: _in_a_process(script, name, wanted.games, wanted.limit), names):
            for line in lines:
                counts[line.split(maxsplit=1)[1].partition(":")[0]] += 1
                print(line, flush=True)
    print(f"{sum(counts.values())} games: {', '.join(f'{count} {word}' for word, count in counts.items())}")
    if counts["wrong"]:
        raise SystemExit(1)


def _in_a_process(script: str, name: str, count: int, limit: float) -> list[str]:
    """The lines of verdicts that the process prints; one of our own if it does not end well."""
    command = [sys.executable, script, "--games", str(count), "--only", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as late:
        # What it printed before comes as bytes, whatever `text` says.
        return [*_lines((late.stdout or b"").decode()), f"{name:36}wrong: not done after {limit:g} s"]
    ended = [f"{name:36}wrong: exit code {done.returncode}: {done.stderr[-300:]!r}"] if done.returncode else []
    return [*_lines(done.stdout), *ended]


def _lines(text: str) -> list[str]:
    """Those of the lines that are verdicts: a game may print whatever it likes."""
    return [line for line in text.splitlines() if any(f" {word}: " in line for word in VERDICTS)]
