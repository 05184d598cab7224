"""The routes: what they answer, whom they refuse, and that who acts has the token."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from marl_llm.errors import RunError
from marl_llm.watch.api import make_app
from marl_llm.watch.browser import Browser
from marl_llm.watch.guard import MAX_BODY
from marl_llm.watch.index import Index
from marl_llm.watch.jobs import Jobs
from tests.watch.conftest import episode, lines, step_file, turn

TOKEN, PORT = "secret", 8321
ACTING = {"X-Token": TOKEN}
JSON = {**ACTING, "Content-Type": "application/json"}


class FakeActs:
    """Notes what is asked, and answers with what it is given."""

    def __init__(self, run: Path) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.answer: Any = {}

    def ask(self, request: Mapping[str, Any], tell: Any) -> Any:
        self.asked.append(request)
        tell({"doing": "thinking", "done": 1, "of": 2})
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        pass


@pytest.fixture
def acts(trained: Path) -> FakeActs:
    return FakeActs(trained)


@pytest.fixture
def client(reader: Browser, acts: FakeActs) -> Iterator[TestClient]:
    jobs = Jobs()
    app = make_app(reader, acts, jobs, token=TOKEN, port=PORT)  # type: ignore[arg-type]
    yield TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
    jobs.close()


def finished(client: TestClient, job: str) -> dict[str, Any]:
    deadline = monotonic() + 10
    while monotonic() < deadline:
        told: dict[str, Any] = client.get("/api/job", params={"id": job}).json()
        if told["state"] in ("done", "failed"):
            return told
        sleep(0.01)
    raise AssertionError("the job does not end")


def test_the_page_and_all_that_is_read_needs_no_token(client: TestClient) -> None:
    assert "<title" in client.get("/").text
    run = client.get("/api/run").json()
    assert (run["name"], run["step"], run["steps"], run["live"]) == ("small", 3, 3, False)
    assert (run["roles"], run["seen_policies"]) == (["player_0", "player_1"], ["agent"])
    assert (run["recipe"], run["checkpoints"], run["problems"]) == ("rae", [0, 2, 3], [])
    assert run["games"]["game"]["agents"] == ["player_0", "player_1"]
    assert "play/return/player_0" in client.get("/api/curves").json()["series"]
    found = client.get("/api/episodes", params={"role": "player_0", "from": 2, "to": 2, "limit": 3}).json()
    assert found["total"] == 8
    assert [row["step"] for row in found["rows"]] == [2, 2, 2]
    told = client.get("/api/episode", params={"id": "s2/g0/m1"}).json()
    assert [one["id"] for one in told["members"]] == [f"s2/g0/m{n}" for n in range(4)]
    assert told["turns"][0]["observation"].startswith("You are player_0.")
    assert client.get("/api/credit", params={"id": "s2/g0/m1", "turn": 0}).json()["recipes"][0]["name"] == "rae"
    assert "kuhn_poker" in client.get("/api/players").json()["games"]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/episode?id=nobody", 404, "no episode 'nobody'"),
        ("/api/credit?id=s2/g0/m1&turn=99", 404, "no turn 99"),
        ("/api/episodes?outcome=lucky", 400, "outcome: 'lucky' is not allowed"),
        ("/api/episodes?from=x", 400, "from: "),
        ("/api/text?id=s2/g0/m1&turn=0&field=hidden", 400, "field: 'hidden' is not allowed"),
        ("/api/colours?id=s2/g0/m1&by=entropy", 409, "not in the log"),
        ("/api/job?id=j7", 404, "no job 'j7'"),
        ("/api/credit?id=s2/g0/m1&turn=" + "9" * 30, 404, "no turn 999"),
        ("/api/colours?id=s2/g0/m1&by=advantage&recipe=/tmp/" + "a" * 5000 + ".yaml", 400, "recipe: '/tmp/"),
        ("/api/nothing", 404, "Not Found"),
        ("/../../etc/passwd", 404, "Not Found"),
    ],
)
def test_every_refusal_is_one_sentence(client: TestClient, path: str, status: int, words: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    told = answer.json()
    assert words in told["error"]


def test_the_game_is_found_by_the_name_that_the_page_offers(client: TestClient) -> None:
    (label,) = client.get("/api/run").json()["games"]
    for name in (label, "kuhn_poker"):
        found = client.get("/api/episodes", params={"game": name}).json()
        assert found["total"] == client.get("/api/episodes").json()["total"] > 0
    assert client.get("/api/episodes", params={"game": "chess"}).json()["total"] == 0


def test_numbers_that_are_too_large_find_nothing(client: TestClient) -> None:
    for name in ("offset", "from"):
        answer = client.get("/api/episodes", params={name: 10**30})
        assert (answer.status_code, answer.json()["rows"]) == (200, [])
    assert client.get("/api/episodes", params={"to": 10**30}).json()["total"] > 0


def test_half_a_surrogate_pair_is_nobodys_id(client: TestClient) -> None:
    answer = client.post("/api/branch", content=rb'{"id": "\ud800", "turn": 0}', headers=JSON)
    assert (answer.status_code, answer.json()["error"][:11]) == (404, "there is no")
    answer = client.post("/api/branch", content=b"[" * 100_000, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (400, "There was an error parsing the body")


def test_what_json_cannot_say_is_null(client: TestClient, acts: FakeActs) -> None:
    acts.answer = {"returns": {"a": [float("nan"), float("-inf"), 1.0]}, "text": "\ud800"}
    job = client.post("/api/play", json={"game": "kuhn_poker"}, headers=ACTING).json()["job"]
    assert finished(client, job)["result"] == {"returns": {"a": [None, None, 1.0]}, "text": "\ud800"}


def test_nobody_gets_a_socket(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/run", headers={"Host": "127.0.0.1:8321"}):
        pass


def test_a_run_directory_that_is_gone_is_told(written: Path, acts: FakeActs) -> None:
    reader = Browser(written, Index(written))
    app = make_app(reader, acts, Jobs(), token=TOKEN, port=PORT)  # type: ignore[arg-type]
    shutil.rmtree(written)
    answer = TestClient(app, base_url=f"http://127.0.0.1:{PORT}").get("/api/run")
    assert (answer.status_code, answer.json()) == (404, {"error": f"{written} is not there any more"})


def test_what_an_episode_names_is_not_called(written: Path, acts: FakeActs, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    one = episode(0, turn("player_0", "a"))
    match = replace(one.match, game="os:mkdir", settings={"path": str(trap)})
    step_file(written, 1).write_bytes(lines([replace(one, match=match)]))
    reader = Browser(written, Index(written))
    for _ in reader.index.refresh():
        pass
    told = reader.story("s1/g0/m0")
    assert (told["rules_of"], told["form"], told["final_board"]) == ("os:mkdir", "list", None)
    assert not trap.exists()


@pytest.mark.parametrize("path", ["/api/branch", "/api/score", "/api/play", "/api/move", "/api/run"])
@pytest.mark.parametrize("headers", [{}, {"X-Token": ""}, {"X-Token": "secre"}, {"Authorization": TOKEN}])
def test_nothing_is_done_without_the_token(
    client: TestClient, acts: FakeActs, path: str, headers: dict[str, str]
) -> None:
    answer = client.post(path, json={"id": "s2/g0/m1", "turn": 0}, headers=headers)
    assert answer.status_code == 403
    assert "the token" in answer.json()["error"]
    assert acts.asked == []


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:1"])
def test_other_origins_are_refused_whatever_they_have(client: TestClient, method: str, origin: str) -> None:
    answer = client.request(method, "/api/run", headers={**ACTING, "Origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_gets_no_image_of_ours_but_may_link_here(client: TestClient, site: str) -> None:
    asked = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
    assert client.get("/api/credit?id=s2/g0/m1&turn=0&recipe=rae", headers=asked).status_code == 403
    assert client.get("/", headers={**asked, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert client.get("/api/run", headers={**asked, "Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_at_the_port_that_no_browser_names_it_is_answered_too(reader: Browser, acts: FakeActs) -> None:
    client = TestClient(make_app(reader, acts, Jobs(), token=TOKEN, port=80))  # type: ignore[arg-type]
    for host in ("127.0.0.1", "localhost:80"):
        assert client.get("/api/run", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200
    assert client.get("/api/run", headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", ""])
def test_a_name_that_leads_here_is_not_ours(client: TestClient, host: str) -> None:
    assert client.get("/api/run", headers={"Host": host}).status_code == 403


def test_our_own_page_may_ask_by_any_of_this_machines_names(client: TestClient) -> None:
    for name in ("127.0.0.1", "localhost", "[::1]"):
        own = {"Host": f"{name}:{PORT}", "Origin": f"http://{name}:{PORT}"}
        assert client.get("/api/run", headers=own).status_code == 200


def test_every_answer_says_that_nothing_comes_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/api/run", "/api/nothing"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_a_body_has_a_limit(client: TestClient, acts: FakeActs) -> None:
    answer = client.post("/api/move", content=b"x" * (MAX_BODY + 1), headers=ACTING)
    assert answer.status_code == 413
    assert client.post("/api/move", content=iter([b"{}"]), headers=ACTING).status_code == 413
    assert acts.asked == []


def test_half_a_surrogate_pair_in_a_reply_does_no_harm(client: TestClient, acts: FakeActs) -> None:
    body = rb'{"id": "s2/g0/m1", "turn": 0, "reply": "a\ud800"}'
    finished(client, client.post("/api/branch", content=body, headers=JSON).json()["job"])
    assert acts.asked[0]["reply"] == "a?"


def test_a_branch_is_asked_for_and_waited_for(client: TestClient, acts: FakeActs, trained: Path) -> None:
    acts.answer = {"episodes": ["s2/g0/m1/t0n1"]}
    asked = {"id": "s2/g0/m1", "turn": 0, "policy": "random", "n": 4}
    job = client.post("/api/branch", json=asked, headers=ACTING).json()["job"]
    told = finished(client, job)
    assert (told["state"], told["result"], told["doing"], told["of"]) == ("done", acts.answer, "thinking", 2)
    (request,) = acts.asked
    assert asked.items() <= request.items()
    assert (request["do"], request["at"]) == ("branch", 2)
    with Path(request["file"]).open("rb") as file:
        file.seek(request["offset"])
        assert file.readline().startswith(b'{"match":{"id":"s2/g0/m1"')


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"id": "s2/g0/m1", "turn": 0, "n": 0}, "n: "),
        ({"id": "s2/g0/m1", "turn": -1}, "turn: "),
        ({"id": "nobody", "turn": 0}, "no episode 'nobody'"),
        ({"id": "s2/g0/m1", "turn": 0, "more": 1}, "more: "),
    ],
)
def test_what_cannot_be_asked_is_refused(client: TestClient, acts: FakeActs, asked: dict[str, Any], words: str) -> None:
    answer = client.post("/api/branch", json=asked, headers=ACTING)
    assert answer.status_code in (400, 404)
    assert words in answer.json()["error"]
    assert acts.asked == []


def test_what_fails_is_told_and_the_next_is_done(client: TestClient, acts: FakeActs) -> None:
    for error, words in ((RunError("no such checkpoint"), "no such checkpoint"), (KeyError("x"), "KeyError: 'x'")):
        acts.answer = error
        job = client.post("/api/play", json={"game": "kuhn_poker"}, headers=ACTING).json()["job"]
        told = finished(client, job)
        assert (told["state"], told["error"]) == ("failed", words)
    acts.answer = {"table": "t1"}
    job = client.post("/api/move", json={"table": "t1", "reply": "bet"}, headers=ACTING).json()["job"]
    assert finished(client, job)["result"] == {"table": "t1"}


def test_what_a_model_says_of_tokens_colours_them(client: TestClient, acts: FakeActs) -> None:
    acts.answer = {"step": 2, "turns": {"0": {"entropy": [0.5, 0.7], "ratio": [1.0, 2.0]}}}
    asked = {"id": "s2/g0/m1", "step": 2}
    assert finished(client, client.post("/api/score", json=asked, headers=ACTING).json()["job"])["state"] == "done"
    told = client.get("/api/colours", params={"id": "s2/g0/m1", "by": "entropy", "step": 2}).json()
    assert told["turns"][0]["value"] == pytest.approx(0.6)
    assert [token["value"] for token in told["turns"][0]["tokens"]] == [0.5, 0.7]


def test_a_long_text_is_told_in_parts(written: Path, tmp_path: Path, acts: FakeActs) -> None:
    long = "<b>\u202e" * 250_000
    step_file(written, 1).write_bytes(lines([episode(0, turn("player_0", f"<think>{long}</think>{long}"))]))
    reader = Browser(written, Index(written))
    for _ in reader.index.refresh():
        pass
    app = make_app(reader, acts, Jobs(), token=TOKEN, port=PORT)  # type: ignore[arg-type]
    client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
    answer = client.get("/api/episode", params={"id": "s1/g0/m0"})
    assert len(answer.content) < 500_000
    (told,) = answer.json()["turns"]
    assert told["cut"] == {"reply": len(long), "thought": len(long)}
    assert told["reply"] == long[:20_000]
    whole, offset = "", 0
    while offset is not None:
        asked = {"id": "s1/g0/m0", "turn": 0, "field": "reply", "offset": offset}
        part = client.get("/api/text", params=asked).json()
        whole, offset = whole + part["text"], part["next"]
    assert whole == long
