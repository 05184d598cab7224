"""Players from their settings, and by name."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from marl_llm.config import Config, GameConfig, PlayConfig, PolicyConfig, PolicyKind
from marl_llm.errors import ConfigError, RunError
from marl_llm.players import called, make_player, seat_players, settings_of
from marl_llm.policies.base import Policy
from marl_llm.policies.llm import LLMPolicy
from marl_llm.policies.remote import RemotePolicy
from marl_llm.policies.scripted import MCTSPolicy
from marl_llm.run import Run
from tests.tiny import CONTEXT, TINY, dictated, first_view, saying


def a_run(folder: Path, *, context_tokens: int = CONTEXT) -> Path:
    """A run with two checkpoints: of step 0, which checks, and of step 5, which bets."""
    play = PlayConfig(max_reply_tokens=8, context_tokens=context_tokens)
    config = Config(play=play, policies={"agent": PolicyConfig(tiny=TINY)})
    with Run.create(config, folder) as run:
        run.rewind(None)
        for step, action in ((0, "check"), (5, "bet")):
            model = dictated(saying({action: 1.0}))
            run.step(step, {}) if step else None
            run.checkpoint(step, lambda path, model=model: model.save(path / "agent"), {})  # type: ignore[misc]
    return folder


def named(name: str) -> Policy:
    return make_player(settings_of(name), called=name)


def test_the_policy_of_a_run_is_that_of_its_latest_checkpoint_or_of_a_given_one(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run")
    for name, action in ((f"run:{folder}", "bet"), (f"run:{folder}@0", "check"), (f"run:{folder}@5", "bet")):
        policy = named(name)
        assert isinstance(policy, LLMPolicy)
        (strategy,) = policy.strategies([first_view()])
        assert strategy.actions[action] == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(RunError, match=r"no checkpoint of step 3; there are \[0, 5\]"):
        named(f"run:{folder}@3")


def test_the_policy_of_a_run_whose_context_is_too_small_for_the_game_is_refused(tmp_path: Path) -> None:
    name = f"run:{a_run(tmp_path / 'run', context_tokens=40)}"
    with pytest.raises(ConfigError, match=r"player 'run:.*play\.context_tokens: 40 is too small for tic_tac_toe"):
        seat_players([name, "random"], GameConfig(name="tic_tac_toe"))


def test_a_number_after_the_colon_is_the_players_option() -> None:
    assert isinstance(named("mcts"), MCTSPolicy)
    assert vars(named("mcts:7"))["_simulations"] == 7
    assert vars(named("cfr:9"))["_iterations"] == 9
    assert vars(named("noisy:0.5"))["_temperature"] == 0.5


def test_an_endpoint_is_an_address_and_a_model_with_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    policy = named("openai:http://localhost:8000/v1#Qwen/Qwen3-4B")
    assert isinstance(policy, RemotePolicy)
    sent = {"_url": "http://localhost:8000/v1/chat/completions", "_model": "Qwen/Qwen3-4B", "_key": "secret"}
    assert sent.items() <= vars(policy).items()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("randum", "'randum': unknown player; nearest valid form: random; allowed: random, noisy"),
        ("mtcs:100", r"'mtcs:100': unknown player; nearest valid form: mcts\[:SIMULATIONS\]"),
        ("random:3", "'random:3': unknown player; nearest valid form: random"),
        ("llm", "'llm': unknown player"),
        ("mcts:many", r"'mcts:many': 'many' is not a number; nearest valid form: mcts\[:SIMULATIONS\]"),
        ("mcts:0.5", "mcts.simulations: 0.5 is not allowed"),
        ("run:", r"'run:': unknown player; nearest valid form: run:PATH\[@STEP\]"),
        ("openai:localhost#m", "'openai:localhost#m': not an endpoint; nearest valid form: openai:URL#MODEL"),
        ("openai:file:///etc/passwd#m", "not an endpoint"),
        ("openai:http://localhost", "not an endpoint"),
    ],
)
def test_a_name_of_nobody_is_refused_with_the_nearest_form(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named(name)


def test_players_are_several_different_ones_who_can_play_the_game() -> None:
    game = GameConfig(name="tic_tac_toe")
    assert list(seat_players(["minimax", "random", "mcts:2"], game)) == ["minimax", "random", "mcts:2"]
    with pytest.raises(ConfigError, match="'random' is not allowed; it must be two or more"):
        seat_players(["random"], game)
    with pytest.raises(ConfigError, match="'random' is there twice"):
        seat_players(["random", "minimax", "random"], game)
    with pytest.raises(ConfigError, match="player 'cfr': policy cfr: tic_tac_toe hides nothing; use minimax or mcts"):
        seat_players(["random", "cfr"], game)


def test_a_player_may_have_a_name_of_its_own() -> None:
    assert called("mine=random") == ("mine", "random")
    assert called("A-1_b.c=openai:http://h/v1?tier=2#m=3") == ("A-1_b.c", "openai:http://h/v1?tier=2#m=3")
    for spec in ("random", "mcts:7", "openai:http://h/v1?tier=2#m", "run:runs/lr=0.1"):
        assert called(spec) == (spec, spec)
    seated = seat_players(["mine=mcts:7", "random", "theirs=random"], GameConfig(name="tic_tac_toe"))
    assert list(seated) == ["mine", "random", "theirs"]
    assert vars(seated["mine"])["_simulations"] == 7


@pytest.mark.parametrize(
    ("players", "message"),
    [
        (["=random", "cfr"], r"player '=random': the name '' is not allowed; it must be 1 to 100 letters, digits, -"),
        (["my model=random", "cfr"], "the name 'my model' is not allowed"),
        (["[red]=random", "cfr"], r"the name '\[red\]' is not allowed"),
        (["\x1b=random", "cfr"], r"the name '\\x1b' is not allowed"),
        (["caf\u00e9=random", "cfr"], "the name 'caf\u00e9' is not allowed"),
        ([f"{'x' * 101}=random", "cfr"], "is not allowed; it must be 1 to 100 letters"),
        (["x=random", "x=cfr"], "'x' is there twice"),
        (["random", "random=cfr"], "'random' is there twice"),
        (["x=randum", "cfr"], "player 'randum': unknown player; nearest valid form: random"),
        (["x=", "cfr"], "player '': unknown player"),
    ],
)
def test_a_name_that_is_none_or_is_taken_is_refused(players: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        seat_players(players, GameConfig())


def test_settings_and_names_make_the_same_players(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run")
    assert settings_of(f"run:{folder}@0") == PolicyConfig(kind="checkpoint", options={"path": str(folder), "step": 0})
    assert settings_of("mcts:7") == PolicyConfig(kind="mcts", options={"simulations": 7})
    options = {"url": "http://localhost:8000/v1", "model": "m"}
    assert settings_of("openai:http://localhost:8000/v1#m") == PolicyConfig(kind="remote", options=options)


def test_an_endpoint_has_options_but_never_a_key_in_the_settings() -> None:
    options = {"url": "http://h/v1", "model": "m", "retries": 2, "backoff_s": 0, "timeout_s": 1.5, "workers": 3}
    policy = make_player(PolicyConfig(kind="remote", options=options), called="far")
    sent = {"_retries": 2, "_backoff_s": 0, "_timeout_s": 1.5, "_workers": 3}
    assert sent.items() <= vars(policy).items()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("checkpoint", {}, "policy checkpoint: option 'path' is missing; allowed: path, step"),
        ("checkpoint", {"path": "x", "stop": 3}, "policy checkpoint: unknown option 'stop'; nearest valid name: step"),
        ("remote", {"url": "http://h"}, "policy remote: option 'model' is missing; allowed: url, model, retries"),
        ("remote", {"url": "http://h", "model": "m", "key": "secret"}, "policy remote: unknown option 'key'"),
        ("remote", {"url": "file:///etc/passwd", "model": "m"}, "remote.url: 'file:///etc/passwd' .* http://"),
        ("remote", {"url": "http://h", "model": ""}, "remote.model: '' .* the name of a model"),
        ("remote", {"url": "http://h", "model": "m", "retries": 0.5}, "remote.retries: 0.5 .* a whole number, 0 or"),
        ("remote", {"url": "http://h", "model": "m", "backoff_s": -1}, "remote.backoff_s: -1 .* 0 or more seconds"),
        ("remote", {"url": "http://h", "model": "m", "timeout_s": 0}, "remote.timeout_s: 0 .* more than 0 seconds"),
        ("remote", {"url": "http://h", "model": "m", "answers": "bare"}, "remote.answers: 'bare' .* tagged or plain"),
        ("remote", {"url": "http://h", "model": "m", "workers": True}, "remote.workers: True .* a whole number, 1"),
        ("human", {"name": "me"}, "policy human: unknown option 'name'; it has no options"),
    ],
)
def test_an_option_that_is_none_is_refused(kind: PolicyKind, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_player(PolicyConfig(kind=kind, options=options), called="x")


def test_a_person_in_the_settings_answers_at_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = make_player(PolicyConfig(kind="human"), called="me")
    monkeypatch.setattr("sys.stdin", StringIO("raise\nBet\n"))
    policy.submit("t", first_view())
    assert [(ticket, reply.action) for ticket, reply in policy.poll()] == [("t", "bet")]
    assert "'raise' is not possible; choose one of: check, bet" in capsys.readouterr().out
    policy.submit("t", first_view())
    with pytest.raises(RunError, match="policy human: nobody answers at the terminal"):
        policy.poll()
