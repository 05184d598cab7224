"""The form of requests, as in OpenAI's API; what is not done here is refused and never ignored."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CHOICES = 128
"""Most choices of one request, those of all its prompts together."""
Whole = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=256)]

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "suffix": ("",),
    "best_of": (1,),
}
"""What is known and not done, with the values at which there is nothing to do; null is always one."""
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
"""What changes nothing in an answer."""


class Strict(BaseModel):
    """Says what it does not know."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Strict):
    """How a stream ends."""

    include_usage: bool = False
    """Whether the usage is told in a last chunk."""
    include_obfuscation: bool = False
    """Ignored: nothing is added."""


class Asked(Strict):
    """What both kinds of requests have."""

    model: Text
    """See GET /v1/models."""
    n: Annotated[int, Field(ge=1, le=CHOICES)] | None = None
    """Choices for each prompt."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy; None: the policy's own."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """The same seed gives the same tokens; None: a new one."""
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    """Texts before which a choice ends."""
    stream: bool | None = None
    """Whether to send text as it is sampled."""
    stream_options: StreamOptions | None = None
    """With `stream` alone."""
    max_tokens: Whole | None = None
    """Most tokens to sample."""

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, data: Any) -> Any:
        """Take out what asks for nothing, and refuse what is known and not done."""
        if not isinstance(data, dict):
            return data
        kept = {}
        for key, value in data.items():
            allowed = NEUTRAL.get(key)
            if key in cls.model_fields or (allowed is None and key not in IGNORED):
                kept[key] = value
            elif allowed is not None and value is not None and not any(_same(value, one) for one in allowed):
                only = " or ".join(map(repr, allowed))
                raise ValueError(f"{key} is not supported here; it must be left out or {only}")
        return kept

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        if "" in self.stops:
            raise ValueError("stop must not be an empty text")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts before which a choice ends."""
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class Part(Strict):
    """A part of a message."""

    type: Literal["text"]
    """Images, audio and files are not read."""
    text: str
    """What it says."""


class Message(Strict):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant"]
    """Who says it."""
    content: str | list[Part]
    """What it says."""
    name: str | None = None
    """Ignored: templates know no names."""

    @property
    def text(self) -> str:
        """All of it."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(Asked):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    """The conversation."""
    max_completion_tokens: Whole | None = None
    """The newer name of max_tokens."""
    logprobs: bool | None = None
    """Whether the log-probability of every token is told."""
    top_logprobs: Annotated[int, Field(ge=0, le=1)] | None = None
    """1: the most probable token in each place too."""

    @model_validator(mode="after")
    def _chat_fits(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.logprobs and self.stream:
            raise ValueError("logprobs is not supported together with stream")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are one setting, and differ")
        return self

    @property
    def limit(self) -> int | None:
        """Most tokens to sample."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


Token = Annotated[int, Field(ge=0, lt=2**31)]


class CompletionRequest(Asked):
    """POST /v1/completions."""

    prompt: (
        str
        | Annotated[list[Token], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[Annotated[list[Token], Field(min_length=1)]], Field(min_length=1)]
    )
    """One or several, as text or as tokens."""
    echo: bool | None = None
    """Whether the prompt is told before what is sampled."""
    logprobs: Annotated[int, Field(ge=0, le=1)] | None = None
    """0: the log-probability of every token; 1: the most probable token in each place too."""

    @model_validator(mode="after")
    def _completion_fits(self) -> Self:
        if self.logprobs is not None and self.stream:
            raise ValueError("logprobs is not supported together with stream")
        prompts, each = len(self.prompts), self.n or 1
        if prompts * each > CHOICES:
            raise ValueError(f"prompt: {prompts} prompts with {each} choices each are more than {CHOICES}")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """All of them."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


def _same(value: Any, other: Any) -> bool:
    """Equal, and no boolean for a number."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
