"""The page about tasks shows what the generators make."""

from importlib import import_module
from pathlib import Path

from games.tasks import BENCHMARKS, names, settings_of, task_set
from games.tasks.answers import CHECKERS
from games.tasks.corpus import corpus

PAGE = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text()


def test_the_page_shows_the_first_task_of_every_generator_and_its_settings():
    for name in names():
        first = task_set(name)[0]
        own = [setting for setting in settings_of(name) if setting not in ("split", "seed", "size")]
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |") and f"`{own[0]}`" in line]
        assert f"{first.prompt} **{first.answer}**" in row
        assert all(f"`{setting}`" in row for setting in own)


def test_the_page_names_every_checker_and_the_size_of_the_corpus():
    assert all(f"| `{check}` |" in PAGE for check in CHECKERS)
    characters = sum(len(document.text) for document in corpus().documents)
    assert f"{round(characters, -3):,} characters" in PAGE


def test_the_page_names_the_data_set_and_the_checker_of_every_benchmark():
    for name in BENCHMARKS:
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
        hub = getattr(import_module(f"games.tasks.benchmarks.{name}"), "HUB", None)
        assert hub is None or f"`{hub.name}`, {hub.subset}, {hub.split}".replace(" None,", "") in row
        assert f"`{task_set(name, path='sample')[0].check}`" in row
