"""What all commands have in common."""

from typing import Annotated

import typer
from rich.console import Console

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
