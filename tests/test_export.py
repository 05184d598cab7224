"""What is exported can be loaded by others, and says where it comes from."""

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from marl_llm.config import load_config
from marl_llm.errors import ConfigError, RunError
from marl_llm.export import MANIFEST, export_policy, export_team
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
    card = (tmp_path / "black" / "README.md").read_text()
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
        assert part in card
    card = card.replace("FOLDER", str(tmp_path / "black"))
    code = card.partition("```python\n")[2].partition("```")[0]
    exec(code, {"RULES": "", "OBSERVATION": ""})


def test_a_team_is_one_folder_that_says_who_sits_where(run: Path, tmp_path: Path) -> None:
    assert export_team(run, tmp_path / "team", step=None) == ["planner", "black", "white"]
    manifest = json.loads((tmp_path / "team" / MANIFEST).read_text())
    assert manifest["policies"]["black"] == {"folder": "black", "temperature": 1.0}
    assert manifest["others"] == {"random": {"kind": "random", "options": {}}}
    assert manifest["games"]["game"]["seats"] == {"player_0": "black", "player_1": "white"}
    assert (manifest["step"], manifest["play"]["max_reply_tokens"]) == (1, 6)
    torch.testing.assert_close(said(load_model(tmp_path / "team" / "black").model), ours(run, "black"))
    assert "who sits where" in (tmp_path / "team" / "README.md").read_text()


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy 'random' is not allowed; it must be one of \['black', 'planner'"):
        export_policy(run, tmp_path / "none", policy="random", step=None, adapter=False)
    with pytest.raises(ConfigError, match="policy 'white' has no adapter"):
        export_policy(run, tmp_path / "none", policy="white", step=None, adapter=True)
    with pytest.raises(RunError, match="no checkpoint of step 7"):
        export_team(run, tmp_path / "none", step=7)
    assert not (tmp_path / "none").exists()
    with pytest.raises(RunError, match="exists already; choose another folder"):
        export_policy(run, tmp_path, policy=None, step=None, adapter=False)
