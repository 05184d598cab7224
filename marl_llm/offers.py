"""What an experiment offers a credit recipe: who needs more is refused before anything is played."""

from collections.abc import Collection, Sequence

from pettingzoo import AECEnv

from marl_llm.config import Config, GameConfig
from marl_llm.config.require import require
from marl_llm.credit.load import Recipe
from marl_llm.credit.needs import check_needs, needs
from marl_llm.errors import ConfigError
from marl_llm.learning.quantities import MEASURED
from marl_llm.measures import LEGAL
from marl_llm.play import Rewards, make_game


def check_recipe(config: Config, recipe: Recipe, rewards: Rewards | None = None) -> None:
    """Refuse a recipe that needs what this experiment does not offer, or that a policy cannot learn by.

    `rewards`: the function that `play.rewards` names.

    Raises:
        ConfigError: it is refused.
    """
    games = [make_game(game.name, game.trained.settings) for game in config.trained_games.values()]
    learning = [policy.objective for policy in config.policies.values() if policy.learns]
    offered = {"tokens", LEGAL, *MEASURED, *_judged(config)} | _branched(config, recipe)
    if any(objective.kl.reference == "none" for objective in learning):
        offered.discard("reference")
    if all(env.unwrapped.metadata.get("gold") for env in games):
        offered |= {"gold", "gold_before"}
    if all(env.unwrapped.metadata.get("state_key") for env in games):
        offered.add("state_key")
    if config.play.replays:
        offered.add("difference")
    check_needs(recipe, offered, _paid(games, rewards))
    _check_critics(config, recipe)
    for name, policy in config.policies.items() if recipe.by_token else ():
        if policy.learns and policy.objective.compares:
            section = "preference" if policy.objective.preference is not None else "discriminate"
            raise ConfigError(
                f"credit: recipe {recipe.name} values tokens, and policy {name} prefers whole turns to others "
                f"(policies.{name}.objective.{section}); it needs a recipe with unit: turn"
            )


def _paid(games: Sequence[AECEnv], rewards: Rewards | None) -> Collection[str] | None:
    """Reward parts that are told to be paid; None: a function of the user's may pay any."""
    if rewards is not None and not hasattr(rewards, "pays"):
        return None
    listed = {part for env in games for part in env.unwrapped.metadata.get("reward_parts", ())}
    return listed | set(getattr(rewards, "pays", ()))


def _branched(config: Config, recipe: Recipe) -> set[str]:
    """What further play offers."""
    wanted = config.play.branches
    parts = wanted.coalitions.parts if wanted.coalitions is not None else []
    offers = {
        "value": wanted.segments if recipe.by_token else wanted.values,
        "q": wanted.options,
        "baseline": wanted.alternatives,
        "budget": wanted.budgets,
        "difference": config.play.replays or "difference" in parts,
        "shapley": "shapley" in parts,
        "forks": config.play.tree or (wanted.alternatives and wanted.keep_alternatives),
    }
    return {name for name, offered in offers.items() if offered}


def _judged(config: Config) -> set[str]:
    """What the critics of all policies that learn can tell."""
    critics = [policy.critic for policy in config.policies.values() if policy.learns]
    each = [set(critic.quantities) if critic is not None else set() for critic in critics]
    return set.intersection(*each) if each else set()


def _check_critics(config: Config, recipe: Recipe) -> None:
    """A value of tokens is none of turns, nor the other way round; and what nobody asks for is not learned."""
    wanted, unit = needs(recipe), "token" if recipe.by_token else "turn"
    for name, policy in config.policies.items():
        critic, key = policy.critic, f"policies.{name}.critic"
        if critic is None:
            continue
        asked = set(wanted) & set(critic.quantities)
        require(bool(asked), f"{key}.kind", critic.kind, f"one that recipe {recipe.name} asks for; it needs {wanted}")
        idle = critic.wait is not None and "wait" not in wanted
        require(not idle, f"{key}.wait", critic.wait, f"null, as recipe {recipe.name} does not compare with it")
        tuned, value = ("at", critic.at) if critic.kind == "value" else ("kind", critic.kind)
        allowed = f"one for recipe {recipe.name}, whose rows are {unit}s: {{kind: value, at: {unit}}}"
        fits = critic.by_token == recipe.by_token or critic.kind == "implicit"  # of a turn the mean of its tokens'
        require(fits, f"{key}.{tuned}", value, allowed)
        twice = sorted(asked & _branched(config, recipe))
        require(not twice, key, "a section", f"null, or play.branches without what measures {twice} too")
        for label, game in config.trained_games.items() if critic.kind == "privileged" else ():
            allowed = f"another while game {label} knows no gold answer; games on questions do"
            require(_knows_gold(game.trained), f"{key}.kind", critic.kind, allowed)


def _knows_gold(game: GameConfig) -> bool:
    env = make_game(game.name, game.settings)
    env.reset(seed=0)
    return "gold" in getattr(env.unwrapped, "hidden", {})
