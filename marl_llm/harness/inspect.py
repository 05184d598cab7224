"""A team in Inspect: `inspect eval task.py --model marl_llm/runs/crew-seed0-1 -M protocol=debate`.

Inspect finds this module by the entry point in `pyproject.toml`.
"""

import asyncio
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, modelapi
from inspect_ai.tool import ToolChoice, ToolInfo

from marl_llm.errors import ConfigError
from marl_llm.harness.answerer import Answerer

TOGETHER = 256
"""Questions that are answered side by side."""


@modelapi(name="marl_llm")  # type: ignore[untyped-decorator]  # inspect-ai is not followed by the type checker
def marl_llm() -> type[ModelAPI]:
    """What Inspect makes a model of, for names that begin with `marl_llm/`."""
    return TeamAPI


class TeamAPI(ModelAPI):  # type: ignore[misc]
    """A team as a model; its name is the run directory.

    Arguments (`-M`): `protocol` (`single` by default, or what the run calls a pipeline of its own), `step`,
    `temperature` (0 by default: greedy) and `seed`. What is asked while an answer is being found is
    asked together after that.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  # as in Inspect's own
        protocol: str = "single",
        step: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        **others: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if others:
            allowed = "protocol, step, temperature, seed"
            raise ConfigError(f"-M {sorted(others)[0]}: not allowed; it must be one of {allowed}")
        self._answerer = Answerer(model_name, way=protocol, step=step, temperature=temperature, seed=seed)
        self._waiting: list[tuple[str, asyncio.Future[str]]] = []
        self._working: asyncio.Task[None] | None = None
        """Answers what waits, one batch after the other; of nobody who asks, so that whoever leaves ends no batch."""

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """The team's answer to all messages, one after the other.

        Raises:
            ConfigError: tools are asked for; a team has those of its pipeline.
        """
        if tools:
            raise ConfigError("a team cannot be given tools: those of its pipeline are all that it has")
        question = "\n\n".join(message.text for message in input if message.text)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return ModelOutput.from_content(self.model_name, await answer)

    async def _work(self) -> None:
        """Answer until nobody waits; the next batch begins when the thread of the one before is done."""
        while self._waiting:
            asked, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
            await self._answer([one for one in asked if not one[1].done()])

    async def _answer(self, asked: list[tuple[str, "asyncio.Future[str]"]]) -> None:
        """Answer them together; the rest of the program goes on meanwhile. Who has left by then is not told."""
        try:
            answers = await asyncio.to_thread(self._answerer.answers, [question for question, _ in asked])
        except Exception as error:  # whatever it is, each of them is to hear of it
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), text in zip(asked, answers, strict=True):
            if not answer.done():
                answer.set_result(text)

    def max_connections(self) -> int:
        """As many as are answered together."""
        return TOGETHER
