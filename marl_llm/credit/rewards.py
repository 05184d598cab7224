"""Reward parts that methods come with, for `play.rewards: module:function`."""

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


def theirs(episode: Episode) -> dict[int, dict[str, float | None]]:
    """Part `theirs` for each agent's last turn: the sum of all other agents' returns.

    Counted like the agent's own (`play.rewards: marl_llm.credit.rewards:theirs`) it makes a team that maximises the
    joint return; a recipe may weigh it: `reward: {weights: {theirs: 0.5}}`.
    """
    joint = sum(episode.returns.values())
    last = {turn.agent: index for index, turn in enumerate(episode.turns)}
    return {index: {"theirs": joint - episode.returns[agent]} for agent, index in last.items()}
