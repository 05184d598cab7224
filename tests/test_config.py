"""Settings: defaults, files, overrides, and a clear line for everything that is wrong."""

import ast
from dataclasses import is_dataclass, replace
from pathlib import Path

import pytest

from marl_llm import config as config_module
from marl_llm.config import (
    ClusterConfig,
    Config,
    EvaluationConfig,
    LeagueConfig,
    LearnerConfig,
    MatchmakingConfig,
    PlayedGame,
    PolicyConfig,
    RunConfig,
    WarmupConfig,
    load_config,
    require_same_settings,
    to_yaml,
)
from marl_llm.errors import ConfigError

ROOT = Path(__file__).parents[1]


def load(folder: Path, text: str, *overrides: str) -> Config:
    (folder / "c.yaml").write_text(text)
    return load_config(folder / "c.yaml", overrides)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "{}") == Config()


def test_a_file_and_then_overrides_change_the_defaults(tmp_path: Path) -> None:
    config = load(
        tmp_path, "run: {seed: 1, steps: 5}", "run.seed=2", "policies.agent.learner.lr=0", "games.game.name=a:b"
    )
    assert config.run == RunConfig(seed=2, steps=5)
    assert config.policies == {"agent": PolicyConfig(learner=LearnerConfig(lr=0.0))}
    assert config.games["game"].name == "a:b"


def test_settings_of_a_game_and_options_of_a_player_are_free(tmp_path: Path) -> None:
    text = "games: {game: {name: x, settings: {players: 3, deck: [J, Q]}}}\n"
    text += "policies: {agent: {kind: mcts, options: {simulations: 8}}}"
    config = load(tmp_path, text)
    assert config.games["game"].settings == {"players": 3, "deck": ["J", "Q"]}
    assert config.policies["agent"].options == {"simulations": 8}


def test_policies_and_seats_of_a_file_replace_the_default_ones(tmp_path: Path) -> None:
    text = "policies: {a: {}, b: {kind: random}}\nmatchmaking: {seats: {player_0: a, 'player_*': b}}"
    config = load(tmp_path, text, "policies.b.temperature=2", "matchmaking.seats.player_9=a")
    assert list(config.policies) == ["a", "b"]
    assert list(config.matchmaking.seats.items()) == [("player_0", "a"), ("player_*", "b"), ("player_9", "a")]


def test_games_and_policies_given_as_a_whole_replace_those_of_the_file(tmp_path: Path) -> None:
    text = "games: {kuhn: {name: kuhn_poker}}\npolicies: {a: {}, b: {}}\nmatchmaking: {seats: {'*': a}}"
    config = load(tmp_path, text, "games={mine: {name: 'a:b'}}", "games.mine.share=2", "policies={a: {kind: random}}")
    assert config.games == {"mine": PlayedGame(name="a:b", share=2)}
    assert config.policies == {"a": PolicyConfig(kind="random")}
    config = load(tmp_path, text, "matchmaking.seats={player_0: b}", "matchmaking.seats.player_1=a")
    assert config.matchmaking.seats == {"player_0": "b", "player_1": "a"}


def test_a_credit_recipe_may_be_a_name_or_stand_in_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, "credit: grpo").credit == "grpo"
    assert load(tmp_path, "credit: {stages: [{center: [group]}]}").credit == {"stages": [{"center": ["group"]}]}


TWO_GAMES = (
    "games: {kuhn: {name: kuhn_poker}, board: {name: tic_tac_toe, share: 0, opponents: [start], seats: {'*': b}}}\n"
)
TWO_GAMES += "policies: {a: {}, b: {kind: random}}\nmatchmaking: {seats: {'*': a}}\nevaluation: {opponents: [b]}"


def test_a_game_may_have_seats_and_opponents_of_its_own_and_be_held_out(tmp_path: Path) -> None:
    config = load(tmp_path, TWO_GAMES)
    assert list(config.games) == ["kuhn", "board"], "they replace the default game"
    assert list(config.trained_games) == ["kuhn"]
    assert (config.seats("kuhn"), config.seats("board")) == ({"*": "a"}, {"*": "b"})
    assert (config.opponents("kuhn"), config.opponents("board")) == (["b"], ["start"])


def test_the_settings_of_training_are_those_of_the_game_with_changes() -> None:
    game = PlayedGame(name="x", settings={"a": 1, "b": 2}, training={"b": 3, "c": 4})
    assert (game.trained.name, game.trained.settings) == ("x", {"a": 1, "b": 3, "c": 4})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("games.kuhn.share=0", r"games: \['board', 'kuhn'\] is not allowed; it must be at least one game with a share"),
        ("games.kuhn.share=-1", r"games.share: -1.0 is not allowed"),
        ("games.kuhn.seats={player_0: c}", r"games.kuhn.seats.player_0: 'c' is not allowed; .*\['a', 'b'\]"),
        ("games.board.opponents=[c]", r"games.board.opponents: 'c' is not allowed; .*, or start"),
        ("games.third={share: 1}", r"games.third.name"),
        (
            "policies.a.warmup={teacher: b, teachers: {chess: b}}",
            r"warmup.teachers.chess: 'chess' .*\['board', 'kuhn'\]",
        ),
        (
            "policies.a.warmup={teacher: b, teachers: {kuhn: a}}",
            r"warmup.teachers.kuhn: 'a' .* scripted policies: \['b'\]",
        ),
        ("matchmaking.curriculum={slow: 0.5}", r"curriculum.slow: 0.5 is not allowed; it must be .* less than fast"),
        ("matchmaking.curriculum={floor: 0}", r"curriculum.floor: 0.0 is not allowed"),
    ],
)
def test_what_is_wrong_with_several_games_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, TWO_GAMES, override)


def test_a_warm_up_of_who_has_no_model_is_refused() -> None:
    policies = {
        "a": PolicyConfig(kind="noisy", warmup=WarmupConfig(teacher="b")),
        "b": PolicyConfig(kind="random"),
    }
    with pytest.raises(ConfigError, match=r"policies\.a\.warmup: only a policy of kind llm"):
        Config(policies=policies, matchmaking=MatchmakingConfig(seats={"*": "a"}))


def test_a_league_is_about_one_policy_that_learns_with_a_name_for_folders() -> None:
    two = {"a": PolicyConfig(), "b": PolicyConfig()}
    seats = {"player_0": "a", "player_1": "b"}
    with pytest.raises(ConfigError, match=r"matchmaking.seats: \['a', 'b'\] .* one policy that learns, where there is"):
        Config(policies=two, matchmaking=MatchmakingConfig(seats=seats, league=LeagueConfig()))
    making = MatchmakingConfig(seats={"*": "a@1"}, league=LeagueConfig())
    with pytest.raises(ConfigError, match="policies: 'a@1' is not allowed; it must be a name without @ and /"):
        Config(policies={"a@1": PolicyConfig()}, matchmaking=making)
    Config(policies={"a@1": PolicyConfig()}, matchmaking=replace(making, league=None))


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(matchmaking=MatchmakingConfig(swap_seats=True, league=LeagueConfig(every=5))),
        Config(
            run=RunConfig(name="x", threads=2),
            games={"game": PlayedGame(name="leduc_poker", settings={"a": [1, 2.5, None, "x"]})},
            policies={
                "a": PolicyConfig(warmup=WarmupConfig(teacher="b")),
                "b": PolicyConfig(kind="cfr", options={"iterations": 10}),
            },
            matchmaking=MatchmakingConfig(seats={"player_1": "b", "player_*": "a"}),
            evaluation=EvaluationConfig(opponents=["b", "start"]),
            credit={"stages": [{"name": "center"}]},
        ),
    ],
)
def test_settings_survive_being_written_and_read(tmp_path: Path, config: Config) -> None:
    again = load(tmp_path, to_yaml(config))
    assert again == config
    assert list(again.matchmaking.seats) == list(config.matchmaking.seats)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_the_configurations_that_come_along_load_and_survive_being_written(tmp_path: Path, file: Path) -> None:
    config = load_config(file)
    assert load(tmp_path, to_yaml(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: [", "not valid YAML: "),
        ("a: b: c", "not valid YAML: "),
        ("a: \x00", "not valid YAML: "),
        ("- run", "must be a mapping of settings, not ListConfig"),
        ("just words", "just words: unknown key; nearest valid name: "),
        ("rum: {}", "rum: unknown key; nearest valid name: run; allowed: run, games, play"),
        ("run: {sed: 1}", "run.sed: unknown key; nearest valid name: seed; allowed: name, dir, seed"),
        (
            "policies: {agent: {learner: {learning_rate: 1}}}",
            "learner.learning_rate: unknown key; nearest valid name: ",
        ),
        ("policies: {agent: {objective: {kl: {coeff: 1}}}}", "kl.coeff: unknown key; nearest valid name: coef;"),
        ("run: 3", "c.yaml: run: 3 is not allowed; it must be a mapping of settings$"),
        (
            "play: {branches: {values: 1, segments: {}}}",
            "c.yaml: play.branches.values: 1 is not allowed; it must be 0 with play.branches.segments, which have "
            "values too$",
        ),
        (
            "play: {branches: {keep_alternatives: true}}",
            "c.yaml: play.branches.keep_alternatives: True is not allowed; it must be false without play.branches.alt",
        ),
        (
            "play: {branches: {budgets: {tokens: [4, 4]}}}",
            r"c.yaml: play.branches.budgets.tokens: \[4, 4\] is not allowed; it must be one or more numbers from 1",
        ),
        (
            "play: {branches: {budgets: {tokens: [4]}}}",
            r"c.yaml: play.branches.budgets: \[4\] is not allowed; it must be null without play.thinking$",
        ),
        (
            "play: {thinking: true, max_reply_tokens: 8, branches: {budgets: {tokens: [8]}}}",
            r"c.yaml: play.branches.budgets.tokens: \[8\] is not allowed; it must be less than play.max_reply_tokens",
        ),
        (
            "play: {replays: 1, branches: {coalitions: {parts: [difference]}}}",
            "c.yaml: play.replays: 1 is not allowed; it must be 0 where play.branches.coalitions has the part diff",
        ),
        ("play: {tree: 3}", "c.yaml: play.tree: 3 is not allowed; it must be a mapping of settings$"),
        ("play: {probe: scorer}", r"c.yaml: play.probe: it must be a list, as in \[a, b\]$"),
        ("run: {seed: one}", "run.seed: Value 'one' .* could not be converted to Integer"),
        ("run: {seed: null}", "run.seed: "),
        ("run: {tokens: perhaps}", "run.tokens: Value 'perhaps' is not a valid bool"),
        ("play: {context: turns}", "play.context: "),
        ("policies: {agent: {kind: robot}}", "policies.agent.kind: "),
        (
            "policies: {agent: {learner: {betas: [0.9]}}}",
            "policies.agent.learner.betas: .*length 1 does not match type hint length 2",
        ),
        ("run: {name: '${nope}'}", "nope"),
        ("run:\n  seed: ???", r"run.seed: '\?\?\?' is not allowed"),
        ("policies:\n  agent: {options: {a: '???'}}", r"policies.agent.options.a: '\?\?\?' is not allowed"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^config .*{message}") as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing", "{}"])
def test_a_file_without_settings_is_that_of_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == Config()


def test_a_value_that_a_file_leaves_open_may_be_given_on_the_command_line(tmp_path: Path) -> None:
    assert load(tmp_path, "run:\n  seed: ???", "run.seed=3").run.seed == 3


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config .*c.yaml: no such file$"):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.seed", "override 'run.seed': must be key=value, for example run.seed=1"),
        ("=1", "override '=1': must be key=value"),
        ("run.seed=[", r"override 'run.seed=\[': its value is not valid YAML"),
        ("run.sed=1", "run.sed: unknown key; nearest valid name: seed"),
        ("run.seed=one", "run.seed: Value 'one'"),
        ("run.steps=-1", "run.steps: -1 is not allowed; it must be 0 or more"),
        ("run.checkpoint_every=0", "run.checkpoint_every: 0 is not allowed; it must be 1 or more"),
        ("run.keep_checkpoints=0", "run.keep_checkpoints: 0 is not allowed; it must be 1 or more"),
        ("run.threads=0", "run.threads: 0 is not allowed; it must be null or 1 or more"),
        ("play.max_reply_tokens=0", "play.max_reply_tokens: 0 is not allowed; it must be 1 or more"),
        ("play.context_tokens=16", r"play.context_tokens: 16 .* more than play.max_reply_tokens \(16\)"),
        ("play.max_turns=0", "play.max_turns: 0 is not allowed; it must be 1 or more"),
        ("play.on_fault=ignore", "play.on_fault: "),
        ("play.max_faults=1", "play.max_faults: 1.0 is not allowed; it must be from 0 to less than 1"),
        ("play.rewards=module", "play.rewards: 'module' is not allowed; it must be null or module:function"),
        ("matchmaking.groups=0", "matchmaking.groups: 0 is not allowed; it must be 1 or more"),
        ("matchmaking.group_size=0", "matchmaking.group_size: 0 is not allowed; it must be 1 or more"),
        ("matchmaking.seats={}", "matchmaking.seats: {} is not allowed; it must be at least one seat"),
        ("matchmaking.seats.player_0=bob", r"matchmaking.seats.player_0: 'bob' .* one of policies: \['agent'\]"),
        ("matchmaking.league={every: 0}", "league.every: 0 is not allowed; it must be 1 or more"),
        ("matchmaking.league={keep: 0}", "league.keep: 0 is not allowed; it must be 1 or more"),
        ("matchmaking.league={per_step: 0}", "league.per_step: 0 is not allowed; it must be 1 or more"),
        ("matchmaking.league={share: 2}", "league.share: 2.0 is not allowed; it must be between 0 and 1"),
        ("matchmaking.league={memory: 0}", "league.memory: 0.0 is not allowed; it must be more than 0"),
        ("matchmaking.league={weighting: easy}", "league.weighting"),
        ("matchmaking.league={members: [bob]}", r"league.members: 'bob' .* one of those that do not learn: \[\]"),
        ("matchmaking.league={members: [agent]}", r"league.members: 'agent' .* one of those that do not learn: \[\]"),
        ("matchmaking.league={exploiters: {agent: {}}}", r"league.exploiters: 'agent' .* and have no seat: \[\]"),
        ("matchmaking.league={share: 0.9, exploiters: {agent: {}}}", "league.share: 0.9 .* with the shares of"),
        ("matchmaking.league={exploiters: {agent: {share: -1}}}", "exploiter.share: -1.0 .* between 0 and 1"),
        ("matchmaking.league={exploiters: {agent: {reset_every: 0}}}", "exploiter.reset_every: 0 .* 1 or more"),
        ("evaluation.every=-1", "evaluation.every: -1 is not allowed; it must be 0 or more"),
        ("evaluation.best_response=-1", "evaluation.best_response: -1 is not allowed; it must be 0 or more"),
        ("evaluation.games=-1", "evaluation.games: -1 is not allowed; it must be 0 or more"),
        ("evaluation.samples=0", "evaluation.samples: 0 is not allowed; it must be 1 or more"),
        ("evaluation.opponents=[bob]", r"evaluation.opponents: 'bob' .* one of policies: \['agent'\], or start"),
        ("alarms.window=0", "alarms.window: 0 is not allowed; it must be 1 or more"),
        ("alarms.illegal_moves=1.5", "alarms.illegal_moves: 1.5 is not allowed; it must be null or between 0 and 1"),
        ("alarms.role_skew=-0.1", "alarms.role_skew: -0.1 is not allowed; it must be null or between 0 and 1"),
        ("alarms.reply_collapse=2", "alarms.reply_collapse: 2.0 is not allowed; it must be null or between 0 and 1"),
        ("alarms.reply_explosion=0.5", "alarms.reply_explosion: 0.5 is not allowed; it must be null or 1 or more"),
        ("alarms.entropy_collapse=-1", "alarms.entropy_collapse: -1.0 is not allowed; it must be null or 0 or more"),
        ("alarms.no_credit=2", "alarms.no_credit: 2.0 is not allowed; it must be null or between 0 and 1"),
        ("alarms.score_drift=2", "alarms.score_drift: 2.0 is not allowed; it must be null or between 0 and 1"),
        ("alarms.unanimity=-1", "alarms.unanimity: -1.0 is not allowed; it must be null or between 0 and 1"),
        ("alarms.precision_fall=2", "alarms.precision_fall: 2.0 is not allowed; it must be null or between 0 and 1"),
        ("alarms.identical_replies=.nan", "alarms.identical_replies: nan is not allowed; it must be null or between"),
        ("policies.agent.temperature=0", "policy.temperature: 0.0 is not allowed; it must be more than 0"),
        ("policies.agent.temperature=.inf", "policy.temperature: inf is not allowed; it must be more than 0"),
        ("policies.agent.warmup.teacher=agent", r"policies.agent.warmup.teacher: .* of the scripted policies: \[\]"),
        (
            "policies={agent: {warmup: {teacher: me}}, me: {kind: human}}",
            r"policies.agent.warmup.teacher: 'me' .* of the scripted policies: \[\]",
        ),
        ("policies.agent.warmup.games=0", "warmup.games: 0 is not allowed; it must be 1 or more"),
        ("policies.agent.warmup.batch=0", "warmup.batch: 0 is not allowed; it must be 1 or more"),
        ("policies.agent.warmup.steps=-1", "warmup.steps: -1 is not allowed; it must be 0 or more"),
        ("policies.agent.warmup.lr=-1", "warmup.lr: -1.0 is not allowed; it must be 0 or more"),
        ("policies.agent.tiny.hidden=100", "tiny.hidden: 100 is not allowed; it must be a multiple of 8"),
        ("policies.agent.tiny.vocabulary=256", "tiny.vocabulary: 256 .* 280 or more"),
        ("policies.agent.engine.slots=0", "engine.slots: 0 is not allowed; it must be 1 or more"),
        ("policies.agent.engine.cache_slots=-1", "engine.cache_slots: -1 is not allowed; it must be 0 or more"),
        ("policies.agent.engine={kind: vllm, vllm: {memory_share: 1.5}}", "vllm.memory_share: 1.5 .* at most 1"),
        ("policies.agent.engine={kind: vllm, vllm: {cache_gib: 0}}", "vllm.cache_gib: 0.0 .* null or more than 0"),
        ("policies.agent.engine={kind: vllm, vllm: {tensor_parallel: 0}}", "vllm.tensor_parallel: 0 .* 1 or more"),
        ("policies.agent.engine.vllm.compile=false", "engine.vllm: 'a section' .* left out in kind hf"),
        ("policies.agent.objective.clip_low=1.5", "objective.clip_low: 1.5 .* between 0 and 1"),
        ("policies.agent.objective.clip_high=-1", "objective.clip_high: -1.0 .* 0 or more"),
        ("policies.agent.objective.dual_clip=1", "objective.dual_clip: 1.0 .* null or more than 1"),
        ("policies.agent.objective.constant=0", "objective.constant: 0.0 .* more than 0"),
        ("policies.agent.objective.importance_cap=0.5", "objective.importance_cap: 0.5 .* null or 1 or more"),
        ("policies.agent.objective.kl.coef=-1", "objective.kl.coef: -1.0 .* 0 or more"),
        ("policies.agent.objective.kl.coef=1", "objective.kl.reference: 'none' .* frozen, ema or snapshot when"),
        ("policies.agent.objective.kl.decay=2", "objective.kl.decay: 2.0 .* between 0 and 1"),
        ("policies.agent.objective.kl.every=0", "objective.kl.every: 0 .* 1 or more"),
        ("policies.agent.learner.lr=-1", "learner.lr: -1.0 .* 0 or more"),
        ("policies.agent.learner.lr=.nan", "learner.lr: nan .* 0 or more"),
        ("policies.agent.learner.final=2", "learner.final: 2.0 .* between 0 and 1"),
        ("policies.agent.learner.grad_clip=0", "learner.grad_clip: 0.0 .* more than 0"),
        ("policies.agent.learner.minibatches=0", "learner.minibatches: 0 .* 1 or more"),
        ("policies.agent.learner.epochs=0", "learner.epochs: 0 .* 1 or more"),
        ("policies.agent.learner.micro_batch_tokens=0", "learner.micro_batch_tokens: 0 .* 1 or more"),
        ("run.name=a/b", "run.name: 'a/b' is not allowed; it must be a name without /"),
        ("policies.agent.tiny.heads=0", "tiny.heads: 0 is not allowed; it must be 1 or more"),
        ("policies.agent.tiny.layers=0", "tiny.layers: 0 is not allowed; it must be 1 or more"),
        ("policies.agent.tiny.hidden=0", "tiny.hidden: 0 is not allowed; it must be 1 or more"),
        ("policies.agent.tiny.mlp=0", "tiny.mlp: 0 is not allowed; it must be 1 or more"),
        ("policies.agent.learner.betas=[0.9,1.0]", r"learner.betas: \(0.9, 1.0\) .* from 0 to less than 1"),
        ("policies.agent.learner.betas=[-0.1,0.9]", r"learner.betas: \(-0.1, 0.9\) .* from 0 to less than 1"),
        ("policies.agent.learner.weight_decay=-1", "learner.weight_decay: -1.0 .* 0 or more"),
        ("policies.agent.learner.warmup_steps=-1", "learner.warmup_steps: -1 .* 0 or more"),
        ("policies.agent.objective.entropy=-1", "objective.entropy: -1.0 .* 0 or more"),
        ("policies.agent.objective.entropy_final=-1", "objective.entropy_final: -1.0 .* null or 0 or more"),
        ("run.seed=???", r"run.seed: '\?\?\?' is not allowed; it must be a value"),
        ("games.game.settings.players=???", r"games.game.settings.players: '\?\?\?' is not allowed"),
        ("credit=???", r"credit: '\?\?\?' is not allowed"),
        ("policies.agent=???", r"policies.agent: '\?\?\?' is not allowed"),
        ("policies=???", r"policies: '\?\?\?' is not allowed"),
        ("policies.agent.learner.row_tokens=0", "learner.row_tokens: 0 .* 1 or more"),
        ("runtime=slurm", "runtime: "),
        ("cluster.workers=0", "cluster.workers: 0 is not allowed; it must be 1 or more"),
        ("cluster.live=0", "cluster.live: 0 is not allowed; it must be 1 or more"),
        ("cluster.max_staleness=0", "cluster.max_staleness: 0 is not allowed; it must be 1 or more"),
        ("cluster.engines=-1", "cluster.engines: -1 is not allowed; it must be 0 or more"),
        ("cluster.restarts=-1", "cluster.restarts: -1 is not allowed; it must be 0 or more"),
        ("cluster.evaluators=2", "cluster.evaluators: 2 is not allowed; it must be 0 or 1"),
        ("cluster.hung_s=0", "cluster.hung_s: 0.0 is not allowed; it must be more than 0"),
        ("cluster.lost_s=0", "cluster.lost_s: 0.0 is not allowed; it must be null or more than 0"),
        ("cluster.worker.cpus=-1", "cluster.cpus: -1.0 is not allowed; it must be 0 or more"),
        ("cluster.worker.gpus=1.5", "cluster.gpus: 1.5 is not allowed; it must be a whole number, or less than 1"),
        ("cluster.worker.resources={big: 0}", "cluster.resources.big: 0.0 is not allowed; it must be more than 0"),
        ("cluster={mode: async, colocate: true}", "cluster.colocate: True .* false with cluster.mode async"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_is_allowed(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, "matchmaking: {seats: {}}" if override == "matchmaking.seats={}" else "{}", override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("{learners: {bob: {gpus: 1}}}", r"cluster.learners: 'bob' .* policies that learn: \['agent'\]"),
        ("{mode: async, evaluators: 0}", "cluster.evaluators: 0 .* 1 with cluster.mode async"),
        ("{colocate: true}", r"cluster.colocate: True .* an engine cannot sleep: \['agent'\]"),
    ],
)
def test_a_wrong_cluster_is_refused_where_there_is_one(tmp_path: Path, cluster: str, message: str) -> None:
    load(tmp_path, "{}", f"cluster={cluster}")
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "{runtime: ray}", f"cluster={cluster}")


def test_the_steps_that_may_be_played_ahead_follow_from_the_mode() -> None:
    assert ClusterConfig(mode="sync", max_staleness=5).ahead == 0
    assert ClusterConfig(mode="one_step_off", max_staleness=5).ahead == 1
    assert ClusterConfig(mode="async", max_staleness=5).ahead == 5


def test_a_run_goes_on_with_the_settings_it_began_with() -> None:
    running = Config(run=RunConfig(seed=1))
    require_same_settings(Config(run=RunConfig(seed=1)), running)
    require_same_settings(Config(run=RunConfig(seed=1), variants={"cold": ["policies.agent.temperature=0.5"]}), running)
    require_same_settings(Config(run=RunConfig(seed=1), runtime="ray", cluster=ClusterConfig(workers=8)), running)
    wanted = Config(run=RunConfig(seed=2), games={"game": PlayedGame(name="kuhn_poker", settings={"players": 3})})
    with pytest.raises(ConfigError, match=r"run.seed is 1, not 2; games.game.settings.players is None, not 3"):
        require_same_settings(wanted, running)


def settings_classes() -> list[ast.ClassDef]:
    files = sorted(Path(config_module.__file__).parent.glob("*.py"))
    nodes = [node for file in files for node in ast.parse(file.read_text()).body]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    assert all(is_dataclass(getattr(config_module, node.name)) for node in classes)
    return classes


@pytest.mark.parametrize("node", settings_classes(), ids=lambda node: node.name)
def test_every_setting_has_a_line_of_documentation_under_it(node: ast.ClassDef) -> None:
    assert ast.get_docstring(node)
    for field, below in zip(node.body, [*node.body[1:], None]):
        if isinstance(field, ast.AnnAssign):
            documented = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            assert documented, f"{node.name}.{ast.unparse(field.target)} has no documentation"


def test_a_setting_may_speak_of_another_one(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("run: {name: x}")
    config = load_config(path, ["policies.agent.model=models/${run.name}-${run.seed}"])
    assert config.policies["agent"].model == "models/x-0"


def test_temperature_0_is_for_policies_that_do_not_learn() -> None:
    assert PolicyConfig(temperature=0, trainable=False).temperature == 0
    with pytest.raises(ConfigError, match="-1 is not allowed; it must be more than 0, or 0, which takes the most"):
        PolicyConfig(temperature=-1, trainable=False)
