"""Reward parts that methods come with, for `play.rewards: module:function`."""

from collections import defaultdict
from collections.abc import Iterable

from marl_llm.types import Episode


def length_bonus(num_tokens: float, *, alpha: float = 0.5, shortest: int = 11, longest: int = 2048) -> float:
    """Bonus for a short reply: alpha at `shortest` tokens, linearly down to 0 at `longest` (2510.15414)."""
    return alpha * max(0.0, 1 - (num_tokens - shortest) / (longest - shortest))


def marshal_length(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `length` for every turn that a model answered: `marl_llm.credit.rewards:marshal_length`."""
    return {
        index: {"length": length_bonus(len(turn.completion.tokens))}
        for index, turn in enumerate(episode.turns)
        if turn.completion is not None
    }


FORMAT = 0.05
"""What a legal action in the required form is worth (2510.15414)."""


def marshal(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Parts `format` and `length` for every turn that a model answered: `marl_llm.credit.rewards:marshal`."""
    parts = marshal_length(episode)
    for index, given in parts.items():
        given["format"] = FORMAT if episode.turns[index].legal else 0.0
    return parts


def comas(episode: Episode) -> dict[int, dict[str, float | None]]:
    """CoMAS (arXiv 2510.08529) in the game `discussion`: `marl_llm.credit.rewards:comas`.

    A solution gets (score - 1) / 2, and so 0 to 1, the mean over its scores; an evaluation (3 - score) / 2, the mean
    over the scores of it; a score 0, or -1 where it cannot be read. What nobody has scored readably is unknown.
    """
    return _interaction(episode, unread=None)


def comas_released(episode: Episode) -> dict[int, dict[str, float | None]]:
    """As `comas`, but like its code: a score that cannot be read counts 0 for the solution and for the evaluation."""
    return _interaction(episode, unread=0.0)


def _interaction(episode: Episode, unread: float | None) -> dict[int, dict[str, float | None]]:
    solutions: dict[int, list[float | None]] = defaultdict(list)
    evaluations: dict[int, list[float | None]] = defaultdict(list)
    parts: dict[int, dict[str, float | None]] = {}
    for judgement in episode.hidden.get("judgements", ()):
        score, evaluation = judgement["score"], judgement["evaluation"]
        solutions[judgement["solution"]].append(unread if score is None else (score - 1) / 2)
        if evaluation is not None:
            evaluations[evaluation].append(unread if score is None else (3 - score) / 2)
        parts[judgement["judge"]] = {"score": -1.0 if score is None else 0.0}
    for name, told in (("solution", solutions), ("evaluation", evaluations)):
        for turn, values in told.items():
            parts[turn] = {name: _mean(values)}
    return parts


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None: none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def right(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `right` for every answer in a `workflow` or `debate`: whether it is right, said for each turn by the game's
    checker; what the recipes `marti_margin` and `marti_quality` go by: `marl_llm.credit.rewards:right`."""
    return {told["turn"]: {"right": told["right"]} for told in episode.hidden.get("answers", ())}


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
