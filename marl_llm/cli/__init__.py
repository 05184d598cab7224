"""The command line: `marl-llm COMMAND --help` explains each command with an example."""

import os
import sys

from marl_llm.cli import training  # its commands come first in the help

# isort: split
from marl_llm.cli import answering, playing, seeing
from marl_llm.cli.base import app, log
from marl_llm.errors import MarlError
from marl_llm.standings import shown

__all__ = ["answering", "app", "main", "playing", "seeing", "training"]


def main() -> None:
    """Entry point: errors that a user can mend end in one line and exit code 2."""
    sys.path.insert(0, os.getcwd())  # a user's own games and rewards are modules of the folder they work in
    try:
        app()
    except MarlError as error:
        log.print("[bold red]error:[/]", shown(" ".join(str(error).split()), longest=None))
        sys.exit(2)
