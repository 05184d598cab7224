"""Statistics of groups and rules of rewards: the papers' numbers, or those of the released code where it was run."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from marl_llm.credit import rewards
from marl_llm.credit.compare import beta_fit, beta_weight, consensus_of
from marl_llm.credit.load import Recipe, load_recipe
from marl_llm.credit.parts import gate
from marl_llm.credit.recipe import Credited, credit, credit_table
from marl_llm.credit.stages import reward
from marl_llm.credit.table import Row, table_of
from marl_llm.errors import ConfigError
from marl_llm.play import play, rewarded
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Episode, Match, Turn
from tests.credit.cases import GOLDEN, cases, close, one_turn_each, run

KEYS = ["group", "role", "policy"]
COPO: dict[str, Any] = dict(load_recipe("copo").stages[-1].filled)


def changed(name: str, stage: str, **params: Any) -> Recipe:
    """A recipe with other parameters of one stage."""
    recipe = load_recipe(name)
    stages = tuple(replace(s, params={**s.params, **params}) if s.stage == stage else s for s in recipe.stages)
    return replace(recipe, stages=stages)


def credited(rows: Sequence[Row], recipe: Recipe | str, state: Any = None) -> Credited:
    return credit_table(table_of(rows), load_recipe(recipe) if isinstance(recipe, str) else recipe, state)


@cases("bnpo")
def test_bnpo(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    close(credited(one_turn_each(inputs), "bnpo").advantages, out["adv"])
    p = np.array(list(out["p"].values()))
    a, b = beta_fit(p)
    assert (a, b) == pytest.approx((out["alpha"], out["beta"]))
    close(beta_weight(p, a, b), list(out["weight"].values()))


def test_bnpo_maps_other_ranges_to_0_to_1() -> None:
    inputs = GOLDEN["bnpo"][0]["inputs"]
    rows = one_turn_each({**inputs, "rewards": [4 * r - 1 for r in inputs["rewards"]]})
    close(credited(rows, changed("bnpo", "beta", low=-1.0, high=3.0)).advantages, GOLDEN["bnpo"][0]["outputs"]["adv"])
    with pytest.raises(ConfigError, match=r"stage beta: high: 0 is not allowed; it must be more than low \(0\)"):
        credited(rows, changed("bnpo", "beta", high=0.0))


@cases("ngrpo")
def test_ngrpo(case: Any) -> None:
    inputs = case["inputs"]
    assert inputs["virtual"] == [1.0]
    close(credited(one_turn_each(inputs), "ngrpo").advantages, case["outputs"]["adv"])


def test_more_virtual_members_weigh_more() -> None:
    # 0, 0, 1, 1: mean 1/2, std of a sample sqrt(1/3).
    rows = one_turn_each({"rewards": [0.0, 0.0], "group": ["a", "a"]})
    close(credited(rows, changed("ngrpo", "virtual", count=2)).advantages, [-0.5 / (np.sqrt(1 / 3) + 1e-6)] * 2)


def answering(inputs: Mapping[str, Any]) -> list[Row]:
    rows = one_turn_each(inputs)
    return [row._replace(action=f"<answer>{a}</answer>") for row, a in zip(rows, inputs["answers"], strict=True)]


@cases("copo")
def test_copo(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    local = {"soft with zero": "paid", "only soft": "all"}[inputs["mode"]]
    params = {"steepness": inputs["k"], "bits": inputs["b"], "local": local, "discount": inputs["reward_coef"]}
    table = table_of(answering(inputs))
    close(credit_table(table, changed("copo", "consensus", **params)).advantages, out["A_eff_on_policy"])
    found = consensus_of(table, reward(table), **COPO | params)
    close(found.within_N, out["A_local"])
    close(found.between_N, out["A_global"])
    close(found.weight_N, out["w_local"])
    close(found.entropy_K, list(out["H"].values()))
    close(found.reward_K, list(out["R_global"].values()))


def test_copo_with_one_group_or_one_member_has_nothing_to_compare() -> None:
    inputs = GOLDEN["copo"][0]["inputs"]
    found = credited(answering(inputs)[:4], changed("copo", "consensus", steepness=-1000.0)).advantages
    np.testing.assert_allclose(found, 0.0, atol=1e-99)  # all weight is on the comparison of groups, and there is one
    assert credited(answering(inputs)[:1], "copo").advantages.tolist() == [0.0]


def test_copo_goes_by_the_last_answer_of_the_roles_and_counts_none_as_one() -> None:
    rows = [
        Row(f"m{i}", k, {"outcome": float(i)}, role="solver", action=text)
        for i, texts in enumerate([("1", "7"), ("2", "7"), (None, None)])
        for k, text in enumerate(texts)
    ]
    table = table_of(rows)
    params = COPO | {"roles": ("solver",)}
    close(consensus_of(table, reward(table), **params).entropy_K, [np.log2(3) - 2 / 3])  # two of three agree
    close(consensus_of(table, reward(table), **COPO | {"roles": ("x",)}).entropy_K, [0.0])


@cases("canon")
def test_canon(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    by_length = inputs["kind"] == "length"
    metric = (
        {"num_tokens": lambda x: x}
        if by_length
        else {
            "tokens": lambda x: (0,),
            "token_probes": lambda x: {"entropy": (x,)},
        }
    )
    rows = [
        row._replace(**{name: make(x) for name, make in metric.items()})
        for row, x in zip(one_turn_each(inputs), inputs["metric"], strict=True)
    ]
    name = "canon" if by_length else "canon_entropy"
    close(credited(rows, changed(name, "halves", mu=inputs["mu"], alpha=inputs["alpha"])).advantages, out["adv"])
    assert inputs["norm"] == 1.0  # what it is divided by is objective.constant
    # Which half: paid for being in the high one, compared with the own half only, all of it is taken off.
    paid = [row._replace(rewards={"r": float(high)}) for row, high in zip(rows, out["high_half"], strict=True)]
    assert credited(paid, changed(name, "halves", mu=0.0)).advantages.tolist() == [0.0] * len(rows)


def test_canon_leaves_out_whose_measure_is_unknown() -> None:
    rows = [
        Row(f"m{i}", 0, {"r": r}, tokens=(0,), token_probes={} if x is None else {"entropy": (x,)})
        for i, (r, x) in enumerate([(1.0, 0.1), (9.0, None), (0.0, 0.2)])
    ]
    assert credited(rows, "canon_entropy").advantages.tolist() == [1.0, 0.0, -1.0]


@cases("hapo_group_average")
def test_hapo_lets_tokens_decide_what_the_average_is(case: Any) -> None:
    inputs = case["inputs"]
    rows = [row._replace(num_tokens=n) for row, n in zip(one_turn_each(inputs), inputs["lengths"], strict=True)]
    close(credited(rows, "hapo").advantages, case["outputs"]["adv"])
    with pytest.raises(ConfigError, match="stage token_average counts sampled tokens"):
        credited([row._replace(num_tokens=0) for row in rows], "hapo")


@cases("grpo_multi_reward")
def test_gdpo_normalises_each_part_first(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    weights = dict(zip(("part_0", "part_1"), inputs["weights"], strict=True))
    rows = one_turn_each(inputs)
    if inputs["mode"] == "sum_then_normalize":
        z = [{stage: {"keys": KEYS, "per": "episode"}} for stage in ("center", "scale")]
        z[1]["scale"]["eps"] = inputs["eps"]
        close(run(rows, {"reward": {"weights": weights}}, *z).advantages, out["adv"])
        return
    result = credited(rows, changed("gdpo", "normalize_each", weights=weights))
    close(result.trace[0][1], out["weighted"])
    close(result.advantages, out["adv"])
    for part, column in zip(weights, zip(*out["per_reward"], strict=True), strict=True):
        alone = changed("gdpo", "normalize_each", weights={part: 1.0}, others=0.0)
        close(credited(rows, alone).trace[0][1], column)


@cases("reinforce_pp_baseline")
def test_reinforce_pp_baseline(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    lengths = [int(sum(mask)) for mask in inputs["mask"]]
    rows = [row._replace(num_tokens=n) for row, n in zip(one_turn_each(inputs), lengths, strict=True)]
    result = credited(rows, "reinforce_pp_baseline")
    close(dict(result.trace)["center"], out["centered"])
    for tokens, value, length in zip(out["adv"], result.advantages, lengths, strict=True):
        close(np.array([value] * length + [0.0] * (len(tokens) - length)), tokens)


@cases("dapo_overlong")
def test_dapo_prices_overlong_replies(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    params = {"limit": inputs["l_max"], "cache": inputs["cache"], "factor": inputs["factor"]}
    rows = [Row("a", 0, {"outcome": 1.0}, num_tokens=inputs["length"])]
    for key, capped in (("penalty", True), ("penalty_uncapped", False)):
        trace = dict(credited(rows, changed("dapo", "overlong", **params, capped=capped)).trace)
        close(trace["overlong"], [1.0 + out[key]])


def test_an_overlong_reply_is_priced_once_where_rows_are_tokens() -> None:
    recipe = load_recipe({"unit": "token", "stages": ["reward", {"overlong": {"limit": 4, "cache": 4}}]})
    assert credited([Row("a", 0, {"r": 1.0}, tokens=(1, 2))], recipe).advantages.tolist() == [0.0, 0.5]


@cases("spear_recalibrated_adv")
def test_spear_holds_replayed_rewards_against_the_median_of_earlier_groups(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    earlier = [Row(f"a{i}", 0, {"r": mean}, group=f"g{i}") for i, mean in enumerate(inputs["group_mean_history"])]
    recipe = load_recipe("spear_recalibrated")
    state = json.loads(json.dumps(credited(earlier, recipe).state, sort_keys=True))
    assert np.median(list(state["median_history"].values())) == out["p50"]
    now = one_turn_each({"rewards": inputs["rewards"], "group": ["g"] * 5})
    result = credited(now, recipe, state)
    close(dict(result.trace)["median_history"], out["adv"])
    assert (result.advantages > 0).tolist() == out["keep"]
    close(result.advantages, np.maximum(out["adv"], 0))
    assert list(result.state["median_history"].values()) == pytest.approx([*inputs["group_mean_history"], 0.49])


def test_only_the_last_means_are_remembered_each_with_its_own() -> None:
    recipe = changed("spear_recalibrated", "median_history", size=2)
    first = [Row(f"a{i}", 0, {"r": float(i)}, group=f"g{i}") for i in range(3)]
    other = [Row("b", 0, {"r": 9.0}, role="other")]
    result = credited([*first, *other], recipe)
    assert result.advantages.tolist() == [0.0, 0.0, 1.0, 0.0]  # without earlier steps: this step's median, 1
    assert sorted(result.state["median_history"].values()) == [1.0, 2.0, 9.0]
    assert credited(first, recipe, result.state).advantages.tolist() == [0.0, 0.0, 0.5]


@cases("spear_tool_reward")
def test_spear_pays_for_calls_less_and_less(case: Any) -> None:
    inputs = case["inputs"]
    bonus = rewards.call_bonus(inputs["calls"], each=inputs["per_call"], most=inputs["cap"])
    rows = [Row("a", 0, {"outcome": 0.0, "tools": bonus})]
    recipe = load_recipe("spear")
    (step,) = [s for s in recipe.stages[0].terms[1].steps if s.stage == "schedule"]
    assert step.params["steps"] == inputs["total"]
    state = {step.label: {"step": float(inputs["step"])}}
    result = credited(rows, recipe, state)
    close(dict(result.trace)["sum"], [case["outputs"]["reward"]])
    assert result.state[step.label] == {"step": inputs["step"] + 1}


def test_a_schedule_counts_steps_and_ends_reading_what_it_multiplies() -> None:
    recipe = load_recipe({"stages": ["reward", {"schedule": {"steps": 2, "start": 4.0, "form": "linear"}}]})
    state: Any = None
    found = []
    for value in (1.0, 1.0, None, None):
        result = credited([Row("a", 0, {"r": value})], recipe, state)
        state = result.state
        found.append(result.trace[-1][1][0])
    assert found == [4.0, 2.0, 0.0, 0.0]
    assert np.isnan(credited([Row("a", 0, {"r": None})], recipe).trace[-1][1][0])


def test_calls_of_tools_are_paid_with_an_agents_last_turn() -> None:
    said = [("a", "calculate: 1 + 1"), ("b", "5"), ("a", "Python: print(1)"), ("a", "2"), ("b", None)]
    assert rewards.tools(told(said)) == {3: {"tools": 0.2}, 4: {"tools": 0.0}}
    assert rewards.tools(told([("a", "search: x")] * 12)) == {11: {"tools": 1.0}}


def told(said: Sequence[tuple[str, str | None]], **hidden: Any) -> Episode:
    turns = tuple(
        Turn(agent=who, role=who, policy="me", observation="", reply=text or "", action=text, legal=text is not None)
        for who, text in said
    )
    match = Match(id="m", game="workflow", seed=0, group="g", seats={})
    return Episode(match=match, turns=turns, returns={}, hidden=hidden)


@cases("r1_reward")
def test_r1_pays_accuracy_by_consistency(case: Any) -> None:
    inputs = {name: float(value) for name, value in case["inputs"].items()}
    parts = {"format": inputs["format"], "outcome": inputs["accuracy"], "consistency": inputs["consistency"]}
    trace = dict(credited([Row("a", 0, parts)], "stable_reinforce").trace)
    close(trace["sum"], [case["outputs"]["reward"]])


@cases("stable_reinforce_filter")
def test_stable_reinforce_drops_outliers(case: Any) -> None:
    inputs = case["inputs"]
    assert all(inputs["mask"])
    rule = {"paper": "paper", "code": "released"}[inputs["rule"]]
    rows = [Row(f"m{i:02}", 0, {"outcome": value}) for i, value in enumerate(inputs["adv"])]
    close(credited(rows, changed("stable_reinforce", "whiten_within", rule=rule)).advantages, case["outputs"]["adv"])


@cases("rlcr")
def test_rlcr_pays_for_honest_confidence(case: Any) -> None:
    right, sure, out = case["inputs"]["correct"], case["inputs"]["confidence"], case["outputs"]
    episode = told(
        [("a", f"<answer>4</answer> <confidence>{sure}</confidence>")], answers=[{"turn": 0, "right": right}]
    )
    (calibration,) = rewards.rlcr(episode).values()
    paid = credited([Row("m", 0, {"outcome": right, **calibration})], "rlcr").trace[0][1][0]
    assert np.isnan(paid) if out["paper"] == "invalid" else paid == pytest.approx(out["paper"])
    assert rewards.rlcr_released(episode)[0]["rlcr"] == pytest.approx(out["code"])
    assert rewards.calibrated(right, sure, readable=False) == 0.0


@pytest.mark.parametrize(
    ("reply", "sure"),
    [
        ("4", None),
        ("<confidence>.</confidence>", None),
        ("<Confidence> 1 </Confidence>", 1.0),
        ("<confidence>-1", None),
    ],
)
def test_confidence_is_read_from_its_tag(reply: str, sure: float | None) -> None:
    assert rewards.confidence(reply) == sure


@cases("gtalign_length")
def test_gtalign_likes_lengths_within_bounds(case: Any) -> None:
    inputs = case["inputs"]
    fit = rewards.length_fit(inputs["words"], inputs["lo"], inputs["hi"], k=inputs["k"])
    assert fit == pytest.approx(case["outputs"]["score"])


@cases("gtalign_welfare")
def test_gtalign_pays_the_welfare_of_both(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    user = rewards.user_utility(inputs["acc"], inputs["words"], inputs["reasoning_chars"])
    model = rewards.model_utility(inputs["acc"], inputs["full_words"], inputs["format"], inputs["payoff"])
    assert (user, model) == pytest.approx((out["u_user"], out["u_llm"]))
    trace = dict(credited([Row("a", 0, {"user": user, "model": model})], "gtalign").trace)
    close(trace["product"], [out["welfare"]])


def test_gtalign_reads_thoughts_and_words_of_an_answer() -> None:
    text = f"<think>{'x' * 400}</think> {'word ' * 200}"
    episode = told([("a", text), ("b", None)], answers=[{"turn": 0, "right": 1.0}, {"turn": 1, "right": 0.0}])
    found = rewards.gtalign(episode)
    assert found[0]["user"] == pytest.approx(0.7511495227)
    assert found[0]["model"] == pytest.approx(rewards.model_utility(1.0, 201, 1.0, 0.0))
    assert found[1] == {"user": 0.0, "model": 0.0}


@cases("sotopia_mix")
def test_sotopia_mixes_dimensions_by_their_extremes(case: Any) -> None:
    given, out = case["inputs"]["dimension_rewards"], case["outputs"]
    names = ["goal", "relationship", "knowledge"][: len(given[0])]
    rows = [Row(f"m{i}", 0, dict(zip(names, values, strict=True))) for i, values in enumerate(given)]
    close(credited(rows, changed("sotopia_mix", "minmax", parts=tuple(names))).trace[0][1], out["reward"])
    for name, column in zip(names, zip(*out["minmax"], strict=True), strict=True):
        close(credited(rows, changed("sotopia_mix", "minmax", parts=(name,), scale=1.0)).trace[0][1], column)


@cases("spo_winrate")
def test_spo_pays_the_share_of_others_that_are_beaten(case: Any) -> None:
    p, wanted = case["inputs"]["P"], case["outputs"]["reward"]
    # As matches between each two texts: what a text won on average, circles included.
    pairs = list(itertools.permutations(range(len(p)), 2))
    rows = [Row(f"{i}-{j}", 0, {"outcome": float(p[i][j])}, node=f"text {i}") for i, j in pairs]
    found = run(rows, "reward", {"pool": {"keys": ["node"]}}).advantages
    assert found.tolist() == pytest.approx([wanted[i] for i, _ in pairs])
    if wanted != [0.5, 0.5, 0.5]:  # no number goes round in a circle
        rows = [Row(f"m{i}", 0, {"outcome": 2 * value}) for i, value in enumerate(wanted)]
        close(dict(credited(rows, "minimaximalist").trace)["winrate"], wanted)


def test_a_win_rate_may_compare_by_what_was_measured_and_ties_count_a_half() -> None:
    rows = [Row(f"m{i}", 0, {"r": 0.0}, num_tokens=n) for i, n in enumerate([3, 5, 3, 1, 5, 3])]
    found = run(rows, "reward", {"winrate": {"keys": KEYS, "by": "length"}}).advantages
    close(found, [0.4, 0.9, 0.4, 0.0, 0.9, 0.4])


@cases("gra")
def test_lower_rewards_wait_behind_the_gate_of_higher_ones(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    levels = inputs.get("levels") or [inputs["outcome"], inputs["steps"]]
    names = [f"level_{i}" for i in range(len(levels))]
    values = [np.atleast_1d(level).tolist() for level in levels]
    least = inputs.get("thresholds") or [inputs["threshold"]] * (len(levels) - 1)
    params = {"thresholds": dict(zip(names, least, strict=False)), "strict": inputs.get("strict", True)}
    for count in range(1, len(levels) + 1):  # of the highest levels alone
        rows = [
            Row("m", k, {name: v[k] for name, v in zip(names[:count], values, strict=False) if k < len(v)})
            for k in range(max(map(len, values)))
        ]
        total = run(rows, {"gate": {"parts": names[:-1], **params}}).advantages.sum()
        assert total == pytest.approx(sum(out["kept"][:count]))
    assert total == pytest.approx(out["total"])


def test_a_gate_lets_all_other_parts_through_and_always_the_price_of_an_illegal_move() -> None:
    def kept(outcome: float | None, **params: Any) -> list[float]:
        rows = [Row("m", 0, {"step": 0.5}), Row("m", 1, {"outcome": outcome, "illegal": -2.0, "shape": 1.0})]
        return gate(table_of(rows), parts=("outcome",), **params).values_N.tolist()

    assert kept(1.0) == [0.5, 0.0]
    assert kept(0.0) == [0.0, -2.0]
    assert kept(0.0, strict=False) == [0.5, -1.0]
    assert kept(1.0, thresholds={"outcome": 2.0}) == [0.0, -1.0]
    assert np.isnan(kept(None)).all()


@cases("tp_grpo")
def test_tp_grpo_blames_wrong_turns(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    rows = [
        Row(f"m{i}", k, {"right": float(label)} | ({"outcome": float(outcome)} if k == 0 else {}))
        for i, (outcome, labels) in enumerate(zip(inputs["outcomes"], inputs["labels"], strict=True))
        for k, label in enumerate(labels)
    ]
    result = credited(rows, changed("tp_grpo", "blame", says="match", alpha=inputs["alpha"]))
    np.testing.assert_allclose(result.advantages, np.concatenate(out["A"]), atol=3e-6)  # its std has no eps
    first = result.table.turn == 0
    np.testing.assert_allclose(dict(result.trace)["scale"][first], out["r_o"], atol=3e-6)
    assert out["r_c"] == inputs["alpha"] * out["acc_G"]
    taken = (dict(result.trace)["scale"] - result.advantages)[result.table.episode == "m0"]
    close(taken[[2]], [out["r_c"]])
    # Thoughts are runs of turns with one label: merged or not, they have one value.
    runs = [[label, len(list(same))] for label, same in itertools.groupby(np.round(taken, 6) == 0)]
    assert [[int(same), count] for same, count in runs] == [[1, 2], [0, 1], [1, 1]]
    assert [[label, count] for label, count in out["thoughts_0"]] == [[1, 2], [0, 1], [1, 1]]


def test_by_what_is_right_a_wrong_episode_spares_its_right_turns() -> None:
    rows = [
        Row(f"m{i}", k, {"right": right} | ({"outcome": outcome} if k == 1 else {}))
        for i, (outcome, rights) in enumerate([(1.0, (1.0, 0.0)), (0.0, (1.0, 0.0)), (1.0, (None, 1.0))])
        for k, right in enumerate(rights)
    ]
    result = credited(rows, "tp_grpo")
    up, down = 1 / 3 / np.sqrt(1 / 3), -2 / 3 / np.sqrt(1 / 3)
    np.testing.assert_allclose(result.advantages, [up, up - 2 / 3, 0.0, down, 0.0, up], atol=5e-6)
    assert np.isnan(result.trace[-1][1][4])


@cases("calm")
def test_calm_pays_each_sub_goal_once(case: Any) -> None:
    inputs = case["inputs"]
    reached = [{"turn": k, "reached": names} for k, names in enumerate(inputs["achieved"])]
    parts = rewards.subgoals(told([("a", "x")] * 4, subgoals=reached[::-1]))
    rows = [
        Row("m", k, {"outcome": float(value), **{p: v for p, v in parts[k].items() if v is not None}})
        for k, value in enumerate(inputs["env_r"])
    ]
    recipe = changed("calm", "reward", weights={"subgoals": inputs["bonus"]})
    close(credited(rows, recipe).trace[0][1], case["outputs"]["r"])


@cases("rema")
def test_rema_compares_each_role_with_itself(case: Any) -> None:
    inputs, out = case["inputs"], case["outputs"]
    rows = [
        Row(f"m{i}", k, {"outcome": float(score)} if k > 1 else {}, agent=role, role=role, group=uid)
        for i, (score, uid) in enumerate(zip(inputs["scores"], inputs["uids"], strict=True))
        for k, role in enumerate([*out, *out])
    ]
    result = credited(rows, "rema")
    for role, wanted in out.items():
        mine = result.table.role == role
        for turn in np.unique(result.table.turn[mine]):
            close(result.advantages[mine & (result.table.turn == turn)], wanted)


def test_an_episode_that_was_cut_off_is_paid_nothing_or_left_out() -> None:
    rows = [Row(f"m{i}", 0, {"outcome": r}, truncated=r == 4.0) for i, r in enumerate([1.0, 3.0, 4.0])]
    center = {"center": {"keys": KEYS, "per": "episode"}}
    zero = run(rows, "reward", {"unfinished": {"rule": "zero"}}, center).advantages
    close(zero, [-1 / 3, 5 / 3, -4 / 3])
    assert run(rows, "reward", {"unfinished": {"rule": "unknown"}}, center).advantages.tolist() == [-1.0, 1.0, 0.0]


def test_members_of_weight_0_are_compared_with_others_and_no_others_with_them() -> None:
    """Forks hold the turns before the fork a second time, at weight 0."""
    inputs = {"rewards": [1.0, 0.0, 0.0, 1.0], "group": ["a"] * 4}
    rows = one_turn_each(inputs)
    fork = Row("z", 0, {"part_0": 5.0}, group="a", weight=0.0, num_tokens=9)
    for name in ("bnpo", "ngrpo", "copo", "canon", "hapo", "minimaximalist", "spear_recalibrated"):
        assert credited([*rows, fork], name).advantages[:4].tolist() == credited(rows, name).advantages.tolist(), name


def test_rules_of_rewards_are_told_by_a_real_game_what_they_go_by() -> None:
    match = Match(id="m", game="debate", settings={"judge": True}, seed=3, group="g", seats={"*": "informed"})
    (episode,) = play([match], {"informed": make_scripted("informed", {"accuracy": 0.5})})
    graded = {told["turn"]: told["right"] for told in episode.hidden["answers"]}
    assert set(graded.values()) == {0.0, 1.0}
    valued = credit([rewarded(episode, rewards.gtalign)], load_recipe("gtalign"))
    welfare = dict(zip(valued.table.turn.tolist(), valued.trace[0][1].tolist(), strict=True))
    assert {turn: value > 0.5 for turn, value in welfare.items()} == {
        turn: graded.get(turn) == 1.0 for turn in range(len(episode.turns))
    }
    # Nobody says how sure it is, so nobody's reward is known.
    assert credit([rewarded(episode, rewards.rlcr)], load_recipe("rlcr")).unknown == {("m", turn) for turn in welfare}
