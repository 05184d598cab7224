"""The command line as a person meets it: what it prints, its exit codes, and one clear line for each mistake."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import games
from marl_llm import cli
from marl_llm.episodes import episode_from_json
from marl_llm.run import Run
from tests.endpoint import saying

SMALL = Path(__file__).parent / "small.yaml"
FAST = ["policies.agent.warmup.steps=1", "evaluation.games=2", "run.steps=1"]


def marl(*arguments: str, **options: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, through the same entry point as a person's."""
    result = CliRunner().invoke(cli.whole(), list(arguments), **options)  # type: ignore[arg-type]
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one step."""
    folder = tmp_path_factory.mktemp("runs")
    code, out, err = marl("train", str(SMALL), f"run.dir={folder}", *FAST)
    assert code == 0, err
    return Path(out.splitlines()[-1].removeprefix("run: "))


def refused(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The one line that the program prints for a mistake; the exit code must be 2."""
    monkeypatch.setattr(sys, "argv", ["marl-llm", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_training_ends_with_the_run_and_the_next_commands(run: Path) -> None:
    assert (run / "checkpoints" / "step_1").is_dir()
    code, out, _ = marl("train", str(run), "--resume")
    assert code == 0
    assert out.splitlines()[-1] == f"run: {run}"
    assert f"marl-llm play {run}" in out


def test_training_prints_one_json_object_if_asked(run: Path) -> None:
    code, out, err = marl("train", str(run), "--resume", "--json")
    assert code == 0
    (line,) = out.splitlines()
    result = json.loads(line)
    assert (result["run"], result["finished"]) == (str(run), True)
    assert set(result["evaluations"]) == {"0", "1"}
    assert result["evaluations"]["1"]["opponents"].keys() == {"random", "start"}
    assert "next:" in err


def test_evaluate_prints_one_json_object_that_other_programs_rely_on(run: Path) -> None:
    code, out, _ = marl("evaluate", str(run), "--json", "--games", "3")
    assert code == 0
    (line,) = out.splitlines()
    result = json.loads(line)
    assert 0 <= result["exploitability"] <= 2
    assert 0 <= result["illegal_fraction"] <= 1
    assert set(result["opponents"]) == {"random", "start"}
    assert {"mean", "low", "high"} <= result["opponents"]["random"]["player_1"].keys()
    code, out, _ = marl("evaluate", str(run), "--step", "0", "--opponent", "random", "--games", "2")
    assert code == 0
    assert "exploitability, exact" in out


def test_evaluate_searches_for_a_best_response_if_asked(run: Path) -> None:
    command = ("evaluate", str(run), "--games", "0", "--best-response", "40")
    code, out, _ = marl(*command, "--json")
    assert code == 0
    found = json.loads(out)["best_response"]
    assert found.keys() == {"value", "low", "high", "exact", "simulations", "seats"}
    assert (found["exact"], found["simulations"], set(found["seats"])) == (False, 40, {"player_0", "player_1"})
    assert "exploitability, lower bound" in marl(*command)[1]


def test_a_person_can_play(run: Path) -> None:
    code, out, _ = marl("play", str(run), "--seat", "player_0", "--seed", "4", input="xyzzy\ncheck\nfold\n")
    assert code == 0, out
    assert "'xyzzy' is not possible" in out
    assert "your return:" in out


def test_a_game_with_a_person_is_one_json_object_if_asked(run: Path) -> None:
    code, out, err = marl("play", str(run), "--seed", "4", "--json", input="check\nfold\n")
    assert code == 0, out
    assert episode_from_json(out.splitlines()[-1]).match.seats["player_0"] == "you"
    assert "Kuhn poker." in err


def test_a_tournament_is_one_json_object_or_tables_and_a_plot(run: Path, tmp_path: Path) -> None:
    command = ["tournament", "--game", "kuhn_poker", "--episodes", "4", "--seed", "3", "--settings", "players=2"]
    players = f"random,cfr:10,run:{run},run:{run}@0"
    code, out, err = marl(*command, "on_illegal=forfeit", "--players", players, "--json")
    assert code == 0, err
    (line,) = out.splitlines()
    result = json.loads(line)
    assert result["players"] == players.split(",")
    assert result["settings"] == {"players": 2, "on_illegal": "forfeit"}
    for end in ("mean", "low", "high"):
        assert [[cell is None for cell in row] for row in result["payoff"][end]] == [
            [row == column for column in range(4)] for row in range(4)
        ]
    assert result["ratings"].keys() == result["alpha_rank"].keys() == set(result["players"])
    assert (result["episodes"], result["faults"]) == (4 * 6 * 2, 0)
    assert isinstance(result["cycles"], list)
    code, out, err = marl(*command, "--players", "random,noisy", "--plot", str(tmp_path / "payoffs.png"))
    assert code == 0, err
    assert "alpha-rank" in out
    assert (tmp_path / "payoffs.png").stat().st_size > 1000


def test_anybody_puts_a_model_into_our_games_and_leaderboards_come_together(serve: Any, tmp_path: Path) -> None:
    """A chat endpoint plays as `theirs` on two seeds, once against each other player; the rest plays once."""
    endpoint = serve(lambda number: saying("I fold nothing. <answer>bet</answer>" if number % 3 else "\x1b[2J[red]?"))
    theirs = f"theirs=openai:{endpoint.url}#wise-1"
    mine, other, both = (str(tmp_path / name) for name in ("mine.json", "other.json", "both.json"))
    command = ["tournament", "--game", "kuhn_poker", "--episodes", "4"]
    code, out, err = marl(*command, "--players", f"{theirs},random", "--seed", "1", "--leaderboard", mine, "--json")
    assert code == 0, err
    first = json.loads(out)
    assert first["players"] == ["theirs", "random"]
    assert (first["episodes"], first["faults"]) == (8, 0)
    assert {body["model"] for _, _, body in endpoint.asked} == {"wise-1"}
    code, out, err = marl(*command, "--players", f"{theirs},random,noisy", "--seed", "2", "--leaderboard", other)
    assert code == 0, err
    assert out.splitlines()[-1] == f"leaderboard: {other}"
    asked = len(endpoint.asked)
    code, out, err = marl("leaderboard", mine, other, "--into", both, "--json")
    assert code == 0, err
    (found,) = json.loads(out)["games"]
    assert found["players"] == ["noisy", "random", "theirs"]
    assert found["deals"] == [[None, 4, 4], [4, None, 8], [4, 8, None]]
    assert (found["game"], found["settings"], found["episodes"]) == ("kuhn_poker", {}, 8 + 24)
    assert endpoint.url not in Path(both).read_text()
    for files in ((both,), (other, mine), (both, mine, both)):
        assert marl("leaderboard", *files, "--json")[1] == out
    code, out, err = marl("leaderboard", both, "--plot", str(tmp_path / "payoffs.png"))
    assert code == 0, err
    assert "kuhn_poker: mean return of row against column" in out
    assert "32 episodes" in out
    assert (tmp_path / "payoffs.png").stat().st_size > 1000
    assert len(endpoint.asked) == asked


def test_a_tournament_that_is_held_again_counts_once(tmp_path: Path) -> None:
    board = tmp_path / "board.json"
    command = ["tournament", "--game", "kuhn_poker", "--episodes", "20", "--leaderboard", str(board)]
    assert marl(*command, "--players", "x=random,noisy")[0] == 0
    before = board.read_bytes()
    code, _, err = marl(*command, "--players", "x=random,noisy", "--json")
    assert code == 0
    assert f"{board} knows 1 of the pairs with seed 0" in err
    assert board.read_bytes() == before
    code, out, err = marl(*command, "--players", "x=cfr:5,noisy", "--json")
    assert code == 1
    assert json.loads(out)["players"] == ["x", "noisy"]
    assert board.read_bytes() == before
    assert marl(*command, "--players", "x=cfr:5,noisy", "--settings", "players=2")[0] == 0
    result = json.loads(marl("leaderboard", str(board), "--json")[1])
    assert [game["settings"] for game in result["games"]] == [{"players": 2}, {}]
    assert marl("leaderboard", str(board), "--plot", str(tmp_path / "p.png"))[0] == 0
    assert {file.name for file in tmp_path.glob("*.png")} == {"p.png", "p-2.png"}


def test_credit_shows_recipes_side_by_side(run: Path) -> None:
    code, out, _ = marl("credit", "mars", str(run), "--compare", "grpo", "rae", "--json")
    assert code == 0
    row = json.loads(out)["rows"][0]
    assert set(row["advantages"]) == {"mars", "grpo", "rae"}
    code, out, _ = marl("credit", "mars", str(run / "episodes" / "step_000001.jsonl"), "--limit", "2")
    assert code == 0
    assert "--limit shows more" in out


def test_credit_says_how_far_recipes_agree_and_where_a_number_comes_from(run: Path) -> None:
    file = str(run / "episodes" / "step_000001.jsonl")
    code, out, _ = marl("credit", "mars", file, "--compare", "grpo", "--json")
    told = json.loads(out)
    assert code == 0
    assert [(pair["one"], pair["other"]) for pair in told["agreement"]] == [("mars", "grpo")]
    turn = f"{told['rows'][0]['episode']}#{told['rows'][0]['turn']}"
    code, out, _ = marl("credit", "mars", file, "--compare", "grpo", "--turn", turn, "--json")
    stages = json.loads(out)["recipes"]["mars"]
    assert code == 0
    assert [stage["label"] for stage in stages] == ["reward", "returns", "center"]
    assert stages[-1]["after"] == told["rows"][0]["advantages"]["mars"]
    code, out, _ = marl("credit", "mars", file, "--turn", turn)
    assert "share game=" in out
    assert marl("credit", "mars", file, "--turn", "nowhere#0")[0] == 1
    assert marl("credit", "mars", file, "--turn", turn.replace("#", "#99"))[0] == 1
    assert marl("credit", "mars", file, "--turn", "first")[0] == 1


def test_games_can_be_listed_described_and_checked() -> None:
    code, out, _ = marl("games", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        *games.names(),
        "openspiel:GAME",
        "pettingzoo:MODULE",
        "textarena:ID",
        "package.module:env",
    ]
    assert json.loads(marl("games", "list", "--json")[1]).keys() == set(games.names())
    code, out, _ = marl("games", "describe", "kuhn_poker", "--json")
    assert json.loads(out)["utility_range"] == [-2.0, 2.0]
    code, out, _ = marl("games", "describe", "openspiel:goofspiel(num_cards=4,imp_info=True)", "scale=4", "--json")
    assert json.loads(out)["utility_range"] == [-4.0, 4.0]
    assert marl("games", "check", "tic_tac_toe")[0] == 0
    assert marl("games", "check", "mini_hanabi", "scale=4")[0] == 0
    code, out, _ = marl("games", "check", "tests.test_play:Exploding")
    assert code == 1
    assert "metadata has no 'utility_range'" in out


def test_doctor_names_what_is_there() -> None:
    code, out, _ = marl("doctor")
    assert code == 0
    assert "torch" in out
    code, out, _ = marl("doctor", "--json")
    assert code == 0
    assert {"torch", "pettingzoo", "cuda"} <= {row["what"] for row in json.loads(out)}


def test_print_config_shows_the_resolved_tree() -> None:
    code, out, _ = marl("train", str(SMALL), "run.seed=7", "--print-config")
    assert code == 0
    assert "seed: 7" in out
    assert "importance_cap: 2.0" in out


COMMANDS = (
    *("train", "sweep", "evaluate", "benchmark", "export", "play"),
    *("tournament", "leaderboard", "credit", "games", "doctor"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    code, out, _ = marl(command, "--help")
    assert code == 0
    if command != "games":
        assert f"Example: marl-llm {command}" in " ".join(out.split())


def test_a_sweep_is_resumable_and_ends_in_a_table_and_a_plot(tmp_path: Path) -> None:
    command = ["sweep", str(SMALL), f"run.dir={tmp_path}", *FAST, "--seeds", "0-1", "--json"]
    code, out, err = marl(*command, "--folder", str(tmp_path / "sweep"))
    assert code == 0, err
    result = json.loads(out)
    variant = result["variants"]["base"]
    assert len(variant["exploitability"]["values"]) == 2
    assert variant["exploitability"]["spread"] > 0
    assert Path(result["plot"]).stat().st_size > 1000
    unfinished = tmp_path / "sweep" / "base-seed1" / "evaluations" / "step_1.json"
    unfinished.unlink()
    code, out, err = marl(*command, "--folder", str(tmp_path / "sweep"))
    assert "1 already finished" in err
    assert unfinished.exists()
    assert json.loads(out)["variants"]["base"]["exploitability"] == variant["exploitability"]


def test_a_sweep_does_not_take_another_experiment_for_its_own(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "base-seed0")
    line = refused(capfd, monkeypatch, "sweep", str(SMALL), *FAST, "--seeds", "0", "--folder", str(tmp_path))
    assert "base-seed0 holds another experiment" in line


# What can go wrong, each in one line with exit code 2.


def test_a_missing_or_malformed_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "no such file" in refused(capfd, monkeypatch, "train", "nowhere.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("run: [")
    assert "not valid YAML" in refused(capfd, monkeypatch, "train", str(bad))


def test_an_unknown_key_names_the_nearest(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    line = refused(capfd, monkeypatch, "train", str(SMALL), "policies.agent.learner.learning_rate=1")
    assert "policies.agent.learner.learning_rate: unknown key" in line
    assert "run.sede" in refused(capfd, monkeypatch, "train", str(SMALL), "run.sede=1")


def test_an_unknown_player(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    line = refused(capfd, monkeypatch, "tournament", "--game", "kuhn_poker", "--players", "random,crf")
    assert "player 'crf': unknown player; nearest valid form: cfr[:ITERATIONS]" in line


def test_what_no_leaderboard_takes_is_refused_before_anybody_plays(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    board = tmp_path / "board.json"
    command = ("tournament", "--game", "kuhn_poker", "--episodes", "1000000", "--leaderboard")
    line = refused(capfd, monkeypatch, *command, str(board), "--players", "random,my model=noisy")
    assert "player 'my model=noisy': the name 'my model' is not allowed; it must be 1 to 100 letters" in line
    line = refused(capfd, monkeypatch, *command, str(board), "--players", "x=random,x=noisy")
    assert "players: 'x' is there twice" in line
    line = refused(capfd, monkeypatch, *command, str(board), "--players", f"random,openai:http://h/{'x' * 90}#m")
    assert "at most 100 characters long in a leaderboard; NAME=SPEC gives it a name" in line
    assert not board.exists()
    line = refused(capfd, monkeypatch, *command, str(tmp_path / "no" / "board"), "--players", "random,noisy")
    assert "could not write" in line
    board.write_text('{"format": "marl-llm leaderboard, version 9\x1b[2J", "meetings": []}'.replace("\x1b", "\\u001b"))
    for arguments in ((*command, str(board), "--players", "random,noisy"), ("leaderboard", str(board))):
        line = refused(capfd, monkeypatch, *arguments)
        assert rf"{board}: its format is 'marl-llm leaderboard, version 9\x1b[2J'; this program knows" in line
    assert "nowhere.json: no such file" in refused(capfd, monkeypatch, "leaderboard", "nowhere.json")


def test_leaderboards_that_contradict_each_other(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = ("tournament", "--game", "kuhn_poker", "--episodes", "20", "--leaderboard")
    for name, spec in (("one", "random"), ("two", "cfr:5")):
        assert marl(*command, str(tmp_path / name), "--players", f"x={spec},noisy")[0] == 0
    line = refused(capfd, monkeypatch, "leaderboard", str(tmp_path / "one"), str(tmp_path / "two"))
    told = "game 'kuhn_poker', seed 0, 'noisy' against 'x': known with other results"
    assert line.startswith(f"error: {tmp_path / 'two'}: {told}")


def test_an_unknown_or_broken_game(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    into = f"run.dir={tmp_path}"
    assert "nearest valid name: kuhn_poker" in refused(
        capfd, monkeypatch, "train", str(SMALL), into, "games.game.name=kuhn"
    )
    line = refused(capfd, monkeypatch, "train", str(SMALL), into, "games.game.name=tests.test_play:Exploding")
    assert "breaks its contract" in line
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_tokenizer(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run / "checkpoints" / "step_1" / "agent", tmp_path / "model")
    for file in (tmp_path / "model").glob("tokenizer*"):
        file.unlink()
    options = [f"policies.agent.model={tmp_path / 'model'}", f"run.dir={tmp_path / 'runs'}"]
    line = refused(capfd, monkeypatch, "train", str(SMALL), *options)
    assert "has no tokenizer" in line
    assert not (tmp_path / "runs").exists()


def test_rules_that_do_not_fit(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = refused(capfd, monkeypatch, "train", str(SMALL), f"run.dir={tmp_path}", "play.context_tokens=64")
    assert "play.context_tokens: 64 is too small for kuhn_poker" in line


def test_a_damaged_checkpoint(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    file = copy / "checkpoints" / "step_1" / "agent" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for command in (["train", str(copy), "--resume"], ["evaluate", str(copy)]):
        line = refused(capfd, monkeypatch, *command)
        assert "agent/model.safetensors has changed" in line


def test_a_run_directory_in_use(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    with Run.open(run):
        assert "is in use by process" in refused(capfd, monkeypatch, "train", str(run), "--resume")


def test_an_evaluation_that_lacks_a_field(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (file,) = copy.glob("**/*evaluation*/step_1.json")
    file.write_text("{}")
    line = refused(capfd, monkeypatch, "train", str(copy), "--resume")
    assert "evaluation of step 1 is damaged ('games' is missing)" in line


def test_resuming_with_other_settings(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    line = refused(capfd, monkeypatch, "train", str(run), "run.steps=9", "--resume")
    assert "run.steps is 1, not 9" in line


def test_a_full_disk(tmp_path: Path) -> None:
    """In a file system of 2 MB, in a namespace of its own; earlier files stay."""
    marl = f"{sys.executable} -m marl_llm.cli train {SMALL}"
    script = f"mount -t tmpfs -o size=2m none {tmp_path} && exec {marl} run.dir={tmp_path}"
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: could not write")
