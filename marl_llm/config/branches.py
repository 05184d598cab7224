"""Settings of extra play: what is played on from finished episodes, to find out what their turns are worth."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from marl_llm.config.require import require


@dataclass(frozen=True, kw_only=True)
class TreeConfig:
    """Decisions are tried several times from one place, for what each of them leads to (MALT, arXiv 2412.01928)."""

    width: int = 3
    """Tries of each decision; the first one of a game is tried by the members of its group."""
    turns: int = 2
    """Turns after the first that are tried so: an episode becomes `width` to the power of `turns` episodes."""

    tokens: int | None = None
    """What is tried so are not turns but segments of the first reply, each of so many tokens and the last without a
    limit (SPO-tree, arXiv 2505.23564): `turns` of them after the first; None: turns."""

    def __post_init__(self) -> None:
        require(self.tokens is None or self.tokens >= 1, "play.tree.tokens", self.tokens, "null or 1 or more")
        require(self.width >= 2, "play.tree.width", self.width, "2 or more")
        require(self.turns >= 1, "play.tree.turns", self.turns, "1 or more")


@dataclass(frozen=True, kw_only=True)
class SegmentsConfig:
    """Values within replies, at tokens that might well have been others (SPO, arXiv 2505.23564)."""

    interval: int = 5
    """Of the tokens with a probability less than `below`, every so manieth is one that has a value."""
    rollouts: int = 9
    """How often each reply goes on anew from before such a token."""
    below: float = 0.9
    """Probability from which on a token is taken to be certain."""

    def __post_init__(self) -> None:
        require(self.interval >= 1, "play.branches.segments.interval", self.interval, "1 or more")
        require(self.rollouts >= 1, "play.branches.segments.rollouts", self.rollouts, "1 or more")
        require(0 < self.below <= 1, "play.branches.segments.below", self.below, "more than 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class BudgetsConfig:
    """What replies are worth whose thought must end early (AnytimeReasoner, arXiv 2505.13438)."""

    tokens: list[int] = field(default_factory=list)
    """After how many sampled tokens the thought ends, from few to many."""
    answers: int = 4
    """Answers that are then sampled, for each."""

    def __post_init__(self) -> None:
        rising = bool(self.tokens) and all(one < two for one, two in pairwise([0, *self.tokens]))
        require(rising, "play.branches.budgets.tokens", self.tokens, "one or more numbers from 1 on, rising")
        require(self.answers >= 1, "play.branches.budgets.answers", self.answers, "1 or more")


@dataclass(frozen=True, kw_only=True)
class CoalitionsConfig:
    """What agents are worth to their team: it plays on while some of them do nothing."""

    parts: list[Literal["shapley", "difference"]] = field(default_factory=lambda: ["shapley"])
    """Reward parts of each agent's last turn. `shapley`: they sum to what the team gets more than if all did nothing.
    `difference`: what it gets less without the agent; needs fewer coalitions, one for each agent."""
    rollouts: int = 1
    """How often each coalition plays."""
    exact: int = 6
    """Most agents of a team of which every coalition plays (2 to the power of their number)."""
    permutations: int = 4
    """Of a larger team: orders in which it is put together, each followed by its reverse, that are averaged over."""
    muted: str | None = None
    """What those do who are not in it; None: replies that cannot be read."""

    def __post_init__(self) -> None:
        require(bool(self.parts), "play.branches.coalitions.parts", self.parts, "one or more of shapley, difference")
        for name in ("rollouts", "exact", "permutations"):
            require(getattr(self, name) >= 1, f"play.branches.coalitions.{name}", getattr(self, name), "1 or more")


@dataclass(frozen=True, kw_only=True)
class BranchesConfig:
    """Further play from what was played, of policies that learn; what it finds out is for credit. Training only."""

    values: int = 0
    """How often play goes on from before each turn: the mean of what the agent then still gets is the turn's probe
    `value` (VinePPO, arXiv 2410.01679). 0: never."""
    options: int = 0
    """How often each legal action of each turn, and what was done in it, is played on from: the mean of what the agent
    then still gets is the turn's probe `q/ACTION`, and `q` (COMA, arXiv 1705.08926). 0: never."""
    segments: SegmentsConfig | None = None
    """Token probes `value`; None: none."""
    alternatives: int = 0
    """How often the message of each turn is drawn again and played on from: what the agent gets then on average is the
    turn's probe `baseline` (COMA, arXiv 1705.08926). 0: never."""
    keep_alternatives: bool = False
    """Whether these forks are credited and learned from like the episodes that they fork from."""
    budgets: BudgetsConfig | None = None
    """Probes `budget/0`, `budget/1` and so on; None: none."""
    coalitions: CoalitionsConfig | None = None
    """Reward parts `shapley` and `difference`; None: neither."""

    def __post_init__(self) -> None:
        require(self.values >= 0, "play.branches.values", self.values, "0 or more")
        require(self.options >= 0, "play.branches.options", self.options, "0 or more")
        require(self.alternatives >= 0, "play.branches.alternatives", self.alternatives, "0 or more")
        both = self.values and self.segments is not None
        require(not both, "play.branches.values", self.values, "0 with play.branches.segments, which have values too")
        idle = self.keep_alternatives and not self.alternatives
        require(not idle, "play.branches.keep_alternatives", True, "false without play.branches.alternatives")

    @property
    def any(self) -> bool:
        """Whether there is any."""
        wanted = (self.values, self.options, self.segments, self.alternatives, self.budgets, self.coalitions)
        return any(wanted)
