"""What the browser says of a turn is what `marl-llm credit` says."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from marl_llm import cli
from marl_llm.episodes import read_episodes
from marl_llm.errors import ConfigError
from marl_llm.run import Run
from marl_llm.watch import credits
from marl_llm.watch.browser import Browser, MustScoreError
from marl_llm.watch.index import Index
from marl_llm.watch.spelling import Spelling


def through_the_command(recipe: str, run: Path, turn: str) -> Any:
    result = CliRunner().invoke(cli.whole(), ["credit", recipe, str(run), "--turn", turn, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["recipes"][recipe]


@pytest.mark.parametrize("recipe", ["self_play", "mars", "grpo", "rae", "gigpo"])
def test_a_turn_is_explained_as_the_command_explains_it(reader: Browser, trained: Path, recipe: str) -> None:
    for match, turn in (("s3/g1/m2", 0), ("s3/g0/m0", 0), ("s1/g0/m3", 0)):
        (told,) = reader.credit(match, turn, [recipe])["recipes"]
        known = through_the_command(recipe, trained, f"{match}#{turn}")
        for mine, theirs in zip(told["stages"], known, strict=True):
            assert [list(member) for member in mine["members"]] == theirs.pop("members")
            assert {name: mine[name] for name in theirs} == theirs
        assert told["advantage"] == known[-1]["after"]


def test_the_runs_own_recipe_is_the_one_that_is_shown(reader: Browser) -> None:
    (told,) = reader.credit("s2/g0/m0", 0, [])["recipes"]
    assert told["name"] == reader.credits.own == "rae"


@pytest.mark.parametrize("own", ["path", "inline"])
def test_a_recipe_of_ones_own_goes_by_its_name(trained: Path, tmp_path: Path, own: str) -> None:
    about = {"about": "mine", "stages": ["reward", {"returns": {"gamma": 0.5}}]}
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(about))
    found = credits.Credits(trained, str(file) if own == "path" else about)
    assert found.recipe(found.own).about == found.recipe("").about == "mine"
    assert found.own == ("mine" if own == "path" else "inline")
    with pytest.raises(ConfigError, match=r"mine\.yaml' is not allowed"):
        found.recipe(str(file))


def test_a_run_that_was_resumed_remembers_what_was_played_again(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    reader = Browser(run, Index(run))
    for _ in reader.index.refresh():
        pass
    before = reader.credit("s3/g0/m0", 0, ["rae"])["recipes"][0]["advantage"]
    again = run / "episodes" / "step_000002.jsonl"
    played = [json.loads(line) for line in again.read_text().splitlines()]
    for turn in (turn for one in played for turn in one["turns"]):
        turn["rewards"] = {name: value + 3.0 for name, value in turn["rewards"].items()}
    again.write_text("".join(f"{json.dumps(one)}\n" for one in played))
    later = run / "episodes" / "step_000003.jsonl"
    later.write_text(later.read_text() + "\n")
    told = reader.credit("s3/g0/m0", 0, ["rae"])["recipes"][0]["advantage"]
    assert told != before
    later.write_text(later.read_text().rstrip("\n") + "\n")
    assert told == through_the_command("rae", run, "s3/g0/m0#0")[-1]["after"]


def test_what_a_recipe_remembers_is_read_in_the_background(
    reader: Browser, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    monkeypatch.setattr(credits, "AT_ONCE", 0)
    (told,) = reader.credit("s2/g0/m0", 0, ["rae"])["recipes"]
    deadline = time.monotonic() + 60
    while "reading" in told and time.monotonic() < deadline:
        assert told["reading"]["of"] == 1
        time.sleep(0.05)
        (told,) = reader.credit("s2/g0/m0", 0, ["rae"])["recipes"]
    assert told["advantage"] == through_the_command("rae", trained, "s2/g0/m0#0")[-1]["after"]


def test_a_recipe_that_does_not_fit_says_why_and_the_others_are_shown(reader: Browser) -> None:
    told = reader.credit("s2/g0/m0", 0, ["nonsense", "shapley", "mars"])["recipes"]
    assert "nonsense" in told[0]["error"]
    assert "shapley" in told[1]["error"]
    assert told[2]["stages"]


def test_colours_are_what_was_sampled_token_by_token(reader: Browser, trained: Path) -> None:
    (known,) = [one for one in read_episodes(trained) if one.match.id == "s2/g0/m1"]
    told = reader.colours("s2/g0/m1", "logprob", "", None)
    for turn, shown in zip(known.turns, told["turns"], strict=True):
        assert turn.completion is not None
        assert [token["value"] for token in shown["tokens"]] == list(turn.completion.logprobs)
        spelled = "".join(token["text"] for token in shown["tokens"])
        assert turn.reply in spelled
        assert shown["value"] == pytest.approx(sum(turn.completion.logprobs) / len(turn.completion.logprobs))


def test_a_tokenizer_that_is_damaged_or_not_there_yet_is_read_when_it_is(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    files = list((run / "checkpoints").glob("*/*/tokenizer.json"))
    for number, file in enumerate(files):
        file.rename(file.with_name("kept"))
        if number:
            file.write_text("{")
    spelling = Spelling(run, Run.config(run))
    assert spelling.texts("agent", (1, 2, 3)) is None
    for file in files:
        file.with_name("kept").rename(file)
    assert spelling.texts("agent", (1, 2, 3)) == Spelling(trained, Run.config(trained)).texts("agent", (1, 2, 3))


def test_advantages_colour_turns_and_of_a_recipe_over_tokens_the_tokens(reader: Browser) -> None:
    per_turn = reader.colours("s2/g0/m1", "advantage", "mars", None)["turns"]
    (told,) = reader.credit("s2/g0/m1", 0, ["mars"])["recipes"]
    assert per_turn[0]["value"] == told["advantage"]
    assert per_turn[0]["tokens"] is None


def test_entropy_is_asked_of_a_model_once(reader: Browser) -> None:
    with pytest.raises(MustScoreError, match="entropy is not in the log"):
        reader.colours("s1/g0/m1", "entropy", "", 2)
    reader.keep_scores("s1/g0/m1", 2, {0: {"entropy": (0.5,), "ratio": (1.5,)}})
    assert reader.colours("s1/g0/m1", "entropy", "", 2)["turns"][0]["value"] == 0.5
    assert reader.colours("s1/g0/m1", "ratio", "", 2)["turns"][0]["tokens"][0]["value"] == 1.5
