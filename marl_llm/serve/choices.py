"""One request's choices: what the desk is asked for, and what is made of what comes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from marl_llm.errors import MarlError
from marl_llm.metrics import tokens_of
from marl_llm.serve.desk import Desk, Place, Playing, Sampling, Scores, Scoring, Work
from marl_llm.serve.refusals import Refused
from marl_llm.serve.writing import Writing
from marl_llm.types import Completion, Episode, Tokens


@dataclass(kw_only=True)
class Choice:
    """One of the answers to a request."""

    work: Sampling | Playing
    """What it takes."""
    writing: Writing
    """Its text."""
    prompt: Tokens = ()
    """What was read; empty in a team, which reads much."""
    completion: Completion | None = None
    """What was sampled; None until it is whole, or where a stop text ended it before."""
    episode: Episode | None = None
    """What was played, if it is a team's."""
    done: bool = False
    """Whether nothing more comes."""

    def take(self, news: Tokens | Completion | Episode) -> None:
        """What the desk tells."""
        if isinstance(news, tuple):
            self.writing.add(news)
            self.done = self.writing.stopped
        elif isinstance(news, Completion):
            said = news.tokens[:-1] if news.stop == "eos" else news.tokens
            self.completion, self.done = news, True
            self.writing.add(said, last=True)
        else:
            self.episode, self.done = news, True
            self.writing.say(str(news.hidden["answer"]))

    @property
    def finish(self) -> str:
        """Why it ended, as OpenAI says it."""
        ended = self.completion is not None and self.completion.stop == "eos"
        return "stop" if ended or self.writing.stopped or self.episode is not None else "length"

    @property
    def sampled(self) -> int:
        """Tokens that were sampled, by all agents of a team."""
        if self.episode is not None:
            return tokens_of(self.episode.turns)[1]
        if self.completion is None or self.writing.stopped:
            return self.writing.used
        return len(self.completion.tokens)

    @property
    def read(self) -> int:
        """Tokens that were read, by all agents of a team."""
        if self.episode is None:
            return len(self.prompt)
        return tokens_of(self.episode.turns)[0]


class FailedError(Exception):
    """An answer failed here; no fault of who asked."""


@dataclass(kw_only=True)
class Answering:
    """Waits for the choices of a request; belongs to the thread of the event loop."""

    desk: Desk
    choices: Sequence[Choice]
    _numbers: dict[int, int] = field(default_factory=dict)
    """Index of a choice that is not done to its number at the desk."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _error: Exception | None = None
    """Why there is no answer."""

    def begin(self) -> None:
        """Ask for all of them."""
        for index, choice in enumerate(self.choices):
            self._numbers[index] = self.desk.submit(choice.work, partial(self._take, index))

    def cancel(self) -> None:
        """Drop what is not done."""
        for number in self._numbers.values():
            self.desk.cancel(number)
        self._numbers.clear()

    async def news(self) -> bool:
        """Wait until there is some; returns whether more will come.

        Raises:
            FailedError: something failed.
            Refused: what a team was asked does not fit its context.
        """
        await self._news.wait()
        self._news.clear()
        if isinstance(self._error, Refused):
            raise self._error
        if self._error is not None:
            raise FailedError(_reason(self._error)) from self._error
        return bool(self._numbers)

    async def all(self) -> None:
        """Wait until all are done; see `news`."""
        while await self.news():
            pass

    def _take(self, index: int, news: object) -> None:
        if index not in self._numbers:
            return
        choice = self.choices[index]
        if isinstance(news, Exception):
            self._error = news
        elif isinstance(choice.work, Playing) and (error := _unanswered(choice.work, news)):  # type: ignore[arg-type]
            self._error = error
        else:
            choice.take(news)  # type: ignore[arg-type]
        if choice.done:
            number = self._numbers.pop(index)
            if choice.completion is None and choice.episode is None:
                self.desk.cancel(number)
        self._news.set()


async def scored(desk: Desk, place: Place, sequences: Sequence[Tokens]) -> list[Scores]:
    """The scores of some sequences, all at once.

    Raises:
        FailedError: they could not be computed.
    """
    return await asyncio.gather(*(_told(desk, Scoring(place=place, tokens=tokens)) for tokens in sequences))


async def _told(desk: Desk, work: Work) -> Scores:
    future: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()

    def tell(news: object) -> None:
        if future.done():
            return
        if isinstance(news, Exception):
            future.set_exception(FailedError(_reason(news)))
        else:
            future.set_result(news)  # type: ignore[arg-type]

    number = desk.submit(work, tell)
    try:
        return await future
    finally:
        desk.cancel(number)


def _unanswered(work: Playing, episode: Episode) -> FailedError | Refused | None:
    """Why an episode has no answer; None: it has one."""
    if episode.status == "fault":
        return FailedError(f"the team's game ended at fault: {episode.note}")
    if episode.status == "truncated" and len(episode.turns) < work.max_turns:
        context = min(place.policy.engine.context_tokens for place in work.places.values())
        message = f"This team's maximum context length is {context} tokens: {episode.note}."
        return Refused(400, message, param="messages", code="context_length_exceeded")
    if episode.hidden.get("answer") is None or episode.status == "truncated":
        return FailedError(f"the team's game ended without an answer{episode.note and f': {episode.note}'}")
    return None


def _reason(error: Exception) -> str:
    told = isinstance(error, (MarlError, FailedError))
    return " ".join(str(error).split())[:300] if told else f"internal error ({type(error).__name__})"
