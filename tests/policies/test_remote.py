"""A model behind an OpenAI-compatible endpoint: what is sent, what is read, and what happens when it fails."""

from typing import Any

import pytest

from marl_llm.config import GameConfig
from marl_llm.matchmaking import series
from marl_llm.play import play
from marl_llm.policies.remote import RemotePolicy
from marl_llm.text import answer_instruction
from marl_llm.types import Episode
from tests.endpoint import Answer, saying
from tests.tiny import first_view


def games_with(policy: RemotePolicy, number: int = 1) -> list[Episode]:
    """Games of Kuhn poker in which both seats are the endpoint's."""
    matches = series(GameConfig(), {"*": "remote"}, name="m", games=number, seed=0)
    return sorted(play(matches, {"remote": policy}), key=lambda episode: int(episode.match.id.partition("/")[2]))


def test_the_endpoint_reads_rules_and_observation_and_its_answer_is_the_action(serve: Any) -> None:
    endpoint = serve(lambda number: saying("I am cautious. <answer>Check</answer>"))
    (episode,) = games_with(RemotePolicy(f"{endpoint.url}/", "wise-1", key="secret"))
    assert [(turn.action, turn.legal) for turn in episode.turns] == [("check", True), ("check", True)]
    assert episode.turns[0].reply == "I am cautious. <answer>Check</answer>"
    path, headers, body = endpoint.asked[0]
    view = first_view(seed=episode.match.seed)
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "wise-1",
        "messages": [
            {"role": "system", "content": f"{view.rules}\n{answer_instruction(True)}"},
            {"role": "user", "content": view.observation},
        ],
        "seed": view.seed % 2**31,
    }


@pytest.mark.parametrize("text", ["I would rather not say", None])
def test_an_answer_without_an_action_is_an_illegal_move_and_no_fault(serve: Any, text: str | None) -> None:
    (episode,) = games_with(RemotePolicy(serve(lambda number: saying(text)).url, "mute"))
    assert (episode.status, episode.turns[0].legal) == ("done", False)
    assert episode.returns["player_0"] == -3.0


@pytest.mark.parametrize("failure", [(500, b"out of memory"), (429, b"slow down"), (200, b"<html>"), (200, b"{}")])
def test_what_fails_twice_is_asked_a_third_time(serve: Any, failure: Answer) -> None:
    endpoint = serve(lambda number: failure if number < 2 else saying("<answer>check</answer>"))
    (episode,) = games_with(RemotePolicy(endpoint.url, "shaky", backoff_s=0.001, retries=2))
    assert (episode.status, len(episode.turns)) == ("done", 2)
    assert len(endpoint.asked) == 4


def test_an_endpoint_that_fails_for_ever_puts_its_episodes_at_fault(serve: Any) -> None:
    endpoint = serve(lambda number: saying("<answer>bet</answer>") if number == 0 else (503, b""))
    (episode,) = games_with(RemotePolicy(endpoint.url, "down", backoff_s=0.001, retries=3))
    assert episode.status == "fault"
    assert episode.note == f"remote: {endpoint.url}/chat/completions answered 503 Service Unavailable"
    assert [turn.action for turn in episode.turns] == ["bet"]
    assert len(endpoint.asked) == 1 + 4


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"x" * (4 * 2**20 + 1), "ValueError: the answer has more than 4194304 bytes"),
        (b"[" * 100_000, "ValueError: not a chat completion: "),
        (b'{"choices": [{"message": {"content": [' + b"1," * 500 + b"1]}}]}", "ValueError: not a text: [1, 1"),
        (b'{"choices": [{"message": {"content": ' + b"1" * 5000 + b"}}]}", "ValueError: Exceeds the limit"),
    ],
)
def test_an_answer_that_is_no_text_of_a_decent_length_is_a_fault(serve: Any, content: bytes, problem: str) -> None:
    (episode,) = games_with(RemotePolicy(serve(lambda number: (200, content)).url, "evil", retries=0))
    assert episode.status == "fault"
    assert problem in episode.note
    assert len(episode.note) < 300


def test_a_refused_request_is_not_repeated(serve: Any) -> None:
    endpoint = serve(lambda number: (401, b""))
    (episode,) = games_with(RemotePolicy(endpoint.url, "closed", retries=3))
    assert episode.note.endswith("answered 401 Unauthorized")
    assert len(endpoint.asked) == 1


def test_nobody_at_the_address_is_a_fault_too() -> None:
    (episode,) = games_with(RemotePolicy("http://127.0.0.1:1/v1", "nobody", backoff_s=0.001, retries=1))
    assert episode.status == "fault"
    assert "Connection refused" in episode.note


def test_more_games_than_workers_are_all_played(serve: Any) -> None:
    endpoint = serve(lambda number: saying("<answer>check</answer>"))
    episodes = games_with(RemotePolicy(endpoint.url, "busy", workers=3), number=20)
    assert [(episode.status, len(episode.turns)) for episode in episodes] == [("done", 2)] * 20


def test_probabilities_of_a_remote_model_are_not_to_be_had() -> None:
    with pytest.raises(ValueError, match="cannot be computed"):
        RemotePolicy("http://127.0.0.1:1", "any").strategies([first_view()])


@pytest.mark.parametrize(
    ("answers", "text", "action"),
    [
        ("plain", "<think>secret</think>It is 7.", "It is 7."),
        ("plain", "secret</think>7", "7"),
        ("plain", "<think>secret", None),
        ("tagged", "It is 7.", None),
        ("tagged", "<think>secret</think>It is <answer>7</answer>", "7"),
    ],
)
def test_without_tags_the_whole_answer_but_its_thoughts_is_the_action(
    serve: Any, answers: Any, text: str, action: str | None
) -> None:
    endpoint = serve(lambda number: saying(text))
    policy = RemotePolicy(endpoint.url, "free", answers=answers)
    matches = series(GameConfig(name="workflow"), {"*": "remote"}, name="m", games=1, seed=0)
    (episode,) = play(matches, {"remote": policy})
    assert episode.turns[0].action == action
    assert "secret" not in episode.hidden["answer"]
    system = endpoint.asked[0][2]["messages"][0]["content"]
    assert ("<answer>" in system) == (answers == "tagged")


def test_where_actions_are_listed_tags_are_asked_for_all_the_same(serve: Any) -> None:
    endpoint = serve(lambda number: saying("<answer>check</answer>"))
    (episode,) = games_with(RemotePolicy(endpoint.url, "free", answers="plain"))
    assert episode.turns[0].action == "check"
    assert "<answer>" in endpoint.asked[0][2]["messages"][0]["content"]
