"""A team in the lm-evaluation-harness: `marl-llm lm-eval --model marl_llm --model_args run=...,protocol=debate ...`."""

import sys
from collections.abc import Sequence
from typing import Any

from marl_llm.errors import ConfigError, MarlError

NAME = "marl_llm"


def command(arguments: Sequence[str]) -> None:
    """The harness's own command line, in which `--model marl_llm` is a team.

    Raises:
        ConfigError: the harness is not installed.
        MarlError: what the team cannot do.
    """
    try:
        import lm_eval.models  # noqa: F401  # its own kinds of models, which stay available
        from lm_eval.__main__ import cli_evaluate
        from lm_eval.api.registry import register_model
    except ImportError as error:
        raise ConfigError("lm-eval: needs the package lm-eval: pip install 'marl-llm[lm-eval]'") from error
    register_model(NAME)(team_model())
    before, sys.argv = sys.argv, ["lm-eval", *arguments]
    try:
        cli_evaluate()
    finally:
        sys.argv = before


def team_model() -> type:
    """The class that the harness makes from `--model_args`, once it can be imported."""
    from lm_eval.api.model import LM

    from marl_llm.harness.answerer import Answerer

    class TeamModel(LM):  # type: ignore[misc]  # lm-eval has no types
        """Arguments: `run` (a run directory), `protocol` (`single` by default, or what the run calls a pipeline of
        its own), `step`, `temperature` (0 by default: greedy) and `seed`."""

        def __init__(
            self,
            run: str,
            protocol: str = "single",
            step: int | None = None,
            temperature: float = 0.0,
            seed: int = 0,
            **others: Any,
        ) -> None:
            super().__init__()
            unknown = sorted(others.keys() - {"batch_size", "max_batch_size", "device"})
            if unknown:
                allowed = "run, protocol, step, temperature, seed"
                raise ConfigError(f"model_args: {unknown[0]!r} is not allowed; it must be one of {allowed}")
            self._answerer = Answerer(run, way=protocol, step=step, temperature=temperature, seed=seed)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            """The team's answers, each up to the first of its stop strings."""
            answers = self._answerer.answers([request.args[0] for request in requests])
            return [_until(answer, request.args[1]) for answer, request in zip(answers, requests, strict=True)]

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            """Refused."""
            raise _no_probabilities()

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            """Refused."""
            raise _no_probabilities()

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            """All messages, one after the other: a team is asked one question, whose form its protocol gives it."""
            return "\n\n".join(message["content"] for message in chat_history if message["content"])

        @property
        def tokenizer_name(self) -> str:
            """Part of the harness's cache key; a team has no tokenizer that it could use."""
            return NAME

    return TeamModel


def _until(answer: str, settings: Any) -> str:
    stops = settings.get("until") or ()
    for stop in [stops] if isinstance(stops, str) else stops:
        answer = answer.partition(stop)[0] if stop else answer
    return answer


def _no_probabilities() -> MarlError:
    return MarlError(
        "a team has no probabilities of a text: take tasks that generate (output_type generate_until), or the server "
        "(marl-llm serve) with a single policy and lm-eval's local-completions"
    )
