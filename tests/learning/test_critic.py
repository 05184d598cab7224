"""Critics: that they learn what is known, whatever the packing, and go on bit for bit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_llm.config import CriticConfig, LearnerConfig, PolicyConfig, TinyModelConfig
from marl_llm.errors import ConfigError, RunError, TrainingError
from marl_llm.learning.critic import Critic
from marl_llm.types import Completion, Episode, Match, Status, Tokens, Turn
from tests.learning.small import make_qwen3

KINDS = ("value", "prefix", "twin", "progress", "privileged", "implicit")
Said = tuple[Tokens, Tokens, float | None]


def turn(prompt: Tokens, reply: Tokens, reward: float | None, **settings: Any) -> Turn:
    size = len(reply)
    said = Completion(tokens=reply, logprobs=(-1.0,) * size, stop="eos", versions=(0,) * size)
    given = {"agent": "a", "role": "a", "policy": "me", "legal": True} | settings
    return Turn(observation="", prompt=prompt, completion=said, reply="", action="", rewards={"r": reward}, **given)


def game(name: str, turns: Sequence[Said], status: Status = "done", group: str = "g", **settings: Any) -> Episode:
    match = Match(id=name, game="game", seed=0, group=group, seats={"*": "me"})
    played = tuple(turn(*said, **settings) for said in turns)
    return Episode(match=match, turns=played, returns={}, status=status, hidden={"gold": 7})


GAMES = [
    game("a", [((1, 2, 3), (5, 6), 0.0), ((1, 4), (7,), 1.0)]),
    game("b", [((1, 2, 3), (8, 9), 0.0), ((1, 4, 4), (6,), -1.0)]),
    game("c", [((1, 2, 3), (5, 9, 9), 0.5)]),
]


def make(kind: str = "value", *, seed: int = 0, packing: int = 512, **settings: Any) -> Critic:
    config = CriticConfig(**{"kind": kind, "lr": 0.01} | settings)
    learner = LearnerConfig(row_tokens=packing, micro_batch_tokens=packing)
    return Critic(make_qwen3(seed=seed), config, learner, policy="me", seed=seed, encode=lambda text: (len(text) % 20,))


def flat(told: Any) -> list[float]:
    """All that a critic told, in order."""
    each = [value for key in sorted(told) for _, value in sorted(told[key].items())]
    return [number for value in each for number in (value if isinstance(value, tuple) else (value,))]


def test_values_before_turns_become_the_mean_of_what_followed() -> None:
    critic = make(at="turn", lr=0.02, epochs=70)
    critic.update(GAMES)
    told = critic.measure(GAMES)
    # After the first prompt came 1, -1 and 0.5; after the others 1 and -1.
    assert told["a", 0]["value"] == told["b", 0]["value"] == told["c", 0]["value"]
    assert told["a", 0]["value"] == pytest.approx(0.5 / 3, abs=0.05)
    assert told["a", 1]["value"] == pytest.approx(1.0, abs=0.05)
    assert told["b", 1]["value"] == pytest.approx(-1.0, abs=0.05)


def test_values_before_tokens_know_what_was_said_so_far() -> None:
    critic = make(at="token", lr=0.02, epochs=70)
    critic.update(GAMES)
    told = critic.measure(GAMES)
    assert told["c", 0]["value"] == pytest.approx((0.5 / 3, 0.75, 0.5), abs=0.06)  # after 5 came 1 and 0.5
    assert told["b", 0]["value"] == pytest.approx((0.5 / 3, -1.0), abs=0.06)


def test_a_prefix_critic_knows_values_before_and_after_a_turn() -> None:
    critic = make("prefix", lr=0.02, epochs=70)
    critic.update(GAMES)
    told = critic.measure(GAMES)
    assert told["a", 0] == pytest.approx({"value": 0.5 / 3, "q": 1.0}, abs=0.06)
    assert told["b", 1] == pytest.approx({"value": -1.0, "q": -1.0}, abs=0.06)


def test_a_prefix_critic_knows_what_a_reply_that_does_nothing_would_be_worth() -> None:
    said = {"packing": 64, "lr": 0.02, "epochs": 70}
    critic = make("prefix", wait="1234567", **said)  # token 7, which the first game says in its second turn
    critic.update(GAMES)
    told, plain = critic.measure(GAMES), make("prefix", **said)
    plain.update(GAMES)
    assert told["a", 1]["wait"] == pytest.approx(told["a", 1]["q"], abs=1e-5)
    assert told["b", 0]["wait"] != pytest.approx(told["b", 0]["q"], abs=1e-2)
    without = {key: {"value": each["value"], "q": each["q"]} for key, each in told.items()}
    assert without == plain.measure(GAMES), "what is learned is the same"


def test_twins_learn_values_from_their_own_target_copies() -> None:
    critic = make("twin", lr=0.02, epochs=110, gamma=0.9, tau=0.5)
    critic.update(GAMES)
    told = critic.measure(GAMES)
    assert [told["a", 1][name] for name in ("q1", "q2")] == pytest.approx([1.0, 1.0], abs=0.2)
    assert [told["b", 0][name] for name in ("q1", "q2")] == pytest.approx([-0.9, -0.9], abs=0.2)
    mean = (0.9 - 0.9 + 0.5) / 3
    assert [told["c", 0][name] for name in ("v1", "v2")] == pytest.approx([mean, mean], abs=0.2)
    assert make("twin").measure(GAMES)["a", 0]["q1"] != make("twin").measure(GAMES)["a", 0]["q2"]


def test_progress_sums_to_the_return_and_its_value_is_what_is_to_come() -> None:
    critic = make("progress", lr=0.03, epochs=60)
    critic.update(GAMES)
    told = critic.measure(GAMES)
    parts = [[told[name, k]["progress"] for k in range(n)] for name, n in (("a", 2), ("b", 2), ("c", 1))]
    assert [sum(part) for part in parts] == pytest.approx([1.0, -1.0, 0.5], abs=0.05)
    assert told["a", 1]["value"] == pytest.approx(parts[0][1] + 0.5, abs=0.1)  # and half for being legal


def test_a_privileged_critic_finds_what_better_episodes_said_likelier_than_before() -> None:
    critic = make("privileged", epochs=8)
    first = critic.update(GAMES)
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5)  # all alike at first
    told = critic.measure(GAMES)
    gain = {key: values["informed"] - values["informed_before"] for key, values in told.items()}
    assert gain["a", 0] + gain["a", 1] > gain["c", 0] > gain["b", 0] + gain["b", 1]
    assert critic.update(GAMES)["loss"] < 0.69


def test_without_a_gold_answer_a_privileged_critic_tells_nothing() -> None:
    episode = Episode(match=GAMES[0].match, turns=GAMES[0].turns, returns={})
    assert make("privileged").measure([episode]) == {}


def test_implicit_rewards_add_up_to_the_log_odds_of_success_and_the_last_token_has_none() -> None:
    critic = make("implicit", beta=0.5, above=0.4, lr=0.003, epochs=12)
    first = critic.update(GAMES)
    assert first["loss"] == pytest.approx(0.693147, abs=1e-6), "it began as its reference"
    assert critic.update(GAMES)["loss"] < 0.5
    told = critic.measure(GAMES)
    lengths = {key: len(values["implicit"]) for key, values in told.items()}  # type: ignore[arg-type]
    assert lengths == {("a", 0): 2, ("a", 1): 1, ("b", 0): 2, ("b", 1): 1, ("c", 0): 3}
    assert told["a", 1]["implicit"] == told["b", 1]["implicit"] == (0.0,)  # the last of the episode
    assert told["c", 0]["implicit"][2] == 0.0  # type: ignore[index]
    sums = {name: sum(sum(told[key]["implicit"]) for key in told if key[0] == name) for name in "abc"}  # type: ignore[arg-type]
    assert sums["a"] > 0 > sums["b"]
    assert sums["c"] > 0, "0.5 is more than 0.4"


def test_what_counts_as_a_success_is_a_setting() -> None:
    wins, none = make("implicit", above=0.4, epochs=12), make("implicit", above=2.0, epochs=12)
    wins.update(GAMES)
    none.update(GAMES)
    assert sum(wins.measure(GAMES)["c", 0]["implicit"]) > 0 > sum(none.measure(GAMES)["c", 0]["implicit"])  # type: ignore[arg-type]


def test_a_reward_model_is_measured_from_where_it_began() -> None:
    critic = make("implicit")
    assert set(flat(critic.measure(GAMES))) == {0.0}
    critic.begin(make_qwen3(seed=5).state_dict())
    assert set(flat(critic.measure(GAMES))) == {0.0}, "so did the reference"


@pytest.mark.parametrize("kind", KINDS)
def test_how_turns_are_packed_changes_nothing(kind: str) -> None:
    one, other = make(kind, epochs=3), make(kind, epochs=3, packing=1)
    assert one.update(GAMES) == pytest.approx(other.update(GAMES), rel=1e-4, abs=1e-6)
    assert flat(one.measure(GAMES)) == pytest.approx(flat(other.measure(GAMES)), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_critic_goes_on_bit_for_bit_from_what_it_saved(kind: str, tmp_path: Path) -> None:
    whole = make(kind)
    whole.update(GAMES)
    whole.save_state(tmp_path / "critic")
    resumed = make(kind, seed=3)
    resumed.load_state(tmp_path / "critic")
    assert resumed.version == 1
    assert resumed.measure(GAMES) == whole.measure(GAMES)
    assert resumed.update(GAMES[:2]) == whole.update(GAMES[:2])
    assert resumed.measure(GAMES) == whole.measure(GAMES)


def test_a_state_of_another_kind_is_refused(tmp_path: Path) -> None:
    make("value").save_state(tmp_path / "critic")
    with pytest.raises(RunError, match="missing or has another shape"):
        make("twin").load_state(tmp_path / "critic")


def test_only_episodes_that_ended_by_the_rules_are_learned_from_and_of_faults_nothing_is_told() -> None:
    cut = game("a", [((1, 2, 3), (5, 6), 3.0)], status="truncated")
    critic = make(at="turn")
    before = critic.measure([cut])
    assert critic.update([cut]) == {"loss": 0.0, "grad_norm": 0.0, "turns": 0.0}
    assert critic.measure([cut]) == before != {}
    assert critic.measure([game("a", [((1, 2, 3), (5, 6), 3.0)], status="fault")]) == {}


def test_turns_of_weight_0_and_of_others_are_no_lesson() -> None:
    critic = make(at="turn")
    assert critic.update([game("a", [((1, 2), (5,), 3.0)], weight=0.0)])["turns"] == 0.0
    assert critic.measure([game("a", [((1, 2), (5,), 3.0)], policy="other")]) == {}


@pytest.mark.parametrize("kind", ["progress", "implicit"])
def test_outcomes_of_episodes_that_are_no_lesson_are_not_asked_about(kind: str) -> None:
    said = [((1, 2, 3), (8, 9), 0.0), ((1, 4, 4), (6,), 5.0)]
    idle = [game("x", said, weight=0.0), game("y", said, status="truncated"), game("z", [*said, ((1,), (5,), None)])]
    one, other = make(kind), make(kind)
    assert one.update(GAMES)["loss"] == pytest.approx(other.update([*GAMES, *idle[:2]])["loss"], abs=1e-6)
    if kind == "implicit":
        assert make(kind).update([*GAMES, *idle])["grad_norm"] == pytest.approx(make(kind).update(GAMES)["grad_norm"])
    assert flat(one.measure(GAMES)) == pytest.approx(flat(other.measure(GAMES)), abs=1e-4)


def test_what_is_unknown_is_no_lesson_and_what_it_follows_is_none_either() -> None:
    unknown = game("z", [((1, 2, 3), (5, 6), 0.0), ((1, 4), (7,), None)])
    one, other = make(at="turn", epochs=2), make(at="turn", epochs=2)
    one.update(GAMES)
    other.update([*GAMES, unknown])
    assert flat(one.measure(GAMES)) == pytest.approx(flat(other.measure(GAMES)), abs=1e-3)


def test_clipped_values_learn_more_slowly() -> None:
    free, held = make(at="turn", epochs=10), make(at="turn", epochs=10, clip=0.05)
    free.update(GAMES)
    held.update(GAMES)
    assert abs(held.measure(GAMES)["a", 1]["value"]) < abs(free.measure(GAMES)["a", 1]["value"])


def test_a_copy_begins_as_the_policy_does_and_the_learner_stays() -> None:
    critic = make(at="turn")
    before = critic.measure(GAMES)
    critic.begin(make_qwen3(seed=5).state_dict())
    assert critic.measure(GAMES) != before


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    critic = make(at="turn")
    with torch.no_grad():
        critic._scorer.head.bias.fill_(1e30)  # type: ignore[union-attr]  # it has a head
    before = critic.measure(GAMES)
    with pytest.raises(TrainingError, match="critic of me, update 0: its loss is inf"):
        critic.update(GAMES)
    assert critic.measure(GAMES) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "twin", "lam": 0.5}, r"critic\.lam: 0\.5 is not allowed; it must be left out in kind twin"),
        ({"kind": "progress", "at": "turn"}, r"critic\.at: 'turn' is not allowed; it must be left out in kind"),
        ({"kind": "privileged", "tiny": TinyModelConfig()}, r"critic\.tiny: .* must be null in kind privileged"),
        ({"gamma": 1.5}, r"critic\.gamma: 1\.5"),
        ({"clip": 0.0}, r"critic\.clip: 0\.0"),
        ({"epochs": 0}, r"critic\.epochs: 0"),
        ({"lr": -1.0}, r"critic\.lr: -1"),
        ({"grad_clip": 0.0}, r"critic\.grad_clip: 0"),
        ({"kind": "twin", "tau": 0.0}, r"critic\.tau: 0"),
        ({"kind": "privileged", "beta": 0.0}, r"critic\.beta: 0"),
        ({"kind": "progress", "ground": -1.0}, r"critic\.ground: -1"),
        ({"kind": "privileged", "above": 0.5}, r"critic\.above: 0\.5 .* left out in kind privileged"),
        ({"kind": "twin", "wait": "check"}, r"critic\.wait: 'check' .* left out in kind twin"),
        ({"kind": "prefix", "wait": ""}, r"critic\.wait: ''"),
        ({"kind": "implicit", "above": float("nan")}, r"critic\.above: nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CriticConfig(**settings)


def test_a_critic_needs_a_policy_that_learns_in_one_process() -> None:
    with pytest.raises(ConfigError, match=r"policy\.critic: .* must be null in a policy that does not learn"):
        PolicyConfig(trainable=False, critic=CriticConfig())
    with pytest.raises(ConfigError, match=r"learner\.processes: 2 .* 1 where there is a critic"):
        PolicyConfig(learner=LearnerConfig(processes=2), critic=CriticConfig())
