"""The routes: from requests to work for the desk, and from what comes of it to answers."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from marl_llm.errors import ConfigError, MarlError, ModelError
from marl_llm.evaluation.protocols import asking
from marl_llm.seeds import derive
from marl_llm.serve.answers import DONE, Head, Told, event, of_prompt, usage
from marl_llm.serve.choices import Answering, Choice, FailedError, scored
from marl_llm.serve.counts import Counts
from marl_llm.serve.desk import Desk, Place, Playing, Sampling
from marl_llm.serve.gate import Gate, Limits
from marl_llm.serve.names import Library, Model, Team, UnknownModelError
from marl_llm.serve.refusals import Refused, malformed
from marl_llm.serve.schema import Asked, ChatRequest, CompletionRequest
from marl_llm.serve.writing import Writing
from marl_llm.types import Match, Tokens

LONG = 20_000
"""Characters from which text is encoded in another thread, so that others are answered meanwhile."""
COMPLETION_TOKENS = 16
"""Most tokens of a completion that names no limit, as in OpenAI's API; a chat's limit is then the context."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the routes have in common."""

    library: Library
    desk: Desk
    limits: Limits
    counts: Counts

    async def model(self, request: Request, name: str) -> Model:
        """The model that a request names."""
        find = self.library.find
        try:
            found = find(name) if self.library.at_hand(name) else await asyncio.to_thread(find, name)
        except UnknownModelError as error:
            raise Refused(404, str(error), param="model", code="model_not_found") from error
        request.scope["model"] = name
        return found

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A place among the requests that are answered at a time."""
        self.take_slot()
        try:
            yield
        finally:
            self.free_slot()

    def take_slot(self) -> None:
        if self.desk.broken is not None:
            raise Refused(503, f"The engine has stopped ({type(self.desk.broken).__name__}); restart the server.")
        if self.counts.in_flight >= self.limits.max_requests:
            message = f"This server answers {self.limits.max_requests} requests at a time; try again soon."
            raise Refused(429, message, code="rate_limit_exceeded", headers={"Retry-After": "1"})
        self.counts.in_flight += 1

    def free_slot(self) -> None:
        self.counts.in_flight -= 1

    def wish(self, asked: int | None, *, default: int | None = None) -> int | None:
        """Most tokens of a reply where there is room for them; None: as many as there is room for."""
        if asked is not None and self.limits.max_tokens is not None and asked > self.limits.max_tokens:
            message = f"max_tokens: {asked} is too many; this server samples at most {self.limits.max_tokens}."
            raise Refused(400, message, param="max_tokens")
        most = (self.limits.max_tokens, default if asked is None else asked)
        return min((count for count in most if count is not None), default=None)

    def limit(self, asked: int | None, prompt: Tokens, place: Place, *, default: int | None) -> int:
        """Most tokens to sample after a prompt."""
        wish = self.wish(asked, default=default)
        context = place.policy.engine.context_tokens
        room = context - len(prompt)
        if room < 1:
            raise Refused(
                400,
                f"This model's maximum context length is {context} tokens, and the prompt has {len(prompt)}; at least "
                "one more is needed.",
                param="prompt",
                code="context_length_exceeded",
            )
        return room if wish is None else min(room, wish)

    def sampling(self, place: Place, asked: Asked, prompt: Tokens, limit: int, *, watch: bool) -> list[Choice]:
        """The choices for one prompt."""
        seed = secrets.randbits(62) if asked.seed is None else asked.seed
        temperature = place.policy.temperature if asked.temperature is None else asked.temperature
        return [
            Choice(
                work=Sampling(
                    place=place,
                    prompt=prompt,
                    max_tokens=limit,
                    temperature=temperature,
                    seed=derive(seed, number),
                    watch=watch,
                ),
                writing=Writing(place.policy.chat.decode, asked.stops),
                prompt=prompt,
            )
            for number in range(asked.n or 1)
        ]

    def playing(self, team: Team, asked: ChatRequest, name: str) -> list[Choice]:
        """The answers of a team to the last message."""
        if asked.logprobs:
            raise Refused(400, "logprobs is not supported for a team: several models speak.", param="logprobs")
        if asked.messages[-1].role != "user":
            raise Refused(400, "The last message must be the user's question to the team.", param="messages")
        if asked.limit == 0:
            raise Refused(400, "max_tokens: it must be 1 or more.", param="max_tokens")
        wish = self.wish(asked.limit)
        try:
            game = asking(team.game, asked.messages[-1].text)
        except ConfigError as error:
            raise Refused(400, "The last message is empty; a team needs a question.", param="messages") from error
        seed = secrets.randbits(62) if asked.seed is None else asked.seed
        return [
            Choice(
                work=Playing(
                    match=Match(
                        id=f"{name}/{number}",
                        game=game.name,
                        settings=game.settings,
                        seed=derive(seed),
                        group=name,
                        seats=team.seats,
                        member=number,
                    ),
                    places=team.places,
                    max_turns=team.max_turns,
                    temperature=asked.temperature,
                    max_tokens=wish,
                ),
                writing=Writing(lambda _: "", asked.stops),
            )
            for number in range(asked.n or 1)
        ]


def make_app(library: Library, desk: Desk, *, limits: Limits, key: str | None) -> FastAPI:
    """The application."""
    counts = Counts()
    service = Service(library=library, desk=desk, limits=limits, counts=counts)
    app = FastAPI(title="marl-llm", openapi_url="/openapi.json" if key is None else None, redoc_url=None)
    app.add_middleware(Gate, counts=counts, limits=limits, key=key)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return error.answer()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return malformed(error.errors()).answer()

    @app.exception_handler(AnyHTTPException)
    async def other(request: Request, error: AnyHTTPException) -> JSONResponse:
        return Refused(error.status_code, str(error.detail), headers=error.headers).answer()

    @app.exception_handler(FailedError)
    @app.exception_handler(MarlError)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return Refused(500, str(error)).answer()

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> JSONResponse:
        return Refused(500, f"internal error ({type(error).__name__})").answer()

    @app.get("/health")
    async def health() -> Response:
        status = 200 if desk.broken is None else 503
        return JSONResponse({"status": "ok" if status == 200 else "the engine has stopped"}, status)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(counts.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in library.listed()]}

    @app.get("/v1/models/{name}")
    async def model(name: str, request: Request) -> dict[str, Any]:
        if name not in library.listed():
            await service.model(request, name)
        return _model(name)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await _chat(service, body, request)

    @app.post("/v1/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await _completions(service, body, request)

    return app


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "marl-llm"}


async def _chat(service: Service, asked: ChatRequest, request: Request) -> Response:
    model = await service.model(request, asked.model)
    head = _head("chat", asked)
    if isinstance(model, Team):
        choices = service.playing(model, asked, head.id)
    else:
        messages = [{"role": message.role, "content": message.text} for message in asked.messages]
        try:
            prompt = await _encoded(model.policy.chat.prompt, messages, sum(len(one["content"]) for one in messages))
        except ModelError as error:
            raise Refused(400, f"messages: {error}.", param="messages") from error
        if asked.limit == 0:
            raise Refused(400, "max_tokens: it must be 1 or more.", param="max_tokens")
        limit = service.limit(asked.limit, prompt, model, default=None)
        choices = service.sampling(model, asked, prompt, limit, watch=_watched(asked, asked.logprobs))
    answering = Answering(desk=service.desk, choices=choices)
    if asked.stream:
        return _stream(service, head, asked, answering, [""] * len(choices), prompts=1)
    with service.slot():
        if not await _finished(answering, request):
            return Response(status_code=499)
        told: Sequence[Told | None] = [None] * len(choices)
        if asked.logprobs and isinstance(model, Place):
            told = await _logprobs(service.desk, model, choices, best=bool(asked.top_logprobs))
    answers = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.writing.text, "refusal": None},
            "logprobs": None if tokens is None else tokens.for_chat(model.policy.chat),  # type: ignore[union-attr]
            "finish_reason": choice.finish,
        }
        for index, (choice, tokens) in enumerate(zip(choices, told, strict=True))
    ]
    return _whole(service, head, answers, usage(1, choices))


async def _completions(service: Service, asked: CompletionRequest, request: Request) -> Response:
    model = await service.model(request, asked.model)
    if isinstance(model, Team):
        raise Refused(400, "A team answers questions: use /v1/chat/completions.", param="model")
    head = _head("text", asked)
    prompts = [await _prompt(model, prompt) for prompt in asked.prompts]
    choices, echoed = [], []
    if asked.max_tokens == 0 and not asked.echo:
        raise Refused(400, "max_tokens: it must be 1 or more, or 0 together with echo.", param="max_tokens")
    for tokens, prompt in zip(prompts, asked.prompts, strict=True):
        limit = service.limit(asked.max_tokens, tokens, model, default=COMPLETION_TOKENS)
        mine = service.sampling(model, asked, tokens, limit, watch=_watched(asked, asked.logprobs is not None))
        choices += mine
        text = prompt if isinstance(prompt, str) else model.policy.chat.text(tokens)
        echoed += [text if asked.echo else ""] * len(mine)
    if asked.max_tokens == 0:
        return await _echo(service, asked, head, model, choices, echoed)
    answering = Answering(desk=service.desk, choices=choices)
    if asked.stream:
        return _stream(service, head, asked, answering, echoed, prompts=len(prompts))
    with service.slot():
        if not await _finished(answering, request):
            return Response(status_code=499)
        told: Sequence[Told | None] = [None] * len(choices)
        if asked.logprobs is not None:
            told = await _logprobs(service.desk, model, choices, best=asked.logprobs > 0, echo=bool(asked.echo))
    answers = [
        _text(index, text + choice.writing.text, choice.finish, tokens, model)
        for index, (choice, text, tokens) in enumerate(zip(choices, echoed, told, strict=True))
    ]
    return _whole(service, head, answers, usage(len(prompts), choices))


async def _echo(
    service: Service,
    asked: CompletionRequest,
    head: Head,
    model: Place,
    choices: Sequence[Choice],
    texts: Sequence[str],
) -> Response:
    """Prompts alone, with their scores if they are wanted; nothing is sampled."""
    if asked.stream:
        raise Refused(400, "stream: there is nothing to stream with max_tokens 0.", param="stream")
    told: list[Told | None] = [None] * len(choices)
    if asked.logprobs is not None:
        with service.slot():
            scores = await scored(service.desk, model, [choice.prompt for choice in choices])
        best = asked.logprobs > 0
        told = [of_prompt(choice.prompt, one, best=best) for choice, one in zip(choices, scores, strict=True)]
    answers = [
        _text(index, text, "length", tokens, model)
        for index, (text, tokens) in enumerate(zip(texts, told, strict=True))
    ]
    read = sum(len(choice.prompt) for choice in choices[:: asked.n or 1])
    return _whole(service, head, answers, {"prompt_tokens": read, "completion_tokens": 0, "total_tokens": read})


def _text(index: int, text: str, finish: str, told: Told | None, model: Place) -> dict[str, Any]:
    logprobs = None if told is None else told.for_text(model.policy.chat)
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def _whole(service: Service, head: Head, answers: list[dict[str, Any]], used: dict[str, int]) -> Response:
    service.counts.used(head.model, used["prompt_tokens"], used["completion_tokens"])
    return JSONResponse(head.whole(answers, used))


def _head(kind: Any, asked: Asked) -> Head:
    prefix = "chatcmpl-" if kind == "chat" else "cmpl-"
    return Head(kind=kind, id=prefix + secrets.token_hex(12), created=int(time()), model=asked.model)


def _watched(asked: Asked, logprobs: bool | None) -> bool:
    return bool(asked.stream or (asked.stops and not logprobs))


async def _encoded(encode: Any, text: Any, characters: int) -> Tokens:
    tokens: Tokens = await asyncio.to_thread(encode, text) if characters > LONG else encode(text)
    return tokens


async def _prompt(model: Place, prompt: str | list[int]) -> Tokens:
    if isinstance(prompt, str):
        tokens = await _encoded(model.policy.chat.encode, prompt, len(prompt))
    else:
        tokens = tuple(prompt)
        if max(tokens) >= model.policy.chat.vocabulary:
            message = f"prompt: token {max(tokens)} is unknown; this model has {model.policy.chat.vocabulary} tokens."
            raise Refused(400, message, param="prompt")
    if not tokens:
        raise Refused(400, "prompt: it must not be empty.", param="prompt")
    return tokens


async def _finished(answering: Answering, request: Request) -> bool:
    """Wait until all choices are done; false: the client has left, and they are cancelled."""
    answering.begin()
    gone = asyncio.ensure_future(_gone(request))
    done = asyncio.ensure_future(answering.all())
    try:
        await asyncio.wait({gone, done}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            request.scope["client_left"] = True
            return False
        done.result()
        return True
    finally:
        gone.cancel()
        done.cancel()
        answering.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _logprobs(
    desk: Desk, place: Place, choices: Sequence[Choice], *, best: bool, echo: bool = False
) -> list[Told]:
    """What was sampled with its log-probabilities; with `echo` after those of the prompt."""
    told: list[Told] = []
    for choice in choices:
        assert choice.completion is not None
        count = choice.sampled
        tokens, logprobs = choice.completion.tokens[:count], choice.completion.logprobs[:count]
        told.append(Told(tokens=tokens, logprobs=logprobs, best=None))
    if not (best or echo):
        return told
    scores = await scored(desk, place, [choice.prompt + one.tokens for choice, one in zip(choices, told, strict=True)])
    found = []
    for choice, one, score in zip(choices, told, scores, strict=True):
        read = len(choice.prompt)
        top = [None, *score.best]
        sampled = Told(tokens=one.tokens, logprobs=one.logprobs, best=top[read:] if best else None)
        before = [None, *score.logprobs][:read]
        prompt = Told(tokens=choice.prompt, logprobs=before, best=top[:read] if best else None)
        found.append(prompt + sampled if echo else sampled)
    return found


class _Stream(StreamingResponse):
    """Does something when it ends, however that is."""

    def __init__(self, content: AsyncIterator[bytes], end: Any) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._end = end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end(scope)


def _stream(
    service: Service, head: Head, asked: Asked, answering: Answering, echoed: Sequence[str], *, prompts: int
) -> Response:
    service.take_slot()
    answering.begin()
    whole = False

    async def parts() -> AsyncIterator[bytes]:
        nonlocal whole
        try:
            async for part in _parts(head, answering, echoed):
                yield part
        except (FailedError, Refused) as error:
            yield event((error if isinstance(error, Refused) else Refused(500, str(error))).body())
            whole = True
            return
        used = usage(prompts, answering.choices)
        service.counts.used(head.model, used["prompt_tokens"], used["completion_tokens"])
        if asked.usage_wanted:
            yield head.chunk([], usage=used)
        whole = True
        yield DONE

    def end(scope: Any) -> None:
        answering.cancel()
        service.free_slot()
        scope["client_left"] = not whole

    return _Stream(parts(), end)


async def _parts(head: Head, answering: Answering, echoed: Sequence[str]) -> AsyncIterator[bytes]:
    for index, text in enumerate(echoed):
        if head.kind == "chat":
            yield head.chunk([_delta(head, index, {"role": "assistant", "content": ""}, None)])
        elif text:
            yield head.chunk([_delta(head, index, text, None)])
    more, ended = True, set[int]()
    while more:
        more = await answering.news()
        for index, choice in enumerate(answering.choices):
            if index in ended:
                continue
            text = choice.writing.rest() if choice.done else choice.writing.news()
            if text:
                yield head.chunk([_delta(head, index, text if head.kind == "text" else {"content": text}, None)])
            if choice.done:
                ended.add(index)
                yield head.chunk([_delta(head, index, "" if head.kind == "text" else {}, choice.finish)])


def _delta(head: Head, index: int, what: Any, finish: str | None) -> dict[str, Any]:
    return {"index": index, "delta" if head.kind == "chat" else "text": what, "logprobs": None, "finish_reason": finish}
