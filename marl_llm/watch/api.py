"""The routes of the page."""

import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from marl_llm.errors import MarlError
from marl_llm.watch.acts import Acts
from marl_llm.watch.browser import Browser, MustScoreError
from marl_llm.watch.credits import ReadingError
from marl_llm.watch.guard import App, Guard
from marl_llm.watch.index import FILE
from marl_llm.watch.jobs import Jobs, Tell
from marl_llm.watch.plain import Plain
from marl_llm.watch.search import Search

PAGE = Path(__file__).parent / "page"
MOST_BRANCHES = 256
"""Times that a turn is played anew at once."""


def _whole(text: str | None) -> str | None:
    """Half a surrogate pair is no text, and cannot be kept."""
    return None if text is None else text.encode("utf-8", "replace").decode()


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BranchRequest(_Asked):
    """From a turn on: with a reply it is said in the turn, and the policy, if one is named, plays on."""

    id: str
    turn: int = Field(ge=0)
    policy: str | None = None
    reply: Annotated[str | None, AfterValidator(_whole)] = None
    n: int = Field(default=1, ge=1, le=MOST_BRANCHES)
    step: int | None = None


class ScoreRequest(_Asked):
    """What a checkpoint makes of an episode's tokens."""

    id: str
    step: int | None = None


class PlayRequest(_Asked):
    """A seat at a table."""

    game: str
    settings: dict[str, Any] = {}
    seat: str | None = None
    against: str | dict[str, str] = "random"
    seed: int = 0
    step: int | None = None


class MoveRequest(_Asked):
    """What is said there."""

    table: str
    reply: Annotated[str, AfterValidator(_whole)]


def make_app(browser: Browser, acts: Acts, jobs: Jobs, *, token: str, port: int) -> App:
    """The application, behind its guard."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, default_response_class=Plain)
    _refuse(app, browser.run)
    _read(app, browser, jobs)
    _act(app, browser, acts, jobs)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return Guard(app, token=token, port=port)


def _refuse(app: FastAPI, run: Path) -> None:
    """Every refusal is one sentence."""

    @app.exception_handler(MarlError)
    def refused(_: Request, error: Exception) -> Plain:
        return Plain({"error": str(error)}, 400)

    @app.exception_handler(LookupError)
    def missing(_: Request, error: Exception) -> Plain:
        return Plain({"error": str(error.args[0]) if error.args else "not there"}, 404)

    @app.exception_handler(sqlite3.Error)
    def broken(_: Request, error: Exception) -> Plain:
        if not run.is_dir():
            return Plain({"error": f"{run} is not there any more"}, 404)
        return Plain({"error": f"the index of episodes cannot be read: {error}; {FILE} may be deleted"}, 500)

    @app.exception_handler(OSError)
    def unreadable(_: Request, error: Exception) -> Plain:
        return Plain({"error": f"a file of the run cannot be read: {error}"}, 500)

    @app.exception_handler(HTTPException)
    def other(_: Request, error: HTTPException) -> Plain:
        return Plain({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    def ours(_: Request, error: Exception) -> Plain:  # it is in the log too
        return Plain({"error": f"the server failed over it: {type(error).__name__}: {error}"}, 500)

    @app.exception_handler(MustScoreError)
    def unknown(_: Request, error: Exception) -> Plain:
        return Plain({"error": str(error), "ask": True}, 409)

    @app.exception_handler(ReadingError)
    def reading(_: Request, error: ReadingError) -> Plain:
        return Plain({"error": str(error), "reading": {"done": error.done, "of": error.of}}, 409)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> Plain:
        problems = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return Plain({"error": "; ".join(problems)}, 400)


def _read(app: FastAPI, browser: Browser, jobs: Jobs) -> None:
    @app.get("/api/run")
    def run() -> dict[str, Any]:
        browser.touch()
        return browser.about()

    @app.get("/api/curves")
    def curves(key: Annotated[list[str] | None, Query()] = None) -> dict[str, Any]:
        browser.touch()
        return browser.curves.curves(key)

    @app.get("/api/players")
    def players() -> dict[str, Any]:
        return browser.players()

    @app.get("/api/episodes")
    def episodes(
        game: str = "",
        role: str = "",
        policy: str = "",
        outcome: str = "",
        first: Annotated[int | None, Query(alias="from")] = None,
        last: Annotated[int | None, Query(alias="to")] = None,
        alarm: str = "",
        text: str = "",
        kind: str = "",
        order: str = "newest",
        offset: int = 0,
        limit: int = 50,
    ) -> dict[str, Any]:
        browser.touch()
        wanted = Search(
            game=game,
            role=role,
            policy=policy,
            outcome=outcome,
            first=first,
            last=last,
            text=text,
            kind=kind,
            order=order,
            offset=offset,
            limit=limit,
        )
        return browser.search(wanted, alarm)

    @app.get("/api/episode")
    def episode(id: str) -> dict[str, Any]:
        browser.touch()
        return browser.story(id)

    @app.get("/api/text")
    def text(id: str, turn: int, field: str, offset: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
        return browser.text(id, turn, field, offset)

    @app.get("/api/credit")
    def credit(id: str, turn: int, recipe: Annotated[list[str] | None, Query()] = None) -> dict[str, Any]:
        return browser.credit(id, turn, recipe or [])

    @app.get("/api/colours")
    def colours(id: str, by: str, recipe: str = "", step: int | None = None) -> dict[str, Any]:
        return browser.colours(id, by, recipe, step)

    @app.get("/api/job")
    def job(id: str) -> dict[str, Any]:
        return asdict(jobs.get(id))


def _act(app: FastAPI, browser: Browser, acts: Acts, jobs: Jobs) -> None:
    def begin(request: dict[str, Any]) -> dict[str, str]:
        return {"job": jobs.begin(lambda tell: acts.ask(request, tell))}

    def of_episode(asked: BranchRequest | ScoreRequest, do: str) -> dict[str, Any]:
        place = browser.index.place(asked.id)
        if place is None:
            raise LookupError(f"there is no episode {asked.id!r} in this run")
        found = {"do": do, "file": str(place.file), "offset": place.offset, "at": place.step}
        return asked.model_dump() | found

    @app.post("/api/branch")
    def branch(asked: BranchRequest) -> dict[str, str]:
        browser.touch()
        return begin(of_episode(asked, "branch"))

    @app.post("/api/score")
    def score(asked: ScoreRequest) -> dict[str, str]:
        request = of_episode(asked, "score")

        def work(tell: Tell) -> dict[str, Any]:
            found = acts.ask(request, tell)
            scores = {int(turn): values for turn, values in found["turns"].items()}
            browser.keep_scores(asked.id, asked.step, scores)
            return {"step": found["step"]}

        return {"job": jobs.begin(work)}

    @app.post("/api/play")
    def play(asked: PlayRequest) -> dict[str, str]:
        browser.touch()
        return begin({"do": "play", **asked.model_dump()})

    @app.post("/api/move")
    def move(asked: MoveRequest) -> dict[str, str]:
        return begin({"do": "move", **asked.model_dump()})
