"""A server in a process of its own, asked with the official client, curl's way, and by a team's name."""

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from marl_llm.config import GameConfig
from marl_llm.engines.base import Request
from marl_llm.errors import ConfigError
from marl_llm.evaluation.protocols import asking
from marl_llm.play import play
from marl_llm.policies.llm import LLMPolicy
from marl_llm.seeds import derive
from marl_llm.serve.server import serve_run
from marl_llm.team import policies_of
from marl_llm.types import Completion, Match, Tokens
from tests.serve.conftest import CONFIG, TEAMS, Server, serving

QUESTION = "What is 2 + 3?"
USER = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def debater(run: Path) -> LLMPolicy:
    """The same policy without a server."""
    policy = policies_of(run)[1]["debater"]
    assert isinstance(policy, LLMPolicy)
    return policy


def directly(
    policy: LLMPolicy, prompt: Tokens, *, seed: int = 0, temperature: float = 0.0, tokens: int = 999
) -> Completion:
    asked = Request(ticket=0, policy=policy.name, prompt=prompt, max_tokens=tokens, seed=seed, temperature=temperature)
    policy.engine.submit(asked)
    while not (done := policy.engine.poll()):
        pass
    return done[0][1]


def test_the_start_says_what_there_is_and_how_to_ask(server: Server) -> None:
    assert f"models: {', '.join(('debater', 'judge', *TEAMS, 'team:sums', 'team:broken'))};" in server.said
    command = server.said.split("try: ", 1)[1].strip()
    assert command.startswith(f"curl {server.url}/chat/completions --json '")
    assert shutil.which("curl")
    answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert json.loads(answer)["choices"][0]["message"]["role"] == "assistant"


def test_models_are_policies_teams_and_checkpoints(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[: len(TEAMS) + 3] == ["debater", "judge", *TEAMS, "team:sums"]
    assert {"debater@0", "debater@1", "debater@2", "judge@0", "team:sums@0"} <= set(names)
    assert client.models.retrieve("debater@0").id == "debater@0"
    with pytest.raises(openai.NotFoundError, match=r"'debater@7' does not exist.*checkpoints 0, 1, 2"):
        client.models.retrieve("debater@7")


def test_a_chat_at_temperature_0_is_what_the_engine_says(client: openai.OpenAI, debater: LLMPolicy) -> None:
    messages = [{"role": "system", "content": "Sums."}, *USER]
    answer = client.chat.completions.create(model="debater", messages=messages, temperature=0)  # type: ignore[arg-type, call-overload]
    expected = directly(debater, debater.chat.start("Sums.", QUESTION))
    assert answer.choices[0].message.content == debater.chat.decode(expected.tokens)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == len(debater.chat.start("Sums.", QUESTION))
    assert answer.usage.completion_tokens == len(expected.tokens)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    parts = [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 3?"}]}]
    again = client.chat.completions.create(model="debater", messages=[messages[0], *parts], temperature=0)  # type: ignore[arg-type, call-overload]
    assert again.choices[0].message.content == answer.choices[0].message.content


def test_a_checkpoint_answers_as_it_was(client: openai.OpenAI, run: Path) -> None:
    said = {}
    for step in (0, 2):
        policy = policies_of(run, step=step)[1]["debater"]
        prompt = policy.chat.prompt(USER)  # type: ignore[attr-defined]
        expected = directly(policy, prompt, tokens=20)  # type: ignore[arg-type]
        name = f"debater@{step}"
        told = client.chat.completions.create(model=name, messages=USER, temperature=0, max_tokens=20, logprobs=True)  # type: ignore[arg-type]
        assert [one.logprob for one in told.choices[0].logprobs.content] == pytest.approx(expected.logprobs, abs=1e-4)  # type: ignore[union-attr]
        said[step] = expected.logprobs
    assert said[0] != said[2]


def test_seed_n_and_temperature_decide_what_is_sampled(client: openai.OpenAI, debater: LLMPolicy) -> None:
    def texts(**more: Any) -> list[str]:
        given: dict[str, Any] = {
            "model": "debater",
            "prompt": "What",
            "max_tokens": 12,
            "seed": 5,
            "temperature": 1,
            **more,
        }
        return [choice.text for choice in client.completions.create(**given).choices]

    four = texts(n=4)
    assert four == texts(n=4)
    assert len(set(four)) == 4
    assert texts() == four[:1]
    assert texts(prompt=["What", "4"])[0] == four[0]
    assert texts(seed=-6) != four[:1]
    assert texts(seed=None) != texts(seed=None)
    expected = directly(debater, debater.chat.encode("What"), seed=derive(5, 0), temperature=1.0, tokens=12)
    assert four[0] == debater.chat.decode(expected.tokens)
    assert texts(temperature=0, n=2, seed=1) == texts(temperature=0, n=2, seed=2)
    both = texts(prompt=["What", "4"], n=2)
    assert (both[:2], both[2:]) == (four[:2], texts(prompt="4", n=2))
    assert texts(prompt=list(debater.chat.encode("What"))) == four[:1]


def test_a_stream_brings_the_same_text_with_usage(client: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "debater", "seed": 3, "n": 3, "max_tokens": 40, "temperature": 1.5}
    whole = client.chat.completions.create(messages=USER, **given)  # type: ignore[arg-type]
    text, ends, usage = [""] * 3, {}, None
    options = {"include_usage": True}
    for chunk in client.chat.completions.create(messages=USER, stream=True, stream_options=options, **given):  # type: ignore[arg-type]
        assert chunk.object == "chat.completion.chunk"
        usage = chunk.usage
        for choice in chunk.choices:
            text[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    assert text == [choice.message.content for choice in whole.choices]
    assert [ends[index] for index in range(3)] == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage
    given = {"model": "debater", "prompt": "What", "seed": 3, "max_tokens": 40, "echo": True}
    pieces = [chunk.choices[0].text for chunk in client.completions.create(stream=True, **given)]
    assert "".join(pieces) == client.completions.create(**given).choices[0].text
    assert pieces[0] == "What"


def test_a_stop_text_ends_an_answer_before_it(client: openai.OpenAI, debater: LLMPolicy) -> None:
    given: dict[str, Any] = {"model": "debater", "prompt": "What", "seed": 2, "max_tokens": 60, "temperature": 1.5}
    whole = client.completions.create(**given).choices[0]
    stop = whole.text[len(whole.text) // 2 :][:2]
    cut = client.completions.create(stop=["never there", stop], **given)
    assert cut.choices[0].text == whole.text[: whole.text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens < 60  # type: ignore[union-attr]
    streamed = client.completions.create(stop=stop, stream=True, **given)
    assert "".join(chunk.choices[0].text for chunk in streamed) == cut.choices[0].text
    told = client.completions.create(stop=stop, logprobs=0, **given)
    assert len(told.choices[0].logprobs.tokens) == told.usage.completion_tokens == cut.usage.completion_tokens  # type: ignore[union-attr, arg-type]


def test_log_probabilities_of_what_is_sampled_and_of_the_prompt(client: openai.OpenAI, debater: LLMPolicy) -> None:
    prompt = debater.chat.encode("What is 2 + 3?")
    expected = directly(debater, prompt, tokens=5)
    engine = debater.engine
    (read,), (best,) = (ask("debater", [(prompt[:1], prompt[1:])]) for ask in (engine.score, engine.best))
    given: dict[str, Any] = {"model": "debater", "prompt": list(prompt), "temperature": 0, "echo": True, "logprobs": 1}
    told = client.completions.create(max_tokens=5, **given).choices[0].logprobs
    assert told is not None
    assert told.token_logprobs is not None
    assert told.token_logprobs[0] is None
    assert told.token_logprobs[1:] == pytest.approx([*read, *expected.logprobs], abs=1e-4)
    assert told.tokens == [debater.chat.name_of(token) for token in prompt + expected.tokens]
    assert told.text_offset == [len("".join(told.tokens[:i])) for i in range(len(told.tokens))]  # type: ignore[index, arg-type]
    assert told.top_logprobs[0] is None  # type: ignore[index]
    for place, (token, logprob) in enumerate(best, 1):
        top = told.top_logprobs[place]  # type: ignore[index]
        assert top[debater.chat.name_of(token)] == pytest.approx(logprob, abs=1e-4)
        assert max(top.values()) == top[debater.chat.name_of(token)]
        assert (told.token_logprobs[place] == max(top.values())) == (token == prompt[place])  # type: ignore[index]
    only = client.completions.create(max_tokens=0, **given).choices[0]
    assert only.text == debater.chat.text(prompt)
    assert only.logprobs is not None
    assert only.logprobs.token_logprobs[1:] == pytest.approx(read, abs=1e-4)  # type: ignore[index]
    chat = client.chat.completions.create(
        model="debater",
        messages=USER,
        logprobs=True,
        top_logprobs=1,
        seed=1,
        max_tokens=9,  # type: ignore[arg-type]
    )
    content = chat.choices[0].logprobs.content  # type: ignore[union-attr]
    assert len(content) == chat.usage.completion_tokens  # type: ignore[union-attr, arg-type]
    assert all(one.top_logprobs[0].logprob >= one.logprob for one in content)  # type: ignore[union-attr]


def test_a_team_answers_as_it_plays(client: openai.OpenAI, run: Path) -> None:
    config, policies = policies_of(run, temperature=0.0)
    game = asking(GameConfig(name="debate", settings=config.games["sums"].settings), QUESTION)
    match = Match(id="m", game=game.name, settings=game.settings, seed=derive(4), group="m", seats=config.seats("sums"))
    (episode,) = play([match], policies)
    told = client.chat.completions.create(model="team:sums", messages=USER, temperature=0, seed=4)  # type: ignore[arg-type]
    assert told.choices[0].message.content == episode.hidden["answer"] != "no answer"
    sampled = sum(len(turn.completion.tokens) for turn in episode.turns if turn.completion)
    assert len(episode.turns) == 5
    assert told.usage.completion_tokens == sampled  # type: ignore[union-attr]
    assert told.usage.prompt_tokens == sum(len(turn.prompt or ()) for turn in episode.turns)  # type: ignore[union-attr]


def test_a_teams_seed_streams_and_choices(client: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "team:debate", "messages": USER, "seed": 8, "n": 3, "temperature": 1.5}
    whole = client.chat.completions.create(**given)
    texts = [choice.message.content for choice in whole.choices]
    assert texts == [choice.message.content for choice in client.chat.completions.create(**given).choices]
    streamed = [""] * 3
    for chunk in client.chat.completions.create(stream=True, **given):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_a_team_that_fails_is_an_error_of_the_server_and_no_more(client: openai.OpenAI, server: Server) -> None:
    broken: dict[str, Any] = {"model": "team:broken", "messages": USER}
    answer = server.post("/chat/completions", broken)
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["type"] == "server_error"
    assert "it broke" in error["message"]
    with pytest.raises(openai.APIError, match="it broke"):
        list(client.chat.completions.create(stream=True, **broken))
    assert client.chat.completions.create(model="team:sums", messages=USER).choices  # type: ignore[arg-type, call-overload]
    assert server.metrics()["marl_llm_requests_in_flight"] == 0


def test_two_hundred_who_ask_at_once_get_their_own_answers(client: openai.OpenAI, debater: LLMPolicy) -> None:
    questions = [f"What is {number} + {number % 7}?" for number in range(200)]
    expected = []
    for seed, question in enumerate(questions):
        prompt = debater.chat.encode(question)
        expected.append(directly(debater, prompt, tokens=8, seed=derive(seed, 0), temperature=1.5).tokens)

    def ask(seed: int) -> str:
        given: dict[str, Any] = {"model": "debater", "prompt": questions[seed], "seed": seed}
        return client.completions.create(max_tokens=8, temperature=1.5, **given).choices[0].text

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, range(200))) == [debater.chat.decode(tokens) for tokens in expected]
    assert len(set(expected)) > 100


def test_health_and_metrics_count_what_happens(server: Server) -> None:
    root = server.url.removesuffix("/v1")
    assert httpx.get(f"{root}/health").json() == {"status": "ok"}
    before = server.metrics()
    answer = server.post("/completions", {"model": "judge", "prompt": "What", "max_tokens": 3, "temperature": 0}).json()
    server.post("/completions", {"model": "judge", "prompt": "What", "top_p": 0.5})
    after = server.metrics()

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert grown('marl_llm_requests_total{model="judge",status="200"}') == 1
    assert grown('marl_llm_requests_total{model="",status="400"}') == 1
    assert grown('marl_llm_tokens_total{model="judge",kind="sampled"}') == answer["usage"]["completion_tokens"]
    assert grown('marl_llm_tokens_total{model="judge",kind="prompt"}') == answer["usage"]["prompt_tokens"]
    assert grown('marl_llm_request_seconds_count{model="judge"}') == 1
    assert after["marl_llm_requests_in_flight"] == 0


# What ends a server.


def long_stream(server: Server) -> dict[str, Any]:
    return {"model": "judge@0", "prompt": "What", "max_tokens": 390, "stream": True, "n": 30, "temperature": 2}


def test_sigterm_finishes_what_is_in_flight_and_takes_no_more(run: Path) -> None:
    with (
        serving(run) as server,
        httpx.stream("POST", f"{server.url}/completions", json=long_stream(server), timeout=60) as answer,
    ):
        lines = answer.iter_lines()
        first = next(lines)
        server.process.send_signal(signal.SIGTERM)
        rest = [first, *lines]
        assert rest[-2] == "data: [DONE]"
        ends = [json.loads(line[6:])["choices"][0]["finish_reason"] for line in rest if line.startswith("data: {")]
        assert sum(end is not None for end in ends) == 30
        assert server.process.wait(timeout=30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/models")
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""


def test_a_port_in_use_is_one_line(server: Server, run: Path) -> None:
    port = int(server.url.removesuffix("/v1").rsplit(":", 1)[1])
    line = rf"^--host 127.0.0.1 --port {port}: cannot listen there: Address already in use$"
    with pytest.raises(ConfigError, match=line):
        serve_run(run, port=port, started=print)
    with pytest.raises(ConfigError, match=r"^--port: 70000 is not allowed; it must be between 0 and 65535$"):
        serve_run(run, port=70000, started=print)


def test_a_slow_client_does_not_hold_up_others(server: Server) -> None:
    host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps(long_stream(server)).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection((host, int(port))) as slow, socket.create_connection((host, int(port))) as dripping:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        slow.sendall(f"{head}\r\n\r\n".encode() + body)  # asks for much, and reads nothing
        dripping.sendall(f"{head}\r\n\r\n".encode() + body[:5])  # never sends the rest
        began = time.monotonic()
        for _ in range(5):
            given = {"model": "debater", "prompt": "What", "max_tokens": 4}
            assert server.post("/completions", given).status_code == 200
        assert time.monotonic() - began < 10


def leave(server: Server, body: Any) -> None:
    """Ask, and hang up."""
    client = httpx.Client(timeout=httpx.Timeout(60, read=0.05))
    try:
        with client.stream("POST", f"{server.url}/completions", json=body) as answer:
            next(answer.iter_raw())
    except httpx.ReadTimeout:
        pass
    client.close()


def test_a_client_that_leaves_is_counted_and_its_work_dropped(server: Server) -> None:
    def left() -> float:
        return sum(count for name, count in server.metrics().items() if 'status="499"' in name)

    before = left()
    for body in (long_stream(server), {**long_stream(server), "stream": False}):
        leave(server, body)
    ends = time.monotonic() + 20
    while left() - before < 2 or server.metrics()["marl_llm_requests_in_flight"]:
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_an_experiment_that_has_not_begun_is_served_as_it_would_begin(tmp_path: Path) -> None:
    file = tmp_path / "talk.yaml"
    file.write_text(CONFIG)
    with serving(file) as fresh:
        assert "NAME@STEP" not in fresh.said
        names = [model["id"] for model in httpx.get(f"{fresh.url}/models").json()["data"]]
        assert names == ["debater", "judge", *TEAMS, "team:sums"]
        refused = fresh.post("/completions", {"model": "debater@0", "prompt": "1"})
        assert refused.status_code == 404
        assert refused.json()["error"]["message"].endswith("team:sums.")
        asked = {"prompt": "What is 2 + 3?", "temperature": 0, "max_tokens": 4}
        first = fresh.post("/completions", {"model": "debater", **asked}).json()
        assert first["usage"]["completion_tokens"] == 4
