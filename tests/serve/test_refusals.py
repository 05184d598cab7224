"""What is not answered: status, message and form of every error; and whatever comes in, the server goes on."""

import asyncio
import io
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from marl_llm.config import load_config, to_yaml
from marl_llm.errors import RunError
from marl_llm.live import LiveView
from marl_llm.serve.api import Service
from marl_llm.serve.choices import Answering, Choice, FailedError
from marl_llm.serve.counts import Counts
from marl_llm.serve.desk import Desk, Playing
from marl_llm.serve.gate import Limits
from marl_llm.serve.names import Library, Team, UnknownModelError
from marl_llm.serve.schema import NEUTRAL, ChatRequest, CompletionRequest
from marl_llm.serve.writing import Writing
from marl_llm.train import train
from marl_llm.types import Episode, Match
from tests.serve.conftest import TEAMS, Server, serving

CHAT: dict[str, Any] = {"model": "debater", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
TEXT: dict[str, Any] = {"model": "debater", "prompt": "Hi", "max_tokens": 4}
TEAM: dict[str, Any] = {"model": "team:sums", "messages": [{"role": "user", "content": "Hi"}]}
C, T = "/chat/completions", "/completions"
KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def guarded(run: Path) -> Iterator[Server]:
    """With a key and small limits; Ctrl-C ends it."""
    options = ("--max-requests", "2", "--max-tokens", "300", "--max-body", "5000")
    with serving(run, *options, MARL_LLM_API_KEY="secret") as made:
        yield made
        assert made.end(signal.SIGINT) == (0, "")


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    return dict(error)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (
            C,
            {**CHAT, "model": "nobody"},
            404,
            r"The model 'nobody' does not exist; there are debater",
        ),
        (C, {**CHAT, "model": "debater@99"}, 404, "NAME@STEP of the checkpoints 0, 1, 2."),
        (C, {**CHAT, "model": "team:none"}, 404, "team:sums"),
        (C, {**CHAT, "model": "debater@../0"}, 404, "does not exist"),
        (C, {}, 400, "model: Field required."),
        (C, {**CHAT, "messages": []}, 400, "messages: List should have at least 1 item"),
        (
            C,
            {**CHAT, "messages": [{"role": "tool", "content": "x"}]},
            400,
            "messages.0.role: Input should",
        ),
        (
            C,
            {**CHAT, "messages": [{"role": "user", "content": 1}]},
            400,
            "messages.0.content: it must be a",
        ),
        (
            C,
            {**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            "messages.0.content: it must be a text or a list of parts",
        ),
        (
            C,
            {**CHAT, "temperature": -1},
            400,
            "temperature: Input should be greater than or equal to 0",
        ),
        (C, {**CHAT, "temperature": "1"}, 400, "temperature: Input should be a valid number"),
        (C, {**CHAT, "n": 129}, 400, "n: Input should be less than or equal to 128"),
        (C, {**CHAT, "seed": 2**63}, 400, "seed: Input should be less than"),
        (C, {**CHAT, "max_tokens": 0}, 400, "max_tokens: it must be 1 or more"),
        (C, {**CHAT, "max_tokens": -1}, 400, "max_tokens: Input should be greater"),
        (C, {**CHAT, "max_completion_tokens": 5}, 400, "one setting, and differ"),
        (C, {**CHAT, "top_p": 0.9}, 400, "top_p is not supported here; it must be left out or 1."),
        (C, {**CHAT, "tools": [{}]}, 400, "tools is not supported here"),
        (C, {**CHAT, "response_format": {"type": "json_object"}}, 400, "response_format is not supp"),
        (C, {**CHAT, "presence_penalty": True}, 400, "presence_penalty is not supported"),
        (C, {**CHAT, "top_k": 5}, 400, "Unrecognized request argument supplied: top_k"),
        (C, {**CHAT, "top_logprobs": 5, "logprobs": True}, 400, "top_logprobs: Input should be less"),
        (C, {**CHAT, "top_logprobs": 1}, 400, "top_logprobs needs logprobs: true"),
        (
            C,
            {**CHAT, "logprobs": True, "stream": True},
            400,
            "logprobs is not supported together with",
        ),
        (C, {**CHAT, "stream_options": {}}, 400, "stream_options needs stream: true"),
        (C, {**CHAT, "stop": ["a", ""]}, 400, "stop must not be an empty text"),
        (C, {**CHAT, "stop": ["a"] * 17}, 400, "stop: it must be a text or a list of at most 16"),
        (C, {**TEAM, "logprobs": True}, 400, "logprobs is not supported for a team"),
        (C, {**TEAM, "max_tokens": 0}, 400, "max_tokens: it must be 1 or more"),
        (C, {**TEAM, "messages": [{"role": "user", "content": " "}]}, 400, "a team needs a question"),
        (C, {**TEAM, "messages": [{"role": "system", "content": "x"}]}, 400, "must be the user's"),
        (T, {**TEXT, "model": "team:sums"}, 400, "use /v1/chat/completions"),
        (T, {**TEXT, "prompt": ""}, 400, "prompt: it must not be empty"),
        (
            "/completions",
            {**TEXT, "prompt": []},
            400,
            "prompt: it must be a text, a list of texts, a list of token ids",
        ),
        (T, {**TEXT, "prompt": [[1], []]}, 400, "prompt: it must be a text, a list of texts"),
        (T, {**TEXT, "prompt": [1, 10**6]}, 400, "prompt: token 1000000 is unknown; this model has"),
        (T, {**TEXT, "prompt": [1, -1]}, 400, "prompt: it must be"),
        (
            "/completions",
            {**TEXT, "prompt": ["a"] * 20, "n": 7},
            400,
            "20 prompts with 7 choices each are more than 128",
        ),
        (T, {**TEXT, "max_tokens": 0}, 400, "max_tokens: it must be 1 or more, or 0 together with echo"),
        (T, {**TEXT, "max_tokens": 0, "echo": True, "stream": True}, 400, "there is nothing to stream"),
        (T, {**TEXT, "logprobs": 5}, 400, "logprobs: Input should be less than or equal to 1"),
        (
            "/completions",
            {**TEXT, "logprobs": 0, "stream": True},
            400,
            "logprobs is not supported together with stream",
        ),
        (T, {**TEXT, "best_of": 3}, 400, "best_of is not supported here"),
        (T, {**TEXT, "suffix": "x"}, 400, "suffix is not supported here"),
        ("/nothing", {}, 404, "Not Found"),
        ("/models", {}, 405, "Method Not Allowed"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(
    server: Server, path: str, body: Any, status: int, message: str
) -> None:
    assert message in error_of(server.post(path, body), status)["message"]


@pytest.mark.parametrize(
    "body", [{**CHAT, "messages": [{"role": "user", "content": "4 " * 500}]}, {**TEXT, "prompt": "4 " * 500}]
)
def test_a_prompt_beyond_the_context_is_named_as_openai_does(server: Server, body: Any) -> None:
    path = C if "messages" in body else T
    error = error_of(server.post(path, body), 400)
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith("This model's maximum context length is 400 tokens, and the prompt has ")
    assert error_of(server.post(T, {**TEXT, "prompt": [1] * 400}), 400)["code"] == "context_length_exceeded"
    assert server.post(T, {**TEXT, "prompt": [1] * 399}).json()["usage"]["completion_tokens"] == 1


def test_a_question_that_does_not_fit_a_teams_context_is_named_too(server: Server) -> None:
    body = {**TEAM, "messages": [{"role": "user", "content": "4 " * 500}]}
    error = error_of(server.post(C, body), 400)
    assert (error["code"], error["type"]) == ("context_length_exceeded", "invalid_request_error")
    said = "This team's maximum context length is 400 tokens: the conversation of debater_0 no longer fits the context."
    assert error["message"] == said
    streamed = server.post(C, {**body, "stream": True}).text
    assert json.loads(streamed.splitlines()[-2].removeprefix("data: "))["error"] == error
    assert server.metrics()["marl_llm_requests_in_flight"] == 0


def test_a_team_without_an_answer_has_failed() -> None:
    async def answered(**found: Any) -> str:
        desk = Desk(lambda call: None)
        match = Match(id="m", game="workflow", seed=0, group="m", seats={})
        choice = Choice(work=Playing(match=match, places={}, max_turns=1), writing=Writing(lambda _: ""))
        answering = Answering(desk=desk, choices=[choice])
        answering._numbers[0] = 0
        answering._take(0, Episode(match=match, turns=(), returns={}, **found))
        desk.close()
        await answering.all()
        return choice.writing.text

    assert asyncio.run(answered(hidden={"answer": "5"})) == "5"
    with pytest.raises(FailedError, match=r"ended without an answer$"):
        asyncio.run(answered(hidden={"gold": "5"}))


BROKEN = [b"", b"{", b"nul", b'{"model": "debater",}', b"\xff\xfe", b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("content", [*BROKEN, b"[]", b"1"])
def test_a_body_that_is_no_request_is_refused(server: Server, content: bytes) -> None:
    for path in (C, T):
        answer = httpx.post(server.url + path, content=content, headers={"Content-Type": "application/json"})
        error = error_of(answer, 400)
        assert error["type"] == "invalid_request_error"
        assert "not valid JSON" in error["message"] or content not in BROKEN[1:4]


def test_without_the_key_nothing_but_health_is_told(guarded: Server) -> None:
    root = guarded.url.removesuffix("/v1")
    assert httpx.get(f"{root}/health").status_code == 200
    for sent in (None, b"Bearer wrong", b"secret", "Bearer sécret".encode()):
        headers = {} if sent is None else {b"Authorization": sent}
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json"):
            error = error_of(httpx.get(root + path, headers=headers), 401)
            assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
        assert error_of(httpx.post(f"{guarded.url}/completions", json=TEXT, headers=headers), 401)
    assert httpx.get(f"{root}/v1/models", headers=KEY).status_code == 200
    assert guarded.post(T, TEXT, headers=KEY).status_code == 200
    with openai.OpenAI(base_url=guarded.url, api_key="secret") as client:
        assert client.models.retrieve("debater").id == "debater"
    assert "$MARL_LLM_API_KEY" in guarded.said
    assert "secret" not in guarded.said


def test_a_body_or_a_wish_beyond_the_limit_is_refused(guarded: Server) -> None:
    large = {**TEXT, "prompt": "4" * 6000}
    assert "larger than 5000 bytes" in error_of(guarded.post(T, large, headers=KEY), 413)["message"]
    pieces = (json.dumps(large).encode()[i : i + 500] for i in range(0, 6500, 500))
    headers = {**KEY, "Content-Type": "application/json"}
    chunked = httpx.post(f"{guarded.url}/completions", content=pieces, headers=headers)
    assert "larger than 5000 bytes" in error_of(chunked, 413)["message"]
    wish = guarded.post(T, {**TEXT, "max_tokens": 301}, headers=KEY)
    assert error_of(wish, 400)["message"] == "max_tokens: 301 is too many; this server samples at most 300."
    assert error_of(guarded.post(C, {**TEAM, "max_tokens": 301}, headers=KEY), 400) == error_of(wish, 400)


def test_a_limit_of_the_server_bounds_each_reply_of_a_team(run: Path) -> None:
    team, desk = Library(run).find("team:sums"), Desk(lambda call: call())
    assert isinstance(team, Team)
    limits = Limits(max_requests=1, max_body=9999, max_tokens=3)
    service = Service(library=Library(run), desk=desk, limits=limits, counts=Counts())
    (work,) = (choice.work for choice in service.playing(team, ChatRequest(**TEAM), "x"))
    assert isinstance(work, Playing)
    over: SimpleQueue[Episode] = SimpleQueue()
    desk.submit(work, over.put)
    lengths = [len(turn.completion.tokens) for turn in over.get(timeout=30).turns if turn.completion]
    desk.close()
    assert max(lengths) == 3


def test_beyond_the_limit_of_requests_in_flight_one_is_told_to_come_again(guarded: Server) -> None:
    body = {"model": "judge", "prompt": "What", "max_tokens": 300, "n": 60, "temperature": 2}
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: guarded.post(T, body, headers=KEY), range(12)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) <= 10
    for answer in refused:
        assert error_of(answer, 429)["code"] == "rate_limit_exceeded"
        assert answer.headers["Retry-After"] == "1"
    assert guarded.post(T, TEXT, headers=KEY).status_code == 200


def test_a_run_needs_a_checkpoint_and_any_protocol_is_a_team(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no checkpoint yet"):
        Library(tmp_path)
    settings = """
run: {name: alone, steps: 1, threads: 1}
games: {game: {name: kuhn_poker}}
policies: {agent: {tiny: {hidden: 32, layers: 1, heads: 2, mlp: 64, vocabulary: 400}}, random: {kind: random}}
matchmaking: {groups: 1, group_size: 2}
evaluation: {every: 0, exploitability: false, games: 2}
"""
    (tmp_path / "alone.yaml").write_text(settings)
    path = train(load_config(tmp_path / "alone.yaml", [f"run.dir={tmp_path}"]), LiveView(Console(file=io.StringIO())))
    assert Library(path).names == ("agent", *TEAMS)


def test_a_pipeline_that_answers_nothing_is_no_team(run: Path, tmp_path: Path) -> None:
    games = "games={sums: {name: debate}, teach: {name: proposer_solver, settings: {verify: false}}}"
    config = load_config(run / "config.yaml", [games, "matchmaking.seats={'*': debater}"])
    (tmp_path / "other.yaml").write_text(to_yaml(config))
    names = Library(tmp_path / "other.yaml").names
    assert "team:sums" in names
    assert "team:teach" not in names


def test_of_other_checkpoints_those_asked_for_last_stay_loaded(run: Path) -> None:
    library = Library(run, keep=1)
    first = library.find("debater@0")
    assert library.find("debater@0") is first
    assert library.find("debater@2") is library.find("debater")
    assert library.find("team:sums@0").places["debater"] is first  # type: ignore[union-attr]
    assert library.find("judge@1") is library.find("judge@1")
    assert library.find("debater@0") is not first
    for name in ("debater@", "@0", "debater@00", "debater@-1", "debater@0@0", "", "team:", "informed"):
        with pytest.raises(UnknownModelError):
            library.find(name)


# Whatever comes in.

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELDS = st.sampled_from([*ChatRequest.model_fields, *CompletionRequest.model_fields, *NEUTRAL, "unknown"])
ROLES = st.sampled_from(["system", "user", "assistant", "developer", ""])
MESSAGE = st.fixed_dictionaries({"role": ROLES, "content": st.text(max_size=40) | JSON})
LIKELY = st.fixed_dictionaries(
    {"model": st.sampled_from(["debater", "judge@0", "team:sums", "team:single", "debater@9", "x"])},
    optional={
        "messages": st.lists(MESSAGE, max_size=4),
        "prompt": st.text(max_size=30)
        | st.lists(st.text(max_size=9), max_size=3)
        | st.lists(st.integers(-1, 500), max_size=9),
        "n": st.integers(0, 3),
        "temperature": st.floats(-1, 3),
        "seed": st.integers(-(2**64), 2**64),
        "stop": st.text(max_size=2) | st.lists(st.text(max_size=2), max_size=3),
        "stream": st.booleans(),
        "max_tokens": st.integers(-1, 12),
        "logprobs": st.booleans() | st.integers(-1, 2),
        "echo": st.booleans(),
        "top_p": st.floats(),
    },
)
ALMOST = st.tuples(LIKELY, st.dictionaries(FIELDS, JSON, max_size=2)).map(lambda both: {**both[0], **both[1]})
BODIES = st.binary(max_size=60) | (JSON | LIKELY | ALMOST).map(lambda body: json.dumps(body).encode())
KINDS = st.sampled_from(["application/json"] * 3 + ["text/plain", ""])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(path=st.sampled_from([C, T]), body=BODIES, kind=KINDS)
def test_any_body_gets_an_answer_or_an_error_in_openais_form(
    fuzzed: httpx.Client, path: str, body: bytes, kind: str
) -> None:
    answer = fuzzed.post(path, content=body, headers={"Content-Type": kind} if kind else {})
    if answer.status_code == 200:
        assert answer.text.endswith("data: [DONE]\n\n") or answer.json()["choices"]
    else:
        assert 400 <= answer.status_code < 500
        error_of(answer, answer.status_code)


@pytest.fixture(scope="module")
def fuzzed(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
    assert httpx.get(f"{server.url}/models").status_code == 200
    assert server.metrics()["marl_llm_requests_in_flight"] == 0
    assert server.process.poll() is None
