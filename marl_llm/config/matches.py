"""Settings of the run, of the games, of how they are played and of who meets whom."""

from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from marl_llm.config.branches import BranchesConfig, TreeConfig
from marl_llm.config.require import require


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run writes, how long it is and how often it saves."""

    name: str = "run"
    """First part of the run directory's name."""
    dir: str = "runs"
    """Folder in which run directories are made."""
    seed: int = 0
    """Fixes every random draw of the run."""
    steps: int = 100
    """Number of training steps."""
    checkpoint_every: int = 50
    """Steps between checkpoints; the first and the last step are always saved."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints stay on disk, besides that of step 0."""
    tokens: bool = True
    """Log token ids, log-probabilities and versions in the episode files."""
    threads: int | None = None
    """Threads for tensor operations; None leaves PyTorch's choice. Part of what makes runs bit-identical."""

    def __post_init__(self) -> None:
        require("/" not in self.name, "run.name", self.name, "a name without /; run.dir says where")
        require(self.steps >= 0, "run.steps", self.steps, "0 or more")
        require(self.checkpoint_every >= 1, "run.checkpoint_every", self.checkpoint_every, "1 or more")
        require(self.keep_checkpoints >= 1, "run.keep_checkpoints", self.keep_checkpoints, "1 or more")
        require(self.threads is None or self.threads >= 1, "run.threads", self.threads, "null or 1 or more")


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """Which game is played."""

    name: str = "kuhn_poker"
    """A game of ours, or one of the other forms that `marl-llm games list` shows."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the game."""


@dataclass(frozen=True, kw_only=True)
class PlayedGame(GameConfig):
    """A game of an experiment: how much of it is trained on, and how it is evaluated."""

    name: str = field()
    """As in `GameConfig`."""
    share: float = 1.0
    """Part of a step's groups, relative to the other games'; 0: held out, evaluated and never trained on."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings of the matches that are trained on, where they differ from `settings`, which are evaluated."""
    seats: dict[str, str] | None = None
    """As `matchmaking.seats`, for this game; None: those."""
    opponents: list[str] | None = None
    """As `evaluation.opponents`, for this game; None: those."""

    def __post_init__(self) -> None:
        require(0 <= self.share < inf, "games.share", self.share, "0 or more")

    @property
    def trained(self) -> GameConfig:
        """The game of the matches that are trained on."""
        return GameConfig(name=self.name, settings={**self.settings, **self.training})


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Games that are being learned get more of the groups (learning progress; arXiv 1707.00183)."""

    floor: float = 0.1
    """Part of the groups that is dealt out by `share` alone, so that no game is forgotten."""
    fast: float = 0.3
    """Weight of the newest step in the quick moving average of a game's returns."""
    slow: float = 0.03
    """Its weight in the slow one; their distance is the progress."""

    def __post_init__(self) -> None:
        require(0 < self.floor <= 1, "curriculum.floor", self.floor, "more than 0, at most 1")
        require(0 < self.slow < self.fast <= 1, "curriculum.slow", self.slow, "more than 0 and less than fast")


Answers = Literal["tagged", "plain"]


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """How policies see the game and answer."""

    context: Literal["turn", "dialogue"] = "turn"
    """`turn`: rules and current state only. `dialogue`: the seat's whole conversation, append-only."""
    thinking: bool = False
    """Whether text may stand before the answer tag; it is trained like the rest of the reply."""
    answers: Answers = "tagged"
    """`tagged`: the action stands in `<answer>...</answer>`. `plain`: where a game lists no legal actions, the whole
    reply without its thinking is the action, and no tags are asked for; for models that were never taught them."""
    max_reply_tokens: int = 16
    """Limit of sampled tokens per turn."""
    context_tokens: int = 256
    """Limit of prompt and reply tokens together."""
    max_turns: int = 1000
    """Turns after which an episode is cut off as truncated."""
    on_fault: Literal["continue", "stop"] = "continue"
    """What an episode that ends at fault, because an endpoint fails for good, does to training: `continue` leaves it
    out of everything."""
    max_faults: float = 0.1
    """Share of a step's episodes at fault above which training stops all the same."""
    tree: TreeConfig | None = None
    """Forks of a step's episodes, which are credited and learned from with them; None: none."""
    replays: int = 0
    """How often each call of a sub-agent is left out: its caller plays on without the result, and the reward part
    `difference` of the call is what the caller's return loses by that. Training only; 0: never."""
    branches: BranchesConfig = field(default_factory=BranchesConfig)
    """What else is played to find out what turns, tokens and agents are worth."""
    probe: list[str] = field(default_factory=list)
    """Roles whose turns get the probabilities of their legal actions as probes, for rewards that need them."""
    rewards: str | None = None
    """`module:function(Episode) -> {turn index: {part: value}}`: reward parts added to the game's own."""

    def __post_init__(self) -> None:
        require(self.max_reply_tokens >= 1, "play.max_reply_tokens", self.max_reply_tokens, "1 or more")
        require(
            self.context_tokens > self.max_reply_tokens,
            "play.context_tokens",
            self.context_tokens,
            f"more than play.max_reply_tokens ({self.max_reply_tokens})",
        )
        require(self.replays >= 0, "play.replays", self.replays, "0 or more")
        twice = self.replays and self.branches.coalitions and "difference" in self.branches.coalitions.parts
        require(not twice, "play.replays", self.replays, "0 where play.branches.coalitions has the part difference too")
        if self.branches.budgets is not None:
            require(self.thinking, "play.branches.budgets", self.branches.budgets.tokens, "null without play.thinking")
            require(
                self.branches.budgets.tokens[-1] < self.max_reply_tokens,
                "play.branches.budgets.tokens",
                self.branches.budgets.tokens,
                f"less than play.max_reply_tokens ({self.max_reply_tokens})",
            )
        require(self.max_turns >= 1, "play.max_turns", self.max_turns, "1 or more")
        require(0 <= self.max_faults < 1, "play.max_faults", self.max_faults, "from 0 to less than 1")
        require(
            self.rewards is None or ":" in self.rewards,
            "play.rewards",
            self.rewards,
            "null or module:function",
        )


@dataclass(frozen=True, kw_only=True)
class ExploiterConfig:
    """A policy that only learns to beat: its snapshots join the pool, then it begins anew."""

    share: float = 0.25
    """Share of a step's groups that it plays; the trained policy, where it meets that, learns from them too."""
    against: Literal["main", "league"] = "main"
    """`main`: the trained policy as it is now. `league`: a member of the pool."""
    reset_every: int = 50
    """Steps after which a snapshot of it joins the pool and it goes back to its weights of step 0."""

    def __post_init__(self) -> None:
        require(0 <= self.share <= 1, "exploiter.share", self.share, "between 0 and 1")
        require(self.reset_every >= 1, "exploiter.reset_every", self.reset_every, "1 or more")


@dataclass(frozen=True, kw_only=True)
class LeagueConfig:
    """A pool of opponents that do not learn, drawn by how they fare against the trained policy (PFSP)."""

    every: int = 25
    """Steps between snapshots of the trained policy that join the pool; the first is that of step 0."""
    keep: int = 16
    """Most snapshots in the pool: whom the trained policy beats most easily leaves first, of equals the oldest. Their
    weights stay in the run directory."""
    members: list[str] = field(default_factory=list)
    """Policies that are always in the pool, by name."""
    share: float = 0.5
    """Share of a step's groups that are played against the pool; the rest is played as `matchmaking.seats` says."""
    weighting: Literal["hard", "even", "uniform"] = "hard"
    """How likely a member is met whom one beats with probability p: (1 - p)^2, p (1 - p), or all alike."""
    per_step: int = 2
    """Most members met in a step, by each policy that meets the pool: so many engines for snapshots are needed."""
    memory: float = 256.0
    """Games after which a result counts half in the win rates."""
    exploiters: dict[str, ExploiterConfig] = field(default_factory=dict)
    """Further policies that learn, by name; they have no seat in `matchmaking.seats`."""

    def __post_init__(self) -> None:
        for name in ("every", "keep", "per_step"):
            require(getattr(self, name) >= 1, f"league.{name}", getattr(self, name), "1 or more")
        require(0 <= self.share <= 1, "league.share", self.share, "between 0 and 1")
        require(self.memory > 0, "league.memory", self.memory, "more than 0")
        shares = self.share + sum(exploiter.share for exploiter in self.exploiters.values())
        require(shares <= 1, "league.share", self.share, "at most 1 together with the shares of the exploiters")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """How a step's games are shared out among its groups, and which groups are learned from.

    DAPO's dynamic sampling is `{keep: spread, max_batches: 10}`; PRIME's filter `{keep: between, max_batches: 4}`;
    SPEAR's `{keep: top}`; Knapsack RL `{sizes: knapsack}` with `deals`; XRPO's rollouts `{sizes: xrpo}`.
    """

    sizes: Literal["equal", "knapsack", "xrpo"] = "equal"
    """`equal`: `group_size` games each. In the others that is the mean: `knapsack` deals them out by how often a deal
    succeeded when it came last (arXiv 2509.25849); `xrpo` plays `least` each, and then adds games where the mean of
    the returns is least certain (arXiv 2510.06672)."""
    keep: Literal["all", "spread", "between", "top"] = "all"
    """Groups that are learned from. `spread`: those with unequal returns in a role that learns, or with one game (DAPO,
    arXiv 2503.14476). `between`: whose mean success is within those bounds (PRIME, arXiv 2502.01456). `top`: that part
    of them with the largest standard deviation (SPEAR, arXiv 2509.22601)."""
    between: list[float] = field(default_factory=lambda: [0.2, 0.8])
    """Least and greatest mean success of a group, both allowed; with `keep: between`."""
    top: float = 0.75
    """Part of the groups; with `keep: top`."""
    max_batches: int = 1
    """Groups that are not kept are replaced by further ones until there are `groups`, or so many batches were played;
    with `sizes: equal`."""
    success: float | None = None
    """A game is a success (1) if the return is above this, else 0; None: the return itself, on the scale from 0 to 1 of
    the game's utility range."""
    least: int = 2
    """Fewest games of a group; `xrpo`: those that it begins with."""
    most: int = 128
    """Most games of a group."""
    phase: int | None = None
    """Games that `xrpo` adds at a time, before it looks again; None: as many as there are groups."""
    exploration: float = 1.0
    """Weight in `xrpo` of groups that had few games."""
    alpha: float = 0.05
    """1 less the confidence of the interval that `xrpo` makes narrower."""

    def __post_init__(self) -> None:
        bounds = len(self.between) == 2 and 0 <= self.between[0] <= self.between[1] <= 1
        require(bounds, "budget.between", self.between, "[LOW, HIGH] with 0 <= LOW <= HIGH <= 1")
        require(0 < self.top <= 1, "budget.top", self.top, "more than 0, at most 1")
        require(self.max_batches >= 1, "budget.max_batches", self.max_batches, "1 or more")
        require(self.least >= 1, "budget.least", self.least, "1 or more")
        require(self.most >= self.least, "budget.most", self.most, f"budget.least ({self.least}) or more")
        require(self.phase is None or self.phase >= 1, "budget.phase", self.phase, "null or 1 or more")
        require(0 <= self.exploration < inf, "budget.exploration", self.exploration, "0 or more")
        require(0 < self.alpha < 1, "budget.alpha", self.alpha, "between 0 and 1")
        if self.max_batches > 1:
            allowed = "1 with budget.keep: all, where every group is kept"
            require(self.keep != "all", "budget.max_batches", self.max_batches, allowed)
            require(self.sizes == "equal", "budget.max_batches", self.max_batches, f"1 with budget.sizes: {self.sizes}")

    @property
    def in_turn(self) -> bool:
        """Whether more is begun when some of a step has been played."""
        return self.max_batches > 1 or self.sizes == "xrpo"


@dataclass(frozen=True, kw_only=True)
class MatchmakingConfig:
    """Who plays whom, on which seed, how often."""

    groups: int = 32
    """Groups (deals) per step, over all games."""
    group_size: int = 8
    """Matches per group; all share the game seed."""
    seats: dict[str, str] = field(default_factory=lambda: {"*": "agent"})
    """Agent id or pattern to the name of a policy; the agent's own id decides, else the first pattern that fits."""
    swap_seats: bool = False
    """Whether the members of a group move on by one seat each, so that everybody has every seat equally often."""
    league: LeagueConfig | None = None
    """Opponents besides those in `seats`; None: none."""
    curriculum: CurriculumConfig | None = None
    """How the games' parts follow what is being learned; None: they are the games' shares throughout."""
    deals: int | None = None
    """Different deals (game seeds) of each game that are trained on, in a new order on every pass through them; None:
    no deal comes twice."""
    budget: BudgetConfig | None = None
    """How games are shared out among groups, and which are learned from; None: equally, and all."""

    def __post_init__(self) -> None:
        require(self.groups >= 1, "matchmaking.groups", self.groups, "1 or more")
        require(self.group_size >= 1, "matchmaking.group_size", self.group_size, "1 or more")
        require(bool(self.seats), "matchmaking.seats", self.seats, "at least one seat")
        require(self.deals is None or self.deals >= 1, "matchmaking.deals", self.deals, "null or 1 or more")
        if self.budget is not None and self.budget.sizes != "equal":
            self._check_sizes(self.budget)

    def _check_sizes(self, budget: BudgetConfig) -> None:
        key, size, sizes = "matchmaking.group_size", self.group_size, budget.sizes
        allowed = f"from budget.least to budget.most ({budget.least} to {budget.most}), since it is the mean"
        require(budget.least <= size <= budget.most, key, size, allowed)
        require(not self.swap_seats, "matchmaking.swap_seats", True, f"false with budget.sizes: {sizes}")
        if sizes == "knapsack":
            allowed = "a number with budget.sizes: knapsack, which goes by deals that come back"
            require(self.deals is not None, "matchmaking.deals", self.deals, allowed)
