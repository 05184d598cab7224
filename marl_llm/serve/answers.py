"""Answers in the form of OpenAI's API."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from marl_llm.serve.choices import Choice
from marl_llm.serve.desk import Scores
from marl_llm.text import Chat
from marl_llm.types import Tokens


@dataclass(frozen=True, kw_only=True)
class Head:
    """What all parts of one answer have."""

    kind: Literal["chat", "text"]
    """Which endpoint was asked."""
    id: str
    """Of the answer."""
    created: int
    """Seconds since 1970."""
    model: str
    """As it was asked for."""

    def whole(self, choices: Sequence[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        """An answer in one piece."""
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        return {**self._common(name), "choices": list(choices), "usage": usage}

    def chunk(self, choices: Sequence[dict[str, Any]], **more: Any) -> bytes:
        """A part of a stream."""
        name = "chat.completion.chunk" if self.kind == "chat" else "text_completion"
        return event({**self._common(name), "choices": list(choices), **more})

    def _common(self, name: str) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}


def event(data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(data)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def usage(prompts: int, choices: Sequence[Choice]) -> dict[str, int]:
    """Tokens of an answer; each of the `prompts` prompts counts once, though it has several choices."""
    each = len(choices) // prompts
    read = sum(choice.read for choice in (choices if choices[0].episode else choices[::each]))
    sampled = sum(choice.sampled for choice in choices)
    return {"prompt_tokens": read, "completion_tokens": sampled, "total_tokens": read + sampled}


@dataclass(frozen=True, kw_only=True)
class Told:
    """Tokens of an answer with their log-probabilities."""

    tokens: Tokens
    """In order."""
    logprobs: Sequence[float | None]
    """One for each; None: nothing was before it."""
    best: Sequence[tuple[int, float] | None] | None = None
    """The most probable token in each place; None: nobody asked."""

    def __add__(self, other: "Told") -> "Told":
        best = None if self.best is None or other.best is None else [*self.best, *other.best]
        return Told(tokens=self.tokens + other.tokens, logprobs=[*self.logprobs, *other.logprobs], best=best)

    def for_chat(self, chat: Chat) -> dict[str, Any]:
        """As a chat completion has them."""
        places = [(self._one(chat, *pair), self._alternatives(place)) for place, pair in enumerate(self._pairs())]
        content = [{**one, "top_logprobs": [self._one(chat, *pair) for pair in top]} for one, top in places]
        return {"content": content, "refusal": None}

    def for_text(self, chat: Chat) -> dict[str, Any]:
        """As a completion has them. Of alternatives, there are the most probable token and that of the text."""
        names = [chat.name_of(token) for token in self.tokens]
        offsets, length = [], 0
        for name in names:
            offsets.append(length)
            length += len(name)
        top: list[dict[str, float] | None] = []
        for place, (token, logprob) in enumerate(self._pairs()):
            pairs = [*self._alternatives(place), (token, logprob)]
            # Two tokens may have one name; the more probable one counts.
            known = sorted((value, chat.name_of(one)) for one, value in pairs if value is not None)
            top.append({name: value for value, name in known} if known else None)
        return {
            "tokens": names,
            "token_logprobs": list(self.logprobs),
            "top_logprobs": None if self.best is None else top,
            "text_offset": offsets,
        }

    def _pairs(self) -> list[tuple[int, float | None]]:
        return list(zip(self.tokens, self.logprobs, strict=True))

    def _alternatives(self, place: int) -> list[tuple[int, float | None]]:
        best = None if self.best is None else self.best[place]
        if best is None:
            return []
        # What was sampled and what is scored again differ in the last bits.
        return [(best[0], self.logprobs[place] if best[0] == self.tokens[place] else best[1])]

    @staticmethod
    def _one(chat: Chat, token: int, logprob: float | None) -> dict[str, Any]:
        return {"token": chat.name_of(token), "logprob": logprob, "bytes": None}


def of_prompt(tokens: Tokens, scores: Scores, *, best: bool) -> Told:
    """A prompt that is told again."""
    return Told(tokens=tokens, logprobs=[None, *scores.logprobs], best=[None, *scores.best] if best else None)
