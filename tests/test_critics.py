"""Critics in a run: what is refused, that they learn and go on bit for bit, and that policies learn by them."""

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from marl_llm.config import load_config
from marl_llm.credit.recipe import load_recipe
from marl_llm.errors import ConfigError
from marl_llm.run import checkpoint_path, checkpoint_values, read_episodes, read_metrics
from marl_llm.team import found
from marl_llm.train import prepare, train
from tests.test_train import CHAIN, STATE, Silent, same_checkpoints, small, without_time

SWEET = load_recipe("sweet").settings
PRIME = ("credit=prime", *load_recipe("prime").settings)
TINY = "policies.agent.critic.tiny={hidden: 16, layers: 1, heads: 2, mlp: 16}"
VALUE = "policies.agent.critic={kind: value, at: turn, epochs: 2}"


@pytest.mark.parametrize("recipe", ["ppo", "ppo_tokens", "archer", "spa", "sweet", "read_s", "read_j", "prime"])
def test_a_recipe_without_its_critic_is_refused_and_says_where_it_would_be(tmp_path: Path, recipe: str) -> None:
    with pytest.raises(ConfigError, match=rf"recipe {recipe} needs \w+, which is missing; .*policies\.NAME\.critic"):
        prepare(small(tmp_path, f"credit={recipe}"))


@pytest.mark.parametrize(
    "recipe", ["archer", "bilevel_gae", "ppo", "ppo_tokens", "prime", "read_j", "read_s", "spa", "sweet"]
)
def test_what_a_recipe_says_belongs_to_it_is_all_it_needs(tmp_path: Path, recipe: str) -> None:
    changes = CHAIN if recipe == "sweet" else ()  # who is told the answer needs a question
    prepare(small(tmp_path, *changes, f"credit={recipe}", *load_recipe(recipe).settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("credit=ppo", "policies.agent.critic={at: token}"),
            "policies.agent.critic.at: 'token' is not allowed; it must",
        ),
        (("credit=ppo_tokens", VALUE), "policies.agent.critic.at: 'turn' is not allowed; it must be one for recipe"),
        (
            ("credit=rae", VALUE),
            "policies.agent.critic.kind: 'value' is not allowed; it must be one that recipe rae asks",
        ),
        (
            ("credit=read_s", "policies.agent.critic={kind: prefix, wait: check}"),
            "policies.agent.critic.wait: 'check' is not allowed; it must be null, as recipe read_s",
        ),
        (("credit=ppo_tokens", "policies.agent.critic={kind: prefix}"), "policies.agent.critic.kind: 'prefix' is not"),
        (
            ("credit=sweet", *SWEET),
            "policies.agent.critic.kind: 'privileged' is not allowed; it must be another",
        ),
    ],
)
def test_a_critic_that_does_not_fit_the_recipe_is_refused(
    tmp_path: Path, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        prepare(small(tmp_path, *changes))


def test_critics_are_refused_where_learners_are_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policies\.agent\.critic: .* null where runtime is ray"):
        small(tmp_path, "runtime=ray", "credit=ppo", VALUE)


@pytest.mark.parametrize(
    ("critic", "quantity", "of_tokens"), [(("credit=ppo", VALUE), "value", False), ((*PRIME, TINY), "implicit", True)]
)
def test_a_run_with_a_critic_goes_on_bit_for_bit_after_an_interruption(
    tmp_path: Path, critic: tuple[str, ...], quantity: str, of_tokens: bool
) -> None:
    changes = (*critic, "run.steps=3", "run.checkpoint_every=1", "evaluation.every=0")
    whole = train(small(tmp_path / "whole", *changes), Silent())
    observer = Silent()
    half = small(tmp_path / "half", *changes)
    path = train(half, observer, stop=lambda: "step 1" in observer.told)
    assert len(read_metrics(path)) == 1
    train(half, Silent(), path=path, resume=True)
    assert without_time(read_metrics(path)) == without_time(read_metrics(whole))
    assert same_checkpoints(path, whole, 3)
    one, other = (load_file(checkpoint_path(run, 3) / "agent-critic" / STATE) for run in (path, whole))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    (first, *_, last) = read_metrics(whole)
    assert {"loss", "grad_norm", "turns"} | ({"explained"} if quantity == "value" else set()) == {
        key.rpartition("/")[2] for key in first if key.startswith("learn/agent/critic/")
    }
    assert last["learn/agent/critic/turns"] > 0
    turns = [turn for episode in read_episodes(whole) for turn in episode.turns]
    assert all(quantity in (turn.token_probes if of_tokens else turn.probes) for turn in turns)
    assert checkpoint_values(checkpoint_path(whole, 3))["credit"] == {}


def test_a_copy_begins_where_the_policy_is_after_its_warm_up_and_a_tiny_one_reads_its_tokens(tmp_path: Path) -> None:
    changes = ("credit=ppo_tokens", "run.steps=1", "evaluation.every=0", "evaluation.games=1")
    copied = train(small(tmp_path, *changes, "policies.agent.critic={lr: 0}", "policies.agent.learner.lr=0"), Silent())
    policy = load_file(checkpoint_path(copied, 1) / "agent" / "model.safetensors")
    critic = load_file(checkpoint_path(copied, 1) / "agent-critic" / STATE)
    same = {name.removeprefix("weight."): tensor for name, tensor in critic.items() if name.startswith("weight.")}
    body = [name for name in policy if not name.startswith("lm_head")]
    assert body
    assert all(policy[name].equal(same[name.removeprefix("model.")]) for name in body)
    size = "policies.agent.critic={tiny: {hidden: 16, layers: 1, heads: 2, mlp: 16}}"
    team = found(small(tmp_path, *changes, size))
    critic_of = team.members["agent"].critic
    assert critic_of is not None
    embedding = critic_of._scorer.trunk.model.get_input_embeddings().weight
    assert embedding.shape == (len(team.members["agent"].language_model.tokenizer), 16)


@pytest.mark.parametrize("recipe", ["archer", "bilevel_gae", "read_j", "read_s", "spa"])
def test_critics_of_all_kinds_tell_what_policies_learn_from(tmp_path: Path, recipe: str) -> None:
    changes = (f"credit={recipe}", "run.steps=1", "evaluation.games=1")
    path = train(small(tmp_path, *changes, *load_recipe(recipe).settings), Silent())
    (metrics,) = read_metrics(path)
    assert metrics["learn/agent/critic/grad_norm"] > 0
    assert metrics["learn/agent/policy_loss"] != 0


def test_sweet_prefers_what_better_episodes_said_to_one_who_knows_the_answer(tmp_path: Path) -> None:
    tree = "play.tree={width: 2, turns: 2}"
    steps = ("run.steps=2", "matchmaking.group_size=4", "policies.agent.critic.lr=0.01")
    shorter = "play.rewards=marl_llm.credit.rewards:marshal_length"  # what these models differ in
    path = train(small(tmp_path, *CHAIN, tree, "credit=sweet", *SWEET, *steps, shorter), Silent())
    first, second = read_metrics(path)
    assert first["learn/agent/pairs"] == 0  # it has not learned, so that nothing is better than anything
    assert first["learn/agent/critic/loss"] == pytest.approx(0.693147, abs=1e-5)
    assert second["learn/agent/pairs"] > 0
    told = [turn.probes for episode in read_episodes(path) for turn in episode.turns]
    assert all({"informed", "informed_before"} <= probes.keys() for probes in told)


def test_primes_reward_model_learns_online_who_wins_and_the_policy_from_it(tmp_path: Path) -> None:
    """The first step's rewards are all 0, as the model begins as its reference."""
    faster = ("policies.agent.critic.lr=0.004", "policies.agent.critic.epochs=4")
    changes = ("run.steps=5", "matchmaking.groups=4", "evaluation.every=0", *faster)
    path = train(small(tmp_path, *PRIME, *changes), Silent())
    rows, each = read_metrics(path), list(read_episodes(path))
    losses = [row["learn/agent/critic/loss"] for row in rows]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[-1] < 0.65, losses
    assert all(row["learn/agent/policy_loss"] != 0 for row in rows[1:])
    first, later = each[0], each[-1]
    assert {number for turn in first.turns for number in turn.token_probes["implicit"]} == {0.0}
    assert any(number for turn in later.turns for number in turn.token_probes["implicit"])
    for episode in each:
        for last in {turn.agent: turn for turn in episode.turns}.values():
            assert last.token_probes["implicit"][-1] == 0.0, "where the outcome stands"


BANDIT = """
run: {name: bandit, steps: 10, threads: 1}
games:
  game:
    name: matrix_game
    settings:
      payoffs: [[[-1, 0], [-1, 0]], [[1, 0], [1, 0]]]  # the first action is that of who says nothing legal
      max_rounds: 2
      continuation: 1.0
      on_illegal: default_action
play: {context: turn, max_reply_tokens: 8, context_tokens: 256}
policies:
  agent:
    tiny: {hidden: 32, layers: 1, heads: 2, mlp: 64, vocabulary: 400}
    warmup: {teacher: random, games: 64, steps: 40, batch: 64, lr: 0.01}
    engine: {slots: 64, cache_slots: 8}
    learner: {lr: 0.003, schedule: constant, epochs: 2}
    critic: {kind: value, at: turn, lr: 0.02, epochs: 8}
  random: {kind: random}
matchmaking: {groups: 8, group_size: 4, seats: {player_0: agent, player_1: random}}
credit: ppo
evaluation: {every: 0, games: 1, exploitability: false, opponents: []}
"""


def test_ppo_learns_what_pays_and_its_critic_foresees_it(tmp_path: Path) -> None:
    file = tmp_path / "bandit.yaml"
    file.write_text(BANDIT)
    path = train(load_config(file, [f"run.dir={tmp_path}"]), Silent())
    rows = read_metrics(path)
    returns = [row["play/return/player_0"] for row in rows]
    assert returns[-1] > returns[0] + 0.8, returns  # of -2 to 2
    assert rows[-1]["learn/agent/critic/loss"] < rows[0]["learn/agent/critic/loss"]
