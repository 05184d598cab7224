"""The nouns of the program: what a match, a turn, an episode and a training sample are.

Every noun is a frozen dataclass that a test can write by hand. Nothing here imports anything of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Tokens = tuple[int, ...]
"""Token ids, exactly as an engine read or sampled them."""

Stop = Literal["eos", "length", "context"]
"""Why a completion ended: the end token was sampled, `max_tokens` was reached, or the context was full."""

Status = Literal["done", "truncated", "fault"]
"""How an episode ended: by the rules, by a limit (context, number of turns), or by an infrastructure fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """Where an episode was forked from another."""

    episode: str
    """Id of the parent episode's match."""
    turn: int
    """First turn that was played anew."""
    token: int | None = None
    """First token of that turn that was sampled anew; None when the turn started afresh."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """An episode to be played, as pure data."""

    id: str
    """Unique within a run, for example `s12/g3/m1` (step, group, member)."""
    game: str
    """Name of the game, as `games.make` takes it: `kuhn_poker`, `openspiel:nim`, or `package.module:env`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the game."""
    seed: int
    """Fixes the deal, the turn order and every later draw of the game, and the sampling of every reply."""
    group: str
    """Matches of one group have the same game, settings and game seed, so that their returns can be compared."""
    seats: Mapping[str, str]
    """Agent, or a pattern such as `player_*`, to the name of the policy that sits there."""
    member: int = 0
    """Number within the group: game draws come from `seed` alone, reply sampling from (`seed`, `member`)."""
    label: str = ""
    """What the experiment calls the game, where it trains on several; empty: `game` says it all."""
    branch: Branch | None = None
    """Where it forks from another episode, if it does."""
    played: "tuple[Turn, ...]" = field(default=(), compare=False)
    """The turns before the fork: they are played again as they were, and not written to disk with the match."""
    begun: "Completion | None" = field(default=None, compare=False)
    """What the reply of the first turn after the fork begins with; not written to disk with the match either."""
    concluding: bool = False
    """Whether the thought of that reply ends with `begun`, if it does not end in it. Only of what is not learned from,
    and so not written to disk; neither is `muted`."""
    muted: Mapping[str, str | None] = field(default_factory=dict)
    """Agents that are not asked, each with the action that it takes in all turns after the fork; None: a reply that
    cannot be read."""

    @property
    def title(self) -> str:
        """By what credit and metrics keep games apart: two sizes of one game are two."""
        return self.label or self.game

    @property
    def begins(self) -> int:
        """Index of the first turn that is its own, and not that of the episode it forks from."""
        return self.branch.turn if self.branch else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What an engine returns for one request. All three tuples have one entry per sampled token."""

    tokens: Tokens
    """Sampled token ids, the end token included when it was sampled."""
    logprobs: tuple[float, ...]
    """Log-probabilities (nats) of the distribution that the tokens were drawn from, temperature included."""
    stop: Stop
    """Why sampling ended."""
    versions: tuple[int, ...]
    """Version of the weights that each token was sampled with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One decision of one agent."""

    agent: str
    """PettingZoo's agent id, for example `player_0`."""
    role: str
    """What the agent is doing in this turn; by default its own id."""
    policy: str
    """Name of the policy that decided."""
    observation: str
    """The text that the agent saw in this turn."""
    legal_actions: tuple[str, ...] | None = None
    """The actions that the game would have accepted; None when any text is an action."""
    prompt: Tokens | None = None
    """The exact tokens that the policy's model read; None for a policy without a model."""
    completion: Completion | None = None
    """What was sampled; None for a policy without a model, or when no room was left to reply."""
    reply: str
    """The reply as text."""
    action: str | None
    """The action read from the reply; None when none could be read."""
    legal: bool | None
    """Whether the game accepted the action, as reported by the game; None when it was never put to the game,
    because the reply was cut off by a full context."""
    rewards: Mapping[str, float | None] = field(default_factory=dict)
    """Reward by named part. None marks a part that was due and could not be measured: it is not a zero."""
    parent: int | None = None
    """Index of the turn that called this one, in the same episode."""
    state_key: str | None = None
    """Equal keys mean equal decision problems (an information state); None when the game has no keys."""
    weight: float = 1.0
    """Weight of this turn in the loss."""
    begun: int = 0
    """Sampled tokens that stood there before the fork: they are another episode's to learn from."""
    probes: Mapping[str, float] = field(default_factory=dict)
    """Values that a credit method measured for this turn."""
    token_probes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Values that a credit method measured for each sampled token of this turn; NaN where it did not."""

    @property
    def num_sampled(self) -> int:
        """Tokens that were sampled in it."""
        return len(self.completion.tokens) - self.begun if self.completion is not None else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """A finished match."""

    match: Match
    """What was asked for."""
    turns: tuple[Turn, ...]
    """Every decision, in play order."""
    returns: Mapping[str, float]
    """Sum of the rewards that the game gave each agent, rewards that no turn of the agent could take included."""
    status: Status = "done"
    """How it ended."""
    note: str = ""
    """Why it was truncated or at fault, in words; empty when done."""
    hidden: Mapping[str, Any] = field(default_factory=dict)
    """What no policy may see, for example the gold answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """The tokens of one turn that carry loss inside a `Sample`: `tokens[start : start + length]`."""

    start: int
    """Index of the first of them; at least 1, since nothing predicts the first token of a sequence."""
    length: int
    """How many they are."""
    logprobs: tuple[float, ...] | None = None
    """Behaviour log-probabilities (nats), one per token; None in a demonstration, which nobody sampled."""
    advantages: tuple[float, ...] | None = None
    """Advantages, one per token; None in a demonstration."""
    role: str
    """Role of the turn."""
    turn: int
    """Index of the turn in its episode."""
    weight: float = 1.0
    """Weight of the turn in the loss."""
    versions: tuple[int, ...] | None = None
    """Weight version of each token; None when unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One training sequence of one policy. Only the tokens inside `spans` carry loss."""

    policy: str
    """Whose weights it trains."""
    game: str
    """Name of the game."""
    episode: str
    """Id of the match it was played in."""
    agent: str
    """Agent whose view the sequence is."""
    tokens: Tokens
    """Everything the model read or wrote, in order."""
    spans: tuple[Span, ...]
    """The sampled parts, in order, without overlap."""
