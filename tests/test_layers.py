"""Which way the arrows point: what each part of the program may import, read off its source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MARL_LLM = sorted((ROOT / "marl_llm").rglob("*.py"))
GAMES = sorted((ROOT / "games").rglob("*.py"))

# A room imports from earlier lines and from itself. What stands on one line is independent of each other.
ORDER = (
    ("types", "errors", "seeds", "visible"),
    ("config", "devices", "terminal"),
    ("listening",),
    ("adapters",),
    ("text", "credit", "engines", "learning", "models", "run", "metrics", "alarms", "curriculum", "ratings"),
    ("policies", "league"),
    ("matchmaking", "probes"),
    ("budget",),
    ("play",),
    ("branches",),
    ("players",),
    ("team",),
    ("evaluation", "warmup", "opponents"),
    ("runtime", "measures"),
    ("offers",),
    ("train",),
    ("export", "harness", "live", "scoreboard", "standings", "sweep", "doctor", "plan", "serve", "report", "watch"),
    ("cli", "__init__", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}

# The parts of one room that are files side by side.
ROOM = {"episodes": "run", "checkpoints": "run", "files": "run", "lines": "run", "scalars": "run"}


def room_of(file: Path) -> str:
    first = file.relative_to(ROOT / "marl_llm").parts[0].removesuffix(".py")
    return ROOM.get(first, first)


def imported_modules(file: Path) -> Iterator[str]:
    """Full names, those imported inside functions included; `from a import b` counts as `a.b`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(package: str, files: list[Path]) -> set[str]:
    return {str(f.relative_to(ROOT)) for f in files if package in {name.split(".")[0] for name in imported_modules(f)}}


@pytest.mark.parametrize("file", MARL_LLM, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_room_imports_only_from_earlier_rooms_and_itself(file: Path) -> None:
    room = room_of(file)
    assert room in LEVEL, f"{file.name} has no place in the order of rooms"
    for name in imported_modules(file):
        package, _, rest = name.partition(".")
        if package == "marl_llm":
            other = ROOM.get(rest.split(".")[0], rest.split(".")[0])
            assert other == room or LEVEL[other] < LEVEL[room], f"{room} imports {name}"


def test_games_never_import_marl_llm() -> None:
    assert imports_of("marl_llm", GAMES) == set()


@pytest.mark.parametrize(
    ("package", "files"),
    [
        ("inspect_ai", ["harness/inspect"]),
        ("lm_eval", ["harness/lm_eval"]),
        ("vllm", ["engines/vllm"]),
        ("peft", ["adapters"]),
        ("altair", ["report/charts"]),
        ("vl_convert", ["report/figures"]),
        ("fastapi", ["serve/api", "serve/gate", "serve/refusals", "watch/api", "watch/plain"]),
        ("starlette", ["serve/api", "watch/api"]),
        ("uvicorn", ["listening"]),
        ("ray", ["runtime/processes", "runtime/proxies", "runtime/ray"]),
    ],
)
def test_a_heavy_optional_package_is_imported_in_its_own_files_only(package: str, files: list[str]) -> None:
    assert imports_of(package, MARL_LLM + GAMES) <= {f"marl_llm/{file}.py" for file in files}


@pytest.mark.parametrize("package", ["pyspiel", "open_spiel"])
def test_openspiel_is_used_by_games_scripted_players_and_evaluation_only(package: str) -> None:
    allowed = ("games/", "marl_llm/policies/", "marl_llm/evaluation/")
    assert [file for file in imports_of(package, MARL_LLM + GAMES) if not file.startswith(allowed)] == []


def test_torch_is_not_needed_to_read_a_run() -> None:
    light = [
        file for file in MARL_LLM if room_of(file) in ("types", "errors", "seeds", "visible", "config", "run", "report")
    ]
    assert imports_of("torch", light) == imports_of("transformers", light) == set()
