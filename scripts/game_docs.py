"""Write `docs/games.md` from the games: what they say about themselves, their settings, a first observation.

PYTHONPATH=. python scripts/game_docs.py [--check]
"""

import argparse
import importlib
import inspect
import sys
from pathlib import Path

import games
from games.openspiel import OpenSpielEnv
from games.textarena_table import ALLOWED, REFUSED, VERSION

PAGE = Path(__file__).parents[1] / "docs" / "games.md"

HEAD = """# Games

Made by `scripts/game_docs.py` from the games themselves; `tests/test_game_docs.py` sees that it is up to date.
Every setting is a key of `game.settings`. What `on_illegal` does is said in
[architecture](architecture.md#decisions), decision 4. Two more that games on OpenSpiel's rules may have:
"""


_FORM = {"board": "as a board", "columns": "in columns, one per agent", "list": "turn by turn"}
"""How a game is shown, by its `metadata["form"]`."""


def page() -> str:
    """The whole page: settings of many games, and one section per name in `games.names()` and form of other names."""
    common = [text for text in _paragraphs(OpenSpielEnv) if text.startswith(("`opening`", "`scale`"))]
    head = "\n".join([HEAD, *(f"- {' '.join(text.split())}" for text in common), ""])
    return "\n".join([head, *map(section, games.names()), *map(form, games.FORMS)])


def section(name: str) -> str:
    """What there is to know about one game, as Markdown."""
    env = games.make(name)
    env.reset(seed=0)
    factory = games.factory(name)
    about = inspect.getdoc(importlib.import_module(factory.__module__)) or ""
    blocks = [
        f"## {name}",
        about,
        *_paragraphs(factory),
        inspect.cleandoc(type(getattr(env, "parallel", env)).__doc__ or ""),
        f"Rules, as players are told:\n\n> {env.metadata['rules']}",
        f"Utilities: {_span(env.metadata['utility_range'])}{', zero-sum' if env.metadata['zero_sum'] else ''}. "
        f"Roles: {', '.join(env.metadata['roles'])}. `marl-llm watch` shows it {_FORM[env.metadata['form']]}.",
        _settings(inspect.signature(factory)),
        f"A first observation:\n\n```text\n{env.observe(env.agent_selection)['text']}\n```",
    ]
    return "\n\n".join(blocks) + "\n"


def form(name: str) -> str:
    """What there is to know about games whose names have this form, as Markdown."""
    blocks = [f"## {name}", games.FORMS[name]]
    prefix = name.partition(":")[0]
    if prefix in games.ADAPTERS:
        about = _paragraphs(importlib.import_module(games.ADAPTERS[prefix]).env)
        blocks += [*about, _settings(inspect.signature(games.factory(name)))]
    if prefix == "textarena":
        blocks += _environments()
    return "\n\n".join(blocks) + "\n"


def _environments() -> list[str]:
    """Which of TextArena's environments can be played, and why the others cannot."""
    reasons: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        reasons.setdefault(reason, []).append(name)
    whole = [name for name in REFUSED if "-v0" not in name]
    allowed = [f"{name} ({_players(environment.players)})" for name, environment in ALLOWED.items()]
    return [
        f"Of the {len(ALLOWED) + len(whole)} environments of TextArena {VERSION}, {len(ALLOWED)} can be played "
        f"(`scripts/textarena_survey.py` tries them), with these numbers of players: {', '.join(allowed)}. "
        "An environment's id is its name and `-v0`, mostly; most have versions, such as `KuhnPoker-v0-long`, and each "
        "id has a form with shorter observations, such as `KuhnPoker-v0-train`.",
        "Refused:",
        "\n".join(f"- {', '.join(names)}: {reason}." for reason, names in reasons.items()),
    ]


def _players(players: range) -> str:
    if len(players) == 1:
        return str(players[0])
    return f"{players[0]} to {players[-1]}{'' if players.step == 1 else f' in steps of {players.step}'}"


def _paragraphs(documented: object) -> list[str]:
    """A docstring's paragraphs up to what it raises."""
    return (inspect.getdoc(documented) or "").partition("\n\nRaises:")[0].split("\n\n")


def _settings(signature: inspect.Signature) -> str:
    rows = [f"| `{name}` | `{parameter.default!r}` |" for name, parameter in signature.parameters.items()]
    return "\n".join(["| setting | default |", "|---|---|", *rows])


def _span(utilities: tuple[float, float]) -> str:
    low, high = utilities
    return f"{low:g} to {high:g}"


def main() -> None:
    """Write the page, or with `--check` only say whether it is up to date (exit code 1: no)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is out of date")
    if parser.parse_args().check:
        sys.exit(PAGE.read_text() != page() and f"{PAGE} is out of date; run {Path(__file__).name}")
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
