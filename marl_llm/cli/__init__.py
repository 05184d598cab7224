"""The command line: `marl-llm COMMAND --help` explains each command with an example."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from typer import Typer

from marl_llm.cli.base import app, log
from marl_llm.errors import MarlError
from marl_llm.terminal import shown

COMMANDS = {
    "training": ("train", "plan", "sweep", "evaluate", "credit", "doctor"),
    "answering": ("benchmark", "export", "serve", "lm-eval"),
    "playing": ("play", "tournament", "leaderboard", "games"),
    "seeing": ("report", "watch"),
}
"""Module to its commands, in the order of the help."""


def register(arguments: Sequence[str]) -> None:
    """Make the command that is asked for known, or all of them where none is: who watches a run need not load torch."""
    asked = [module for module, commands in COMMANDS.items() if arguments[:1] and arguments[0] in commands]
    for module in asked or COMMANDS:
        import_module(f"marl_llm.cli.{module}")


def whole() -> Typer:
    """The program with all its commands."""
    register(())
    return app


def main() -> None:
    """Entry point: errors that a user can mend end in one line and exit code 2."""
    sys.path.insert(0, os.getcwd())  # a user's own games and rewards are modules of the folder they work in
    register(sys.argv[1:])
    try:
        app()
    except MarlError as error:
        log.print("[bold red]error:[/]", shown(" ".join(str(error).split()), longest=None))
        sys.exit(2)
