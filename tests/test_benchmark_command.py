"""`marl-llm benchmark` as a person meets it; what is killed goes on without losing or repeating an answer."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from marl_llm.evaluation.answers import read_answers
from tests.test_cli import marl, refused

YAML = """
name: sums
samples: 2
baseline: weak
teams:
  weak: {policies: {one: {kind: informed, options: {accuracy: 0.5}}}}
  better: {policies: {one: {kind: informed, options: {accuracy: 0.9}}}}
benchmarks: {sums: {source: arithmetic, level: 1, size: 30}}
protocols: {debate: {}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "sums.yaml"
    path.write_text(f"dir: {tmp_path}{YAML}")
    return path


def test_a_benchmark_ends_in_tables_a_plot_and_files(config: Path, tmp_path: Path) -> None:
    code, out, err = marl("benchmark", str(config))
    assert code == 0, err
    assert "sums: 30 items, answers to each: 2" in out
    assert "less weak" in out
    assert out.splitlines()[-1] == f"answers: {tmp_path}/sums/answers.jsonl"
    assert (tmp_path / "sums" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "sums" / "results.json").read_text())
    assert {(row["protocol"], row["team"], row["samples"]) for row in rows} == {
        (way, team, 2) for way in ("single", "debate") for team in ("weak", "better")
    }
    code, again, _ = marl("benchmark", str(tmp_path / "sums"), "--json")
    assert code == 0
    assert json.loads(again) == rows


def test_a_benchmark_that_is_killed_goes_on_where_it_was(config: Path, tmp_path: Path) -> None:
    big = ["benchmarks.sums.size=300", "protocols.debate.settings.rounds=3"]
    file = tmp_path / "sums" / "answers.jsonl"
    with subprocess.Popen([sys.executable, "-m", "marl_llm.cli", "benchmark", str(config), *big]) as process:
        while not file.is_file() or file.stat().st_size < 40_000:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    written = file.read_bytes()
    code, _, err = marl("benchmark", str(config), *big)
    assert code == 0, err
    assert file.read_bytes().startswith(written[: written.rindex(b"\n") + 1])
    lines, keys = file.read_text().splitlines(), {answer.key for answer in read_answers(file)}
    counts = Counter((key.team, key.protocol) for key in keys)
    assert len(lines) == len(keys) == 2400
    assert counts == {(team, way): 600 for team in ("weak", "better") for way in ("single", "debate")}


def test_what_is_given_as_a_whole_replaces_what_stood_there(config: Path, tmp_path: Path) -> None:
    whole = ["benchmarks={other: {source: arithmetic, size: 3}}", "protocols={}", "name=other"]
    code, _, err = marl("benchmark", str(config), *whole)
    assert code == 0, err
    assert {answer.key.benchmark for answer in read_answers(tmp_path / "other" / "answers.jsonl")} == {"other"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("protocols.debat={}", "protocol 'debat' is unknown; nearest valid name: debate"),
        ("samples=0", "samples: 0 is not allowed; it must be 1 or more"),
        ("baseline=nobody", "baseline: 'nobody' is not allowed; it must be null or one of ['better', 'weak']"),
        ("teams.weak.runs=[a]", "policies: ['one'] is not allowed; it must be given where there are no runs"),
        ("teams.weak.step=3", "step: 3 is not allowed; it must be null where there are no runs"),
        ("teams.weak.seats={'*': two}", "seats: 'two' is not allowed; it must be one of the policies: ['one']"),
        ("teams.weak.temperature=-1", "temperature: -1.0 is not allowed; it must be null or 0 or more"),
        (
            "benchmarks.more={level: 1}",
            "benchmarks.more: {'level': 1} is not allowed; it must be a mapping with",
        ),
        ("benchmarks.sums.item=3", "benchmarks.sums.item: 3 is not allowed; it must be left out: all items are asked"),
        ("name=a/b", "name: 'a/b' is not allowed; it must be a name without /; dir says where"),
        ("teems={}", "teems: unknown key; nearest valid name: teams"),
    ],
)
def test_a_mistake_is_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, config: Path, override: str, message: str
) -> None:
    assert message in refused(capfd, monkeypatch, "benchmark", str(config), override)


def test_a_file_that_is_not_there_is_named(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "none.yaml: no such file" in refused(capfd, monkeypatch, "benchmark", "none.yaml")
