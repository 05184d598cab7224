"""Settings of an experiment as a whole, of its evaluation and of its alarms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any, Literal, get_args

from marl_llm.config.cluster import ClusterConfig
from marl_llm.config.matches import LeagueConfig, MatchmakingConfig, PlayConfig, PlayedGame, RunConfig
from marl_llm.config.policies import PolicyConfig, ScriptedKind
from marl_llm.config.require import require
from marl_llm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured, and when."""

    every: int = 25
    """Steps between evaluations during training; 0: only before and after."""
    exploitability: bool = True
    """Whether to compute it; only for two-player zero-sum games whose information states can be listed."""
    samples: int = 64
    """Sampled replies per information state where the policy thinks first (an estimate)."""
    best_response: int = 0
    """Simulations per seat of the search for a response that beats the policy, before and after; 0: none. What it
    wins is a lower bound of the exploitability, or exactly that where the positions of the game can be listed."""
    games: int = 1000
    """Games per opponent and seat, before and after."""
    games_during: int = 0
    """Games per opponent and seat every `every` steps, held-out games included; 0: none."""
    team: bool = False
    """Whether to play as many games, then and during, with everybody in the seat that `matchmaking.seats` gives."""
    opponents: list[str] = field(default_factory=list)
    """Policies to meet, by name; `start` is the policy as it was at step 0."""

    def __post_init__(self) -> None:
        for name in ("every", "best_response", "games", "games_during"):
            require(getattr(self, name) >= 0, f"evaluation.{name}", getattr(self, name), "0 or more")
        require(self.samples >= 1, "evaluation.samples", self.samples, "1 or more")


@dataclass(frozen=True, kw_only=True)
class AlarmConfig:
    """Thresholds on the means of a run's last steps, past which a person is told; None turns that alarm off."""

    window: int = 10
    """Steps whose mean is looked at; before there are so many, there are no alarms."""
    illegal_moves: float | None = 0.1
    """Largest share of turns with an illegal move."""
    role_skew: float | None = 0.9
    """Largest difference between the win rates of two roles (a draw is half a win); 1: one of them wins every game."""
    reply_collapse: float | None = 0.5
    """Smallest mean length of a reply, as a multiple of that of the run's first `window` steps."""
    reply_explosion: float | None = 3.0
    """Largest mean length of a reply, as a multiple of that of the run's first `window` steps."""
    entropy_collapse: float | None = 0.001
    """Smallest mean entropy (nats per sampled token) of a policy that learns."""
    identical_replies: float | None = 0.9
    """Largest share of replies, over different observations with a choice, that is one and the same text. For None in
    a game where one action is best everywhere, such as cooperation in a repeated dilemma."""
    no_credit: float | None = 0.99
    """Largest share of turns to learn from whose advantage is 0."""
    score_drift: float | None = 0.3
    """Largest change, either way, of the mean score (0 to 1) that judges give, from that of the run's first `window`
    steps."""
    unanimity: float | None = 0.95
    """Largest share of scores that are full marks, or that are the lowest mark."""
    precision_fall: float | None = 0.2
    """Largest fall of the share of full marks that are given rightly, from that of the run's first `window` steps."""

    def __post_init__(self) -> None:
        require(self.window >= 1, "alarms.window", self.window, "1 or more")
        for name, low, high, allowed in (
            ("illegal_moves", 0, 1, "null or between 0 and 1"),
            ("role_skew", 0, 1, "null or between 0 and 1"),
            ("reply_collapse", 0, 1, "null or between 0 and 1"),
            ("reply_explosion", 1, inf, "null or 1 or more"),
            ("entropy_collapse", 0, inf, "null or 0 or more"),
            ("identical_replies", 0, 1, "null or between 0 and 1"),
            ("no_credit", 0, 1, "null or between 0 and 1"),
            ("score_drift", 0, 1, "null or between 0 and 1"),
            ("unanimity", 0, 1, "null or between 0 and 1"),
            ("precision_fall", 0, 1, "null or between 0 and 1"),
        ):
            value = getattr(self, name)
            require(value is None or low <= value <= high, f"alarms.{name}", value, allowed)


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Where credited groups wait for their learners, so that each learns at its own pace (`learner.groups`)."""

    kind: Literal["memory", "sqlite"] = "memory"
    """`memory`: with the process; `sqlite`: in a file of the run directory. The result is the same."""
    max_groups: int = 256
    """Most groups that wait for one policy's learner; where there are so many, it learns before more are taken in."""
    max_staleness: int | None = None
    """Updates that a policy may have had since a group was sampled; an older group is dropped, and counted. None: no
    group is too old."""

    def __post_init__(self) -> None:
        require(self.max_groups >= 1, "store.max_groups", self.max_groups, "1 or more")
        require(
            self.max_staleness is None or self.max_staleness >= 0,
            "store.max_staleness",
            self.max_staleness,
            "null or 0 or more",
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    run: RunConfig = field(default_factory=RunConfig)
    """Where and how long."""
    games: dict[str, PlayedGame] = field(default_factory=lambda: {"game": PlayedGame(name="kuhn_poker")})
    """All games, by a name of your choice that metrics and results use. The first is the one that a person plays."""
    play: PlayConfig = field(default_factory=PlayConfig)
    """How it is played."""
    matchmaking: MatchmakingConfig = field(default_factory=MatchmakingConfig)
    """Who plays whom."""
    policies: dict[str, PolicyConfig] = field(default_factory=lambda: {"agent": PolicyConfig()})
    """All policies, by name."""
    credit: Any = "mars"
    """Credit recipe: a name in `configs/credit/`, the path of a YAML file, or the recipe itself."""
    store: StoreConfig | None = None
    """Where groups wait for their learners; None: every step's are learned from at once."""
    runtime: Literal["local", "ray"] = "local"
    """`local`: everything in this process. `ray`: as `cluster` says, in many."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Processes, where they are and how far apart they may be in time; only with `runtime: ray`."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is measured."""
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    """When a person is told."""
    variants: dict[str, list[str]] = field(default_factory=dict)
    """Other forms of the experiment, such as ablations: name to `key=value` changes. A sweep runs them all too."""

    @property
    def trained_games(self) -> dict[str, PlayedGame]:
        """The games that are trained on."""
        return {name: game for name, game in self.games.items() if game.share}

    def seats(self, game: str) -> Mapping[str, str]:
        """Who sits where in the game: agent id or pattern to policy."""
        own = self.games[game].seats
        return self.matchmaking.seats if own is None else own

    def opponents(self, game: str) -> Sequence[str]:
        """Whom the trained policy meets in evaluations of the game."""
        own = self.games[game].opponents
        return self.evaluation.opponents if own is None else own

    def __post_init__(self) -> None:
        known = sorted(self.policies)
        require(bool(self.trained_games), "games", sorted(self.games), "at least one game with a share above 0")
        self._check_seats("matchmaking.seats", self.matchmaking.seats)
        self._check_opponents("evaluation.opponents", self.evaluation.opponents)
        for game, played in self.games.items():
            self._check_seats(f"games.{game}.seats", played.seats or {})
            self._check_opponents(f"games.{game}.opponents", played.opponents or [])
        if self.matchmaking.league is not None:
            self._check_league(self.matchmaking.league)
        if self.runtime == "ray":
            self._check_cluster(self.cluster)
        for name, policy in self.policies.items() if self.runtime == "local" else ():
            count = policy.learner.processes
            require(count == 1, f"policies.{name}.learner.processes", count, "1 where runtime is local")
        for name, policy in self.policies.items() if self.runtime == "ray" else ():
            allowed = "null where runtime is ray: a critic is with its learner in the process that credits"
            require(policy.critic is None, f"policies.{name}.critic", "a section", allowed)
        for name, policy_config in self.policies.items():
            self._check_pace(f"policies.{name}.learner.groups", policy_config.learner.groups)
            again = policy_config.learner.replay is None or self.store is None
            require(again, f"policies.{name}.learner.replay", "a section", "null where there is a store")
            warmup = policy_config.warmup
            taught = warmup is not None or policy_config.tiny.texts == "random"
            require(taught, f"policies.{name}.tiny.texts", policy_config.tiny.texts, "random where there is no warmup")
            if warmup is not None:
                scripted = [k for k in known if self.policies[k].kind in get_args(ScriptedKind)]
                allowed = f"one of the scripted policies: {scripted}"
                require(warmup.teacher in scripted, f"policies.{name}.warmup.teacher", warmup.teacher, allowed)
                for game, teacher in warmup.teachers.items():
                    key = f"policies.{name}.warmup.teachers.{game}"
                    require(game in self.games, key, game, f"about one of games: {sorted(self.games)}")
                    require(teacher in scripted, key, teacher, allowed)
                imitated = sorted(self.teachers(name))
                for game in warmup.shares:
                    allowed = f"a game that is imitated: {imitated}"
                    require(game in imitated, f"policies.{name}.warmup.shares", game, allowed)
                if policy_config.kind != "llm":
                    raise ConfigError(f"policies.{name}.warmup: only a policy of kind llm is warmed up")
            if policy_config.base is not None:
                self._check_base(name, policy_config, policy_config.base)

    def _check_base(self, name: str, policy: PolicyConfig, base: str) -> None:
        models = sorted(n for n, other in self.policies.items() if other.kind == "llm" and other.base is None)
        allowed = f"one of the policies of kind llm with a model of their own: {models}"
        require(base in models, f"policies.{name}.base", base, allowed)
        shared = self.policies[base]
        if shared.learns and shared.lora is None:
            raise ConfigError(
                f"policies.{base}.trainable: True is not allowed; it must be false, or {base} must have a lora section "
                f"too, since {name} is based on it and its weights must stay as they are"
            )
        device, ours = shared.learner.device, policy.learner.device
        require(
            ours == device,
            f"policies.{name}.learner.device",
            ours,
            f"that of {base}, whose weights it shares: {device}",
        )
        if "vllm" in (policy.engine.kind, shared.engine.kind):
            same = policy.engine == shared.engine
            require(same, f"policies.{name}.engine", policy.engine.kind, f"that of {base}, as one vLLM plays both")

    def _check_cluster(self, cluster: ClusterConfig) -> None:
        learning = sorted(name for name, policy in self.policies.items() if policy.learns)
        for name in cluster.learners:
            require(name in learning, "cluster.learners", name, f"one of the policies that learn: {learning}")
        awake = sorted(
            n for n, policy in self.policies.items() if policy.kind == "llm" and policy.engine.kind != "vllm"
        )
        if cluster.colocate:
            allowed = f"false where an engine cannot sleep: {awake}"
            require(not awake, "cluster.colocate", True, allowed)
            require(not cluster.evaluators, "cluster.evaluators", cluster.evaluators, "0 with cluster.colocate")
        budget = self.matchmaking.budget
        if budget is not None:
            allowed = "sync with matchmaking.budget, which goes by what has been played"
            require(cluster.mode == "sync", "cluster.mode", cluster.mode, allowed)
            allowed = "false with a matchmaking.budget that begins games when engines are asleep already"
            require(not (cluster.colocate and budget.in_turn), "cluster.colocate", cluster.colocate, allowed)
        if cluster.mode != "sync" and self.evaluation.every:
            allowed = f"1 with cluster.mode {cluster.mode}, since workers play on while policies are measured"
            require(cluster.evaluators == 1, "cluster.evaluators", cluster.evaluators, allowed)

    def teachers(self, policy: str) -> dict[str, str]:
        """Game to whom the policy imitates there in its warm-up; empty without one."""
        warmup = self.policies[policy].warmup
        return {} if warmup is None else dict.fromkeys(self.trained_games, warmup.teacher) | warmup.teachers

    def updates(self, policy: str) -> int:
        """How often the policy's learner learns in the whole run, if it plays in every group and none is dropped."""
        pace = self.policies[policy].learner.groups
        return self.run.steps if pace is None else ceil(self.run.steps * self.matchmaking.groups / pace)

    def _check_pace(self, key: str, groups: int | None) -> None:
        if groups is not None:
            require(self.store is not None, key, groups, "null where there is no store")
            assert self.store is not None
            require(groups <= self.store.max_groups, key, groups, f"at most store.max_groups ({self.store.max_groups})")

    def _check_seats(self, key: str, seats: Mapping[str, str]) -> None:
        for seat, policy in seats.items():
            require(policy in self.policies, f"{key}.{seat}", policy, f"one of policies: {sorted(self.policies)}")

    def _check_opponents(self, key: str, opponents: Sequence[str]) -> None:
        for policy in opponents:
            allowed = f"one of policies: {sorted(self.policies)}, or start"
            require(policy in self.policies or policy == "start", key, policy, allowed)

    def _check_league(self, league: LeagueConfig) -> None:
        learning = [name for name, policy in self.policies.items() if policy.learns]
        seats = {policy for game in self.trained_games for policy in self.seats(game).values()}
        seated = sorted(seats & set(learning))
        require(len(seated) == 1, "matchmaking.seats", seated, "one policy that learns, where there is a league")
        if self.store is not None:  # what waits was sampled by the weights that an exploiter gives up
            allowed = "{} where there is a store"
            require(not league.exploiters, "matchmaking.league.exploiters", sorted(league.exploiters), allowed)
        others = sorted(self.policies.keys() - learning)
        for name in league.members:
            require(name in others, "matchmaking.league.members", name, f"one of those that do not learn: {others}")
        free = sorted({*learning} - {*seated})
        for name in league.exploiters:
            allowed = f"one of those that learn and have no seat: {free}"
            require(name in free, "matchmaking.league.exploiters", name, allowed)
            replays = self.policies[name].learner.replay is not None  # of weights that it gives up
            require(not replays, f"policies.{name}.learner.replay", "a section", "null in an exploiter")
        for name in learning:  # snapshots are called NAME@STEP, as folders too
            require(not {"@", "/"} & set(name), "policies", name, "a name without @ and /, where there is a league")
