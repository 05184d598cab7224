"""What an experiment offers a recipe, and that the settings which belong to a recipe can be made."""

from pathlib import Path

import pytest

from marl_llm.config import load_config
from marl_llm.credit.load import load_recipe, recipe_names
from marl_llm.errors import ConfigError
from marl_llm.offers import check_recipe

SMALL = Path(__file__).parents[1] / "small.yaml"
TASKS = ("games.game.name=generate_verify_refine", "games.game.settings.tasks={source: arithmetic, level: 1}")


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).settings])
def test_the_settings_of_a_recipe_are_valid_changes_of_an_experiment(name: str) -> None:
    before = load_config(SMALL)
    after = load_config(SMALL, load_recipe(name).settings)
    assert after != before


@pytest.mark.parametrize(
    ("quantity", "change"),
    [
        ("reference", ("policies.agent.objective.kl.reference=frozen",)),
        ("gold", TASKS),
        ("gold_before", TASKS),
    ],
)
def test_what_is_offered_depends_on_the_experiment(quantity: str, change: tuple[str, ...]) -> None:
    recipe = load_recipe({"stages": [{"measure": {"by": quantity}}]})
    alone = load_config(SMALL, ["policies.agent.objective.kl.reference=none", "policies.agent.objective.kl.coef=0"])
    with pytest.raises(ConfigError, match=f"needs {quantity}, which is missing; offered by "):
        check_recipe(alone, recipe)
    check_recipe(load_config(SMALL, change), recipe)


def test_learners_offer_what_they_measure_and_a_critic_alone_a_reward_model() -> None:
    for name in ("certainty", "logit", "logprob_now", "er", "erv", "era"):
        check_recipe(load_config(SMALL), load_recipe({"stages": [{"measure": {"by": name}}]}))
    prime = load_recipe("prime")
    with pytest.raises(ConfigError, match=r"recipe prime needs implicit, .*policies\.NAME\.critic .* kind implicit"):
        check_recipe(load_config(SMALL), prime)
    check_recipe(load_config(SMALL, prime.settings), prime)


def test_a_recipe_of_turns_reads_the_mean_of_implicit_rewards() -> None:
    recipe = load_recipe({"stages": [{"quantity": {"of": "implicit"}}]})
    check_recipe(load_config(SMALL, load_recipe("prime").settings), recipe)


def test_further_play_offers_what_an_answer_after_each_budget_would_earn() -> None:
    brpo = load_recipe("brpo")
    with pytest.raises(
        ConfigError, match=r"recipe brpo needs budget, which is missing; offered by play\.branches\.budg"
    ):
        check_recipe(load_config(SMALL), brpo)
    check_recipe(load_config(SMALL, brpo.settings), brpo)


def test_a_value_that_two_would_measure_is_refused() -> None:
    critic = "policies.agent.critic={kind: value, at: turn}"
    check_recipe(load_config(SMALL, ["play.branches.values=2"]), load_recipe("ppo"))
    with pytest.raises(ConfigError, match=r"policies\.agent\.critic: .* null, or play\.branches without .*'value'"):
        check_recipe(load_config(SMALL, [critic, "play.branches.values=2"]), load_recipe("ppo"))
