"""The settings of an experiment: typed, checked, one YAML file each.

Everybody but `loading` receives frozen dataclasses. Validation refuses, it never rewrites a value.
"""

from marl_llm.config.benchmark import BenchmarkConfig, EntrantConfig, ProtocolConfig
from marl_llm.config.branches import BranchesConfig, BudgetsConfig, CoalitionsConfig, SegmentsConfig, TreeConfig
from marl_llm.config.cluster import ClusterConfig, PlacementConfig
from marl_llm.config.experiment import AlarmConfig, Config, EvaluationConfig, StoreConfig
from marl_llm.config.loading import (
    game_settings,
    load_benchmark,
    load_config,
    load_machines,
    require_same_questions,
    require_same_settings,
    to_yaml,
)
from marl_llm.config.losses import CovarianceConfig, DiscriminateConfig, HapoConfig, SmoothConfig
from marl_llm.config.machines import AssumedConfig, DeviceConfig, MachinesConfig, NodeConfig
from marl_llm.config.matches import (
    Answers,
    CurriculumConfig,
    ExploiterConfig,
    GameConfig,
    LeagueConfig,
    MatchmakingConfig,
    PlayConfig,
    PlayedGame,
    RunConfig,
)
from marl_llm.config.policies import (
    UNTOLD,
    Aggregation,
    CriticConfig,
    EngineConfig,
    KLConfig,
    LearnerConfig,
    LoraConfig,
    ObjectiveConfig,
    PolicyConfig,
    PolicyKind,
    PreferenceConfig,
    ScriptedKind,
    TinyModelConfig,
    VLLMConfig,
    WarmupConfig,
)

__all__ = [
    "UNTOLD",
    "Aggregation",
    "AlarmConfig",
    "Answers",
    "AssumedConfig",
    "BenchmarkConfig",
    "BranchesConfig",
    "BudgetsConfig",
    "ClusterConfig",
    "CoalitionsConfig",
    "Config",
    "CovarianceConfig",
    "CriticConfig",
    "CurriculumConfig",
    "DeviceConfig",
    "DiscriminateConfig",
    "EngineConfig",
    "EntrantConfig",
    "EvaluationConfig",
    "ExploiterConfig",
    "GameConfig",
    "HapoConfig",
    "KLConfig",
    "LeagueConfig",
    "LearnerConfig",
    "LoraConfig",
    "MachinesConfig",
    "MatchmakingConfig",
    "NodeConfig",
    "ObjectiveConfig",
    "PlacementConfig",
    "PlayConfig",
    "PlayedGame",
    "PolicyConfig",
    "PolicyKind",
    "PreferenceConfig",
    "ProtocolConfig",
    "RunConfig",
    "ScriptedKind",
    "SegmentsConfig",
    "SmoothConfig",
    "StoreConfig",
    "TinyModelConfig",
    "TreeConfig",
    "VLLMConfig",
    "WarmupConfig",
    "game_settings",
    "load_benchmark",
    "load_config",
    "load_machines",
    "require_same_questions",
    "require_same_settings",
    "to_yaml",
]
