"""Worked numbers of methods that know what states, actions or coalitions are worth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from marl_llm.credit.load import load_recipe
from marl_llm.credit.needs import needs
from marl_llm.credit.recipe import Credited, credit_table
from marl_llm.credit.table import Row, table_of
from marl_llm.errors import ConfigError
from tests.credit.cases import GOLDEN, cases, close, run

NAN = float("nan")


def by(recipe: str, rows: Sequence[Row]) -> Credited:
    return credit_table(table_of(rows), load_recipe(recipe))


def by_tokens(rows: Sequence[Row], *stages: Any) -> Credited:
    return credit_table(table_of(rows), load_recipe({"unit": "token", "stages": list(stages)}))


def valued(rewards: Sequence[float], values: Sequence[float | None], *, truncated: bool = False) -> list[Row]:
    probes = [{} if value is None else {"value": value} for value in values]
    return [
        Row("m", k, {"r": float(reward)}, probes=probe, truncated=truncated)
        for k, (reward, probe) in enumerate(zip(rewards, probes, strict=True))
    ]


@cases("egae")
def test_gae_of_a_truncated_episode_goes_on_as_it_stood(case: Any) -> None:
    inputs = case["inputs"]
    rows = valued(inputs["rewards"], inputs["values"], truncated=inputs["truncated"])
    gae = {"gae": {"gamma": inputs["gamma"], "lam": inputs["lam"]}}
    close(run(rows, "reward", gae).advantages, case["outputs"]["adv"])
    close(dict(by("ppo", rows).trace)["gae"], case["outputs"]["adv"])


@cases("egae")
def test_gae_over_the_tokens_of_a_turn(case: Any) -> None:
    inputs = case["inputs"]
    values = tuple(inputs["values"])
    row = Row(
        "m",
        0,
        {"r": inputs["rewards"][-1]},
        tokens=(5,) * len(values),
        token_probes={"value": values},
        truncated=inputs["truncated"],
    )
    close(dict(by("ppo_tokens", [row]).trace)["gae"], case["outputs"]["adv"])


def test_gae_over_several_turns_and_a_cut_that_is_an_end() -> None:
    rows = valued([1.0, 2.0], [0.5, 0.25], truncated=True)
    # d = 1 + .5 * .25 - .5 = .625 and 2 - .25 = 1.75; .625 + .5 * .5 * 1.75 = 1.0625.
    gae = {"gae": {"gamma": 0.5, "lam": 0.5, "cut": "end"}}
    assert run(rows, "reward", gae).advantages.tolist() == [1.0625, 1.75]


@cases("bilevel_gae")
def test_bilevel_gae(case: Any) -> None:
    inputs = case["inputs"]
    ends, values = inputs["ends"], inputs["values"]
    starts = [0, *(end + 1 for end in ends[:-1])]
    rows = [
        Row(
            "m",
            k,
            {"r": inputs["rewards"][end]},
            tokens=(5,) * (end + 1 - start),
            token_probes={"value": tuple(values[start : end + 1])},
        )
        for k, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    close(dict(by("bilevel_gae", rows).trace)["gae"], case["outputs"]["A"])
    settings = {name: inputs[name] for name in ("gamma", "lam", "gamma_turn")}
    close(by_tokens(rows, "reward", {"gae": settings | {"levels": 2}}).advantages, case["outputs"]["A"])


def test_bilevel_gae_looks_from_the_end_of_a_turn_to_the_end_of_the_next() -> None:
    rows = [
        Row("m", 0, {"r": 1.0}, tokens=(5, 5), token_probes={"value": (0.5, 0.25)}),
        Row("m", 1, {"r": 2.0}, tokens=(5, 5), token_probes={"value": (8.0, 1.0)}),
    ]
    gae = {"gae": {"gamma": 1.0, "lam": 0.5, "levels": 2, "gamma_turn": 0.5}}
    # Ends: 2 - 1 = 1, and 1 + .5 * 1 - .25 + .5 * .5 * 1 = 1.5.
    # Inside: 1 - 8 + .5 * 1 = -6.5 and .25 - .5 + .5 * 1.5 = .5.
    assert by_tokens(rows, "reward", gae).advantages.tolist() == [0.5, 1.5, -6.5, 1.0]


@cases("vineppo")
def test_vineppo(case: Any) -> None:
    rows = valued(case["inputs"]["step_rewards"], case["inputs"]["values"])
    close(dict(by("vineppo", rows).trace)["gae"], case["outputs"]["A"])


def test_vineppo_cannot_tell_about_a_hole_in_the_middle() -> None:
    result = by("vineppo", valued([0, 0, 0, 1], [0.4, None, 0.7, 0.9]))
    assert np.isnan(dict(result.trace)["gae"]).tolist() == [True, True, False, False]


def cut(inputs: Any) -> Row:
    values = [NAN] * len(inputs["probs"])
    for place, value in zip(inputs["cutpoints"], inputs["cut_values"], strict=True):
        values[place + 1] = value
    probes = {"logprob": tuple(np.log(inputs["probs"])), "value": tuple(values)}
    return Row("m", 0, {"r": inputs["score"]}, tokens=(5,) * len(values), token_probes=probes)


@cases("spo_chain")
def test_spo_chain_deals_segments_their_change_in_value_but_not_to_sure_tokens(case: Any) -> None:
    result = by("spo_chain", [cut(case["inputs"])])
    close(dict(result.trace)["unsure"], case["outputs"]["A"])
    assert (result.weights > 0).tolist() == [p <= 0.9 for p in case["inputs"]["probs"]]


def test_without_cut_points_a_chain_has_nothing_to_tell() -> None:
    inputs = {"probs": [0.5, 0.5], "score": 1.0, "cutpoints": [], "cut_values": []}
    assert dict(by("spo_chain", [cut(inputs)]).trace)["segments"].tolist() == [0.0, 0.0]


def test_segments_end_with_their_trajectory() -> None:
    rows = [
        *valued([0, 1.0], [0.5, None]),
        *(row._replace(episode="n") for row in valued([0, 0, 0], [None, 0.25, 0.75])),
    ]
    result = run(rows, "reward", "segments")
    assert result.advantages.tolist() == [0.5, 0.5, 0.0, 0.5, -0.75]


@cases("pav")
def test_pav(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    *values, outcome = inputs["V_pi"]
    rows = valued([0.0] * (len(values) - 1) + [outcome], values)
    prover = {"samples": inputs["K"]}
    effective = run(rows, "reward", {"prover": prover | {"alpha": inputs["alpha"]}}).advantages
    close(effective, outputs["eff"])
    close(by("pav", rows).advantages, outputs["eff"])
    plain = run(rows, "reward", {"prover": prover | {"alpha": 0.0}}).advantages
    close((effective - plain) / inputs["alpha"], outputs["A_mu"])


def thoughts(worths: Sequence[Sequence[float]], stretches: Sequence[float] | None = None) -> list[Row]:
    """A turn each, with what answers after its budgets earn: of one token within each budget, or as listed."""
    return [
        Row(
            f"m{i}",
            tokens=tuple(range(len(stretches or values))),
            probes={f"budget/{s}": value for s, value in enumerate(values)},
            token_probes={"budget": tuple(map(float, stretches or range(len(values))))},
        )
        for i, values in enumerate(worths)
    ]


@cases("brpo")
def test_brpo(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    uniform = len(set(inputs["probs"])) == 1
    settings = {"prior": "uniform" if uniform else "linear", "base": inputs["discount"]}  # .1 .2 .3 .4: linear
    rows = thoughts(inputs["budget_reward"])
    close(by_tokens(rows, {"budgets": settings | {"lone": "raw"}}).advantages, outputs["adv"])
    ours = by("brpo", rows).advantages
    if uniform:
        close(ours, outputs["adv"])
    else:  # a lone sample: 0 by our rule, where the release has no baseline of the group
        assert ours.tolist() == [0.0] * 4
    # The parts: with S = 4 budgets, A = T - (s V1 + (4 - s) V2) / 4.
    returns, own, group = (np.array(outputs[name]) for name in ("returns", "V1", "V2"))
    s = np.arange(4)
    close(ours if uniform else np.array(outputs["adv"]).ravel(), (returns - (s * own + (4 - s) * group) / 4).tolist())


def test_brpo_with_all_of_its_prior_on_the_last_budget() -> None:
    result = by_tokens(thoughts([[0.0, 1.0], [0.0, 0.0]]), {"budgets": {"prior": "last"}})
    # T = 1, 1 and 0, 0; at s = 0 the mean is .5, at s = 1 half of it counts, and V1 = 0.
    assert result.advantages.tolist() == [0.5, 0.75, -0.5, -0.25]


def test_brpo_gives_tokens_the_advantage_of_their_stretch_and_counts_each_turn_once() -> None:
    """T = .5, .5 and 0, 0 of two budgets; the mean is .25, at s = 1 half of it counts, and V1 = 0. The turn that stands
    aside, being shared, and the one that ended at fault after its second budget enter no mean."""
    long = thoughts([[0.0, 1.0]], [0, 0, 0, 1, NAN])
    short = [row._replace(episode="n") for row in thoughts([[0.0, 0.0]], [0, 1])]
    aside = [row._replace(episode="o", weight=0.0) for row in thoughts([[9.0, 9.0]])]
    broken = [row._replace(episode="p") for row in thoughts([[1.0, NAN]])]
    result = by("brpo", long + short + aside + broken)
    assert result.by_turn(result.trace[-1][1])["m0", 0][:4] == [0.25, 0.25, 0.25, 0.375]
    found = result.by_turn(result.advantages)
    assert found["m0", 0] == [0.25, 0.25, 0.25, 0.375, 0.0]
    assert found["n", 0] == [-0.25, -0.125]
    assert result.unknown == {("p", 0)}
    assert np.isnan(result.trace[-1][1][4])


def test_brpo_compares_turns_at_the_same_step() -> None:
    rows = thoughts([[0.0, 1.0], [0.0, 0.0]])
    later = [row._replace(turn=1, probes={"budget/0": 5.0, "budget/1": 5.0}) for row in rows]
    found = by("brpo", rows + later)
    assert found.by_turn(found.advantages)["m0", 0] == [0.25, 0.375]
    assert found.by_turn(found.advantages)["m0", 1] == [0.0, 0.0]  # T = 5, 2.5; V1 = 2.5, half of each


def test_budgets_are_measured_in_a_reply_not_over_turns() -> None:
    with pytest.raises(ConfigError, match="stage budgets values stretches of a reply; the recipe must have unit: tok"):
        run(thoughts([[0.0, 1.0]]), "budgets")


def measured(**quantities: Sequence[float]) -> list[Row]:
    columns = [dict(zip(quantities, values, strict=True)) for values in zip(*quantities.values(), strict=True)]
    return [
        Row("m", k, {"outcome": 9.0}, agent=f"a{k}", role=f"a{k}", probes=probes) for k, probes in enumerate(columns)
    ]


@cases("archer")
def test_archer_takes_the_smaller_of_two_critics(case: Any) -> None:
    inputs = {name: case["inputs"][name] for name in ("q1", "q2", "v1", "v2")}
    close(by("archer", measured(**inputs)).advantages, case["outputs"]["A"])


@cases("read_s")
def test_read_s_advantages_add_up_to_that_of_the_joint_action(case: Any) -> None:
    *before, joint = prefix = case["inputs"]["Q_prefix"]
    advantages = by("read_s", measured(q=prefix[1:], value=before)).advantages
    close(advantages, case["outputs"]["A"])
    assert advantages.sum() == pytest.approx(case["outputs"]["joint"])
    assert joint - before[0] == pytest.approx(case["outputs"]["joint"])


@cases("read_j")
def test_read_j_compares_with_waiting(case: Any) -> None:
    inputs = case["inputs"]
    assert load_recipe("read_j").stages[0].terms[1].weight == pytest.approx(-1 / inputs["gamma"], abs=1e-12)
    close(by("read_j", measured(q=[inputs["Q_joint"]], wait=[inputs["Q_wait"]])).advantages, [case["outputs"]["S"]])


@cases("coma")
def test_coma_takes_off_the_counterfactual_mean(case: Any) -> None:
    inputs = case["inputs"]
    baseline = float(np.dot(inputs["pi"], inputs["Q"]))
    rows = measured(q=[inputs["Q"][inputs["chosen"]]], baseline=[baseline])
    close(by("coma", rows).advantages, [case["outputs"]["A"]])


@cases("difference")
def test_a_difference_reward_is_the_outcome_less_that_without_the_agent(case: Any) -> None:
    inputs, names = case["inputs"], list(case["inputs"]["G_without"])
    rows = [
        Row("m", k, {"outcome": 1.0, "difference": inputs["G"] - inputs["G_without"][name]}, agent=name, role=name)
        for k, name in enumerate(names)
    ]
    close(by("difference", rows).advantages, list(case["outputs"]["D"].values()))
    assert needs(load_recipe("difference")) == ("difference",)


@cases("shapley")
def test_a_recipe_takes_shapley_values_as_they_are(case: Any) -> None:
    rows = [
        Row("m", k, {"outcome": 1.0, "shapley": value}, agent=name, role=name)
        for k, (name, value) in enumerate(case["outputs"]["phi"].items())
    ]
    close(by("shapley", rows).advantages, list(case["outputs"]["phi"].values()))


def test_sweet_is_the_mean_log_ratio_of_a_turns_tokens() -> None:
    inputs, outputs = (GOLDEN["sweet"][0][name] for name in ("inputs", "outputs"))
    probes = {"informed": inputs["logp"], "informed_before": inputs["logp_ref"]}
    rows = [Row("m", 0, {"outcome": 1.0}, tokens=(5, 6, 7), token_probes=probes)]
    close(by("sweet", rows).advantages, [outputs["A"]])


def test_spa_adds_grounding_to_estimated_progress() -> None:
    inputs, outputs = (GOLDEN["spa"][1][name] for name in ("inputs", "outputs"))
    rows = [
        Row("m", k, {"outcome": 9.0}, probes={"progress": progress, "value": 0.0, "legal": float(ground)})
        for k, (progress, ground) in enumerate(zip(inputs["c_hat"], inputs["ground"], strict=True))
    ]
    weights = [term.weight for term in load_recipe("spa").stages[0].terms]
    assert weights == [inputs["alpha"], inputs["beta"]]
    close(dict(by("spa", rows).trace)["sum"], outputs["r"])


def believing(lp_means: Sequence[Sequence[float]], outcomes: Sequence[float]) -> list[Row]:
    """After each turn the right answer has a log-probability; the last turn answers and nothing is measured there."""
    return [
        Row(
            f"m{i}",
            k,
            {"outcome": outcome} if k == len(means) - 1 else {},
            probes={"gold": means[k + 1] if k + 1 < len(means) else NAN, "gold_before": means[0] if k == 0 else NAN},
        )
        for i, (means, outcome) in enumerate(zip(lp_means, outcomes, strict=True))
        for k in range(len(means))
    ]


@pytest.mark.parametrize(
    ("case", "form"), [(GOLDEN["igpo_prob_gain"][0], "prob"), (GOLDEN["igpo_logp_gain"][0], "logp")]
)
def test_information_gain_of_a_turn(case: Any, form: str) -> None:
    gains = run(believing(case["inputs"]["lp_means"], [1.0, 0.0]), {"gain": {"form": form}}).trace[0][1]
    close(gains[[0, 1, 3, 4]], case["outputs"]["ig"])
    assert np.isnan(gains[[2, 5]]).all()


def test_gain_over_tokens_stands_on_a_turns_last_one() -> None:
    rows = [
        row._replace(tokens=(5,) * 3) for row in believing(GOLDEN["igpo_logp_gain"][0]["inputs"]["lp_means"][:1], [1.0])
    ]
    gains = by_tokens(rows, "gain").advantages
    assert gains.tolist() == [0, 0, 1.0, 0, 0, 0.5, 0, 0, 0]


@cases("igpo")
def test_igpo(case: Any) -> None:
    gains, joint = case["inputs"]["ig"], case["inputs"]["norm"] == "joint"
    means = [np.cumsum([-2.0, *of]).tolist() for of in gains]
    if joint:  # the recipe gains in probability, so these are its logarithms
        means = [np.log(np.cumsum([1.0, *of])).tolist() for of in gains]
    result = by("igpo_joint" if joint else "igpo", believing(means, case["inputs"]["outcome"]))
    close(result.advantages, case["outputs"]["A_turns"])


def test_an_episode_of_one_turn_has_its_outcome_alone() -> None:
    rows = believing([[-2.0], [-3.0]], [1.0, 0.0])
    half = 0.5 / (np.sqrt(0.5) + 1e-6)
    close(by("igpo", rows).advantages, [half, -half])


def test_an_unknown_step_score_makes_the_whole_of_its_episode_unknown() -> None:
    rows = [Row("a", 0, {"process": None}), Row("a", 1, {"process": 0.5}), Row("a", 2, {"outcome": 1.0})]
    values = run([*rows, Row("b", 0, {"process": 0.25})], "soft_min").trace[0][1]
    np.testing.assert_array_equal(values, [np.nan, np.nan, 0.0, 0.25])
