"""What is exported can be loaded by others, and says where it comes from."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from marl_llm.config import load_benchmark, load_config
from marl_llm.errors import ConfigError, RunError
from marl_llm.export import MANIFEST, card, export_policy, export_team, team_card
from marl_llm.files import whole_folder
from marl_llm.models import load_model
from marl_llm.team import language_model
from marl_llm.train import train
from tests.test_train import SMALL, Silent

TEAM = """policies={
    planner: {trainable: false, tiny: {hidden: 32, layers: 1, heads: 2, mlp: 64, vocabulary: 400}},
    black: {base: planner, lora: {rank: 2}, learner: {lr: 0.01}},
    white: {tiny: {hidden: 32, layers: 1, heads: 2, mlp: 64, vocabulary: 400}, objective: {entropy: 1.0}},
    random: {kind: random}}"""
PROBE = torch.tensor([[5, 7, 11, 13]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of a game between a policy with an adapter and one with a model of its own."""
    seats = "matchmaking.seats={player_0: black, player_1: white}"
    game = "games.game.settings.on_illegal=default_action"  # so that the second has a turn, whatever the first says
    short = ["run.steps=1", "play.context_tokens=240", "evaluation.games=2", "evaluation.opponents=[random]"]
    config = load_config(SMALL, [" ".join(TEAM.split()), seats, game, *short])
    return train(config, Silent(), path=tmp_path_factory.mktemp("runs") / "run")


def said(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(PROBE).logits
    return logits


def ours(run: Path, name: str, step: int = 1) -> torch.Tensor:
    return said(language_model(load_config(run / "config.yaml"), name, run / "checkpoints" / f"step_{step}").model)


def block(text: str, language: str, folder: Path) -> str:
    """The code of that language in a card."""
    return text.replace("FOLDER", str(folder)).partition(f"```{language}\n")[2].partition("```")[0]


def done(text: str, folder: Path) -> dict[str, Any]:
    """What a card's Python code leaves."""
    names = {"RULES": "R", "OBSERVATION": "O"}
    exec(block(text, "python", folder), names)
    return names


def test_a_policy_is_loaded_by_transformers_and_says_what_it_said(run: Path, tmp_path: Path) -> None:
    assert export_policy(run, tmp_path / "white", policy="white", step=None, adapter=False) == "white"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "white")
    assert torch.equal(said(model), ours(run, "white"))
    assert AutoTokenizer.from_pretrained(tmp_path / "white").chat_template


def test_the_trained_policy_is_taken_and_its_adapter_merged(run: Path, tmp_path: Path) -> None:
    assert export_policy(run, tmp_path / "black", policy=None, step=None, adapter=False) == "black"
    torch.testing.assert_close(said(load_model(tmp_path / "black").model), ours(run, "black"))


def test_a_checkpoint_may_be_chosen(run: Path, tmp_path: Path) -> None:
    export_policy(run, tmp_path / "first", policy="white", step=0, adapter=False)
    first = said(load_model(tmp_path / "first").model)
    assert torch.equal(first, ours(run, "white", step=0))
    assert not torch.equal(first, ours(run, "white"))


def test_an_adapter_is_loaded_by_peft_with_the_base_that_comes_along(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_policy(run, tmp_path / "black", policy="black", step=None, adapter=True)
    assert {"adapter_config.json", "base", "README.md"} <= {file.name for file in (tmp_path / "black").iterdir()}
    torch.testing.assert_close(said(load_model(tmp_path / "black").model), ours(run, "black"))
    monkeypatch.chdir(tmp_path / "black")
    torch.testing.assert_close(said(AutoPeftModelForCausalLM.from_pretrained(".")), ours(run, "black"))


def test_a_card_says_base_games_recipe_results_and_how_to_load(run: Path, tmp_path: Path) -> None:
    export_policy(run, tmp_path / "black", policy=None, step=None, adapter=False)
    told = (tmp_path / "black" / "README.md").read_text()
    for part in (
        "library_name: transformers",
        "# black of small",
        "after 1 steps of 1 (seed 0)",
        '"hidden": 32',
        "LoRA of rank 2, merged into the base",
        "- **Game** `game`: `kuhn_poker` with",
        "- **Recipe**: `rae`",
        "| `eval/return/random/player_0` |",
        'AutoModelForCausalLM.from_pretrained("FOLDER")',
    ):
        assert part in told
    messages = done(told, tmp_path / "black")["messages"]
    assert messages[0]["content"] == "R\nReply with your action inside <answer>...</answer> and nothing else."


def test_a_card_of_whoever_answers_plainly_demands_no_tags(run: Path, tmp_path: Path) -> None:
    export_policy(run, tmp_path / "white", policy="white", step=None, adapter=False)
    config = load_config(run / "config.yaml", ["play.answers=plain"])
    told = card(config, run, "white", 1, adapter=False)
    assert done(told, tmp_path / "white")["messages"][0]["content"] == "R"
    assert "<answer>" not in told


def test_the_card_of_an_adapter_says_how_to_load_it_from_anywhere(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_policy(run, tmp_path / "black", policy="black", step=None, adapter=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = done((tmp_path / "black" / "README.md").read_text(), tmp_path / "black")
    torch.testing.assert_close(said(found["model"]), ours(run, "black"))


def test_a_team_is_one_folder_that_says_who_sits_where(run: Path, tmp_path: Path) -> None:
    assert export_team(run, tmp_path / "team", step=None) == ["planner", "black", "white"]
    manifest = json.loads((tmp_path / "team" / MANIFEST).read_text())
    assert manifest["policies"]["black"] == {"folder": "black", "temperature": 1.0}
    assert manifest["others"] == {"random": {"kind": "random", "options": {}}}
    assert manifest["games"]["game"]["seats"] == {"player_0": "black", "player_1": "white"}
    assert (manifest["step"], manifest["play"]["max_reply_tokens"]) == (1, 6)
    torch.testing.assert_close(said(load_model(tmp_path / "team" / "black").model), ours(run, "black"))
    assert "who sits where" in (tmp_path / "team" / "README.md").read_text()


def test_a_team_card_says_what_a_benchmark_takes(run: Path, tmp_path: Path) -> None:
    changed = ["matchmaking.seats.player_1=random", "policies.white.temperature=0.5", "play.max_turns=7"]
    config = load_config(run / "config.yaml", changed)
    told = team_card(config, run, ["black", "white"], 1)
    (tmp_path / "theirs.yaml").write_text(block(told, "yaml", tmp_path))
    benchmark = load_benchmark(tmp_path / "theirs.yaml", ["benchmarks.sums={source: arithmetic, level: 1, size: 2}"])
    team = benchmark.teams["theirs"]
    assert {name: (policy.kind, policy.temperature) for name, policy in team.policies.items()} == {
        "black": ("llm", 1.0),
        "white": ("llm", 0.5),
        "random": ("random", 1.0),
    }
    assert team.policies["white"].model == f"{tmp_path}/white"
    assert team.seats == {"player_0": "black", "player_1": "random"}
    assert benchmark.play == config.play


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RunError, match=r"could not write .*/team: File too large"):
            export_team(run, tmp_path / "team", step=None)
        with pytest.raises(RunError, match=r"could not write .*/black: File too large"):
            export_policy(run, tmp_path / "black", policy="black", step=None, adapter=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_who_is_interrupted_leaves_nothing_and_what_a_killed_one_left_is_replaced(run: Path, tmp_path: Path) -> None:
    def interrupted() -> None:
        with whole_folder(tmp_path / "new") as folder:
            (folder / "part").touch()
            assert [path.name for path in tmp_path.iterdir()] == [".new.tmp"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".white.tmp").mkdir()
    (tmp_path / ".white.tmp" / "part").touch()
    export_policy(run, tmp_path / "white", policy="white", step=None, adapter=False)
    assert [path.name for path in tmp_path.iterdir()] == ["white"]
    assert not (tmp_path / "white" / "part").exists()


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy 'random' is not allowed; it must be one of \['black', 'planner'"):
        export_policy(run, tmp_path / "none", policy="random", step=None, adapter=False)
    with pytest.raises(ConfigError, match="policy 'white' has no adapter"):
        export_policy(run, tmp_path / "none", policy="white", step=None, adapter=True)
    with pytest.raises(RunError, match="no checkpoint of step 7"):
        export_team(run, tmp_path / "none", step=7)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="exists already; choose another folder"):
        export_policy(run, tmp_path, policy=None, step=None, adapter=False)
