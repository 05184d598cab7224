"""Reward parts that methods come with, for `play.rewards: module:function`."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from games.tools.named import TOOLS
from marl_llm.errors import ConfigError
from marl_llm.types import Episode

Judgement = Mapping[str, Any]
"""Turns of a solution, of its evaluation and of a judge, and the score that was read, as `discussion` tells them."""


F = TypeVar("F", bound=Callable[[Episode], dict[int, dict[str, float | None]]])


def pays(*parts: str) -> Callable[[F], F]:
    """Note which reward parts a function adds, for recipes that are about one; without it, it may be any."""

    def note(function: F) -> F:
        function.pays = parts  # type: ignore[attr-defined]
        return function

    return note


def length_bonus(num_tokens: float, *, alpha: float = 0.5, shortest: int = 11, longest: int = 2048) -> float:
    """Bonus for a short reply: alpha at `shortest` tokens, linearly down to 0 at `longest` (2510.15414)."""
    return alpha * max(0.0, 1 - (num_tokens - shortest) / (longest - shortest))


@pays("length")
def marshal_length(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `length` for every turn that a model answered: `marl_llm.credit.rewards:marshal_length`."""
    return {
        index: {"length": length_bonus(len(turn.completion.tokens))}
        for index, turn in enumerate(episode.turns)
        if turn.completion is not None
    }


FORMAT = 0.05
"""What a legal action in the required form is worth (2510.15414)."""


@pays("format", "length")
def marshal(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Parts `format` and `length` for every turn that a model answered: `marl_llm.credit.rewards:marshal`."""
    parts = marshal_length(episode)
    for index, given in parts.items():
        given["format"] = FORMAT if episode.turns[index].legal else 0.0
    return parts


CALL = re.compile(r"<tool_call>|<code>|<search>|```python")
"""What a tool is called with in a reply."""


@pays("call")
def first_call(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `call` for the turn in which an agent first calls a tool or another agent: how many tokens it had sampled
    before, within the reply by its share of characters. `marl_llm.credit.rewards:first_call`; it is no reward, so that
    a recipe gives it weight 0 (ASPO, arXiv 2508.19201)."""
    callers = {turn.parent for turn in episode.turns}
    sampled: dict[str, float] = defaultdict(float)
    parts: dict[str, tuple[int, float]] = {}
    for index, turn in enumerate(episode.turns):
        length = len(turn.completion.tokens) if turn.completion is not None else 0
        found = CALL.search(turn.reply)
        if turn.agent not in parts and (found or index in callers):
            share = found.start() / len(turn.reply) if found else 1.0
            parts[turn.agent] = index, sampled[turn.agent] + share * length
        sampled[turn.agent] += length
    return {index: {"call": tokens} for index, tokens in parts.values()}


def comas(episode: Episode) -> dict[int, dict[str, float | None]]:
    """CoMAS (arXiv 2510.08529) in the game `discussion`: `marl_llm.credit.rewards:comas`.

    An evaluation gets (3 - score) / 2, and so 0 to 1, the mean over the scores of it that can be read; a solution
    (score - 1) / 2, the mean over its evaluations, so that it and they always share 1; a score 0, or -1 where it cannot
    be read. What nobody has scored readably is unknown.
    """
    return _interaction(episode, _said)


def comas_released(episode: Episode) -> dict[int, dict[str, float | None]]:
    """As `comas`, but like its code: a score that cannot be read counts 0 for the solution and for the evaluation."""
    return _interaction(episode, _said, unread=0.0)


def comas_expected(episode: Episode) -> dict[int, dict[str, float | None]]:
    """As `comas`, but by the score that each judge gives on average, sum of k p(k), instead of the one it drew.

    Needs the probabilities of the judges' turns: `play.probe: [scorer]`. A judge without a model is taken at its word.

    Raises:
        ConfigError: they were not measured.
    """
    return _interaction(episode, _expected)


def _said(episode: Episode, judgement: Judgement) -> float | None:
    score: float | None = judgement["score"]
    return score


def _expected(episode: Episode, judgement: Judgement) -> float | None:
    judge = episode.turns[judgement["judge"]]
    if judge.prompt is None:
        return _said(episode, judgement)
    if not judge.probes:
        raise ConfigError(f"comas_expected needs the probabilities of scores; play.probe must name {judge.role!r}")
    chances = {name.removeprefix("p/"): chance for name, chance in judge.probes.items() if name.startswith("p/")}
    return sum(int(score) * chance for score, chance in chances.items()) if chances else None


def _interaction(
    episode: Episode,
    score_of: Callable[[Episode, Judgement], float | None],
    unread: float | None = None,
) -> dict[int, dict[str, float | None]]:
    """`score_of`: by which a judgement pays others. `unread`: what it pays them without a score; None: nobody knows."""
    scores: dict[int, dict[int | None, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    parts: dict[int, dict[str, float | None]] = {}
    for judgement in episode.hidden.get("judgements", ()):
        scores[judgement["solution"]][judgement["evaluation"]].append(score_of(episode, judgement))
        parts[judgement["judge"]] = {"score": -1.0 if judgement["score"] is None else 0.0}
    for solution, by_evaluation in scores.items():
        worth = []
        for evaluation, given in by_evaluation.items():
            worth.append(_mean([unread if score is None else (score - 1) / 2 for score in given]))
            if evaluation is not None:
                parts[evaluation] = {"evaluation": _mean([unread if s is None else (3 - s) / 2 for s in given])}
        parts[solution] = {"solution": _mean(worth)}
    return parts


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None: none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@pays("right")
def right(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `right` for every answer in a `workflow` or `debate`: whether it is right, said for each turn by the game's
    checker; what the recipes `marti_margin` and `marti_quality` go by: `marl_llm.credit.rewards:right`."""
    return {told["turn"]: {"right": told["right"]} for told in episode.hidden.get("answers", ())}


@pays("attribution")
def attribution(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `attribution`: what judges said that a turn did for the result, for the recipe `sotopia`.

    From nodes with `attributes: true` in a `workflow`, the mean of what could be read, unknown where nothing could; and
    of a turn with a probe `attribution`, the probe: `marl_llm.credit.rewards:attribution`.
    """
    said: dict[int, list[float | None]] = defaultdict(list)
    for told in episode.hidden.get("attributions", ()):
        said[told["turn"]].append(told["value"])
    parts: dict[int, dict[str, float | None]] = {turn: {"attribution": _mean(given)} for turn, given in said.items()}
    for index, turn in enumerate(episode.turns):
        if "attribution" in turn.probes:
            parts[index] = {"attribution": turn.probes["attribution"]}
    return parts


def theirs(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `theirs` for each agent's last turn: the sum of all other agents' returns.

    Counted like the agent's own (`play.rewards: marl_llm.credit.rewards:theirs`) it makes a team that maximises the
    joint return; a recipe may weigh it: `reward: {weights: {theirs: 0.5}}`.
    """
    joint = sum(episode.returns.values())
    last = {turn.agent: index for index, turn in enumerate(episode.turns)}
    return {index: {"theirs": joint - episode.returns[agent]} for agent, index in last.items()}


_CONFIDENCE = re.compile(r"<confidence>\s*(\d+\.?\d*|\.\d+)\s*</confidence>", re.IGNORECASE)
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.IGNORECASE | re.DOTALL)


def confidence(reply: str) -> float | None:
    """How sure a reply says it is, in the last `<confidence>...</confidence>`; None: not at all, or not from 0 to 1."""
    said = _CONFIDENCE.findall(reply)
    return float(said[-1]) if said and float(said[-1]) <= 1 else None


def calibration(right: float, sure: float | None) -> float | None:
    """-(sure - right)^2, which is greatest on average for honest confidence; None: unknown (RLCR, 2507.16806)."""
    return None if sure is None or not 0 <= sure <= 1 else -((sure - right) ** 2)


def calibrated(right: float, sure: float | None, *, readable: bool = True) -> float:
    """Reward in RLCR's code: 0.5 format + 0.5 right + 0.5 (1 - (sure - right)^2), 0 if anything cannot be read."""
    brier = calibration(right, sure)
    return 0.0 if brier is None or not readable else 0.5 + 0.5 * right + 0.5 * (1 + brier)


@pays("calibration")
def rlcr(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `calibration` for every answer in a `workflow` or `debate`: `marl_llm.credit.rewards:rlcr`.

    With what the answer itself is paid it is RLCR's reward; unknown where no confidence can be read.
    """
    return {
        told["turn"]: {"calibration": calibration(told["right"], confidence(episode.turns[told["turn"]].reply))}
        for told in episode.hidden.get("answers", ())
    }


@pays("rlcr")
def rlcr_released(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `rlcr`, all that RLCR's code pays for an answer: `marl_llm.credit.rewards:rlcr_released`."""
    parts: dict[int, dict[str, float | None]] = {}
    for told in episode.hidden.get("answers", ()):
        turn = episode.turns[told["turn"]]
        parts[told["turn"]] = {"rlcr": calibrated(told["right"], confidence(turn.reply), readable=bool(turn.legal))}
    return parts


def length_fit(words: float, shortest: float, longest: float, *, k: float = 0.005) -> float:
    """How well a length fits between two: a soft window, 0 to 1 (GTAlign, 2510.08872)."""
    return 1 / ((1 + math.exp(k * (shortest - words))) * (1 + math.exp(k * (words - longest))))


def user_utility(right: float, words: int, thought: int) -> float:
    """What a reply is worth to who asked, by its words and the characters of its thoughts (GTAlign, 2510.08872)."""
    return 1e-4 + 0.5 * right + 0.2 * length_fit(words, 20, 500) + 0.3 * math.exp(-thought / 500)


def model_utility(right: float, words: int, form: float, payoff: float) -> float:
    """What a reply is worth to who gave it, by all its words, thoughts included (GTAlign, 2510.08872)."""
    return 1e-4 + 0.2 * form + 0.2 * payoff + 0.4 * right + 0.2 * length_fit(words, 500, 1000)


@pays("user", "model")
def gtalign(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Parts `user` and `model` for every answer in a `workflow` or `debate`: `marl_llm.credit.rewards:gtalign`.

    Thoughts stand in `<think>...</think>`. How good a reply's table of payoffs is, the part `payoff` says, if the game
    pays one. An answer that could not be read is worth 0 to both.
    """
    parts: dict[int, dict[str, float | None]] = {}
    for told in episode.hidden.get("answers", ()):
        turn, right = episode.turns[told["turn"]], told["right"]
        thought = "".join(_THOUGHT.findall(turn.reply))
        words = len(_THOUGHT.sub("", turn.reply).split())
        user = user_utility(right, words, len(thought))
        payoff = turn.rewards.get("payoff") or 0.0
        model = model_utility(right, len(turn.reply.split()), 1.0 if turn.legal else 0.0, payoff)
        parts[told["turn"]] = {"user": 0.0, "model": 0.0} if turn.action is None else {"user": user, "model": model}
    return parts


_CALLS = (*TOOLS, "search")


def call_bonus(calls: int, *, each: float = 0.1, most: float = 1.0) -> float:
    """What calls of tools are paid: so much for each, up to a sum (SPEAR, 2509.22601)."""
    return min(each * calls, most)


def _calls_tool(action: str | None) -> bool:
    return (action or "").partition(":")[0].strip().casefold() in _CALLS


@pays("tool")
def tool(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `tool` for every turn that calls a tool, 1 if the game accepted it: `marl_llm.credit.rewards:tool`."""
    return {
        index: {"tool": float(turn.legal is True)}
        for index, turn in enumerate(episode.turns)
        if _calls_tool(turn.action)
    }


@pays("tools")
def tools(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `tools` for each agent's last turn, for its calls of tools: `marl_llm.credit.rewards:tools`."""
    calls: dict[str, int] = defaultdict(int)
    last: dict[str, int] = {}
    for index, turn in enumerate(episode.turns):
        calls[turn.agent] += _calls_tool(turn.action)
        last[turn.agent] = index
    return {index: {"tools": call_bonus(calls[agent])} for agent, index in last.items()}


@pays("subgoals")
def subgoals(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `subgoals`: how many sub-goals a turn was the first in its episode to reach, for the recipe `calm`.

    A game, or a critic in it, tells them in `hidden` as `subgoals`: a list of `{turn: 3, reached: [names]}`.
    """
    reached: set[str] = set()
    parts: dict[int, dict[str, float | None]] = {}
    for told in sorted(episode.hidden.get("subgoals", ()), key=lambda told: told["turn"]):
        fresh = set(told["reached"]) - reached
        parts[told["turn"]] = {"subgoals": float(len(fresh))}
        reached |= fresh
    return parts
