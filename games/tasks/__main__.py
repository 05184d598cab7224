"""Print tasks or documents as JSON lines: `python -m games.tasks arithmetic --level 2 --count 5`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from games.tasks import BENCHMARKS, names, settings_of, task_set
from games.tasks.corpus import NAME as CORPUS
from games.tasks.corpus import corpus


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was asked for; the exit code: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m games.tasks",
        description="Print tasks of a generator or a benchmark, or the documents of the corpus, as JSON lines.",
        epilog=f"Settings as --NAME VALUE. {'; '.join(f'{name}: {_told(name)}' for name in names())}.",
    )
    parser.add_argument("source", help=f"{', '.join((*names(), *BENCHMARKS))}; a .jsonl file; hf:DATASET; or {CORPUS}")
    parser.add_argument("--count", type=int, default=10, help="tasks to print, from --start on (default 10)")
    parser.add_argument("--start", type=int, default=0, help="index of the first one (default 0)")
    asked, rest = parser.parse_known_args(arguments)
    try:
        settings = _settings(rest)
        if asked.source == CORPUS:
            _print(corpus(**settings).documents)
        else:
            _print(task_set(asked.source, **settings)[asked.start : asked.start + asked.count])
    except (TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _settings(rest: Sequence[str]) -> dict[str, Any]:
    """`--level 2 --split test` as settings."""
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        raise ValueError(f"settings are pairs of --NAME and VALUE; there are: {' '.join(rest)}")
    return {name[2:].replace("-", "_"): _value(value) for name, value in zip(rest[::2], rest[1::2])}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _print(rows: Sequence[Any]) -> None:
    for row in rows:
        print(json.dumps(asdict(row), ensure_ascii=False))


def _told(name: str) -> str:
    return ", ".join(f"{setting} ({default})" for setting, default in settings_of(name).items())


if __name__ == "__main__":
    sys.exit(main())
