"""Numbers that the papers' formulas, or the released code where it was run, give for small cases."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from marl_llm.config import Aggregation
from marl_llm.credit.load import load_recipe
from marl_llm.credit.recipe import credit_table
from marl_llm.credit.rewards import comas, comas_released, length_bonus
from marl_llm.credit.table import Row, table_of
from marl_llm.learning.objective import aggregation_weights
from marl_llm.types import Episode, Match
from tests.credit.cases import GOLDEN, by_token, cases, close, one_role_each, one_turn_each, run


@cases("mars")
def test_mars_centres_returns_per_role_over_turns(case: Any) -> None:
    inputs = case["inputs"]
    keys = ["game", "role"] if inputs.get("per_role", True) else ["game"]
    rows = one_role_each(inputs["episodes"])
    result = run(rows, "reward", "returns", {"center": {"keys": keys, "reference": inputs["center"]}})
    close(result.advantages, case["outputs"]["A"])


def test_the_recipe_mars_is_the_papers_formula() -> None:
    case = GOLDEN["mars"][0]
    table = table_of(one_role_each(case["inputs"]["episodes"]))
    close(credit_table(table, load_recipe("mars")).advantages, case["outputs"]["A"])


@cases("mars_unique_norm")
def test_centring_on_distinct_values(case: Any) -> None:
    rows = [Row(f"m{i}", 0, {"r": float(x)}) for i, x in enumerate(case["inputs"]["x"])]
    stages: list[Any] = ["reward", {"center": {"keys": [], "reference": "unique"}}]
    values = run(rows, *stages).advantages
    if case["inputs"]["std"]:  # of the distinct values, here -2.5 and 2.5: the std 3.5355 is written by hand
        values = values / np.std([-2.5, 2.5], ddof=1)
    close(values, case["outputs"]["y"])


@cases("mars_released")
def test_mars_as_released_and_the_paper_side_by_side(case: Any) -> None:
    rows = [
        Row(f"m{i}", k, {"r": float(value)}, role=str(row["role"]), game=row["tag"], num_tokens=num_tokens)
        for i, row in enumerate(case["inputs"]["rows"])
        for k, (num_tokens, value) in enumerate(row["turns"])
    ]
    table = table_of(rows)
    close(credit_table(table, load_recipe("mars_released")).advantages, case["outputs"]["A_turns"])
    close(credit_table(table, load_recipe("mars")).advantages, case["outputs"]["paper"])


@cases("grpo_normalize_then_sum")
def test_normalising_before_summing(case: Any) -> None:
    # The numbers pool both roles; our recipe never does, so here everybody has the same role.
    table = table_of([row._replace(role="any") for row in one_role_each(case["inputs"]["episodes"])])
    close(credit_table(table, load_recipe("grpo_normalize_then_sum")).advantages, case["outputs"]["A"])


@cases("spiral_rae")
def test_history_baseline_of_spiral(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    rows = [
        Row(f"m{i}", 0, {"r": value}, game=game, role=str(role))
        for i, (game, role, value) in enumerate(inputs["stream"])
    ]
    history = {
        "keys": ["game", "role"],
        "alpha": inputs["alpha"],
        "order": inputs.get("order", "subtract_first"),
    }
    result = run(rows, "reward", {"history": history})
    close(result.advantages, outputs["A"])
    expected = {json.dumps(key.split("|")): value for key, value in outputs["baseline"].items()}
    assert result.state["history"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_recipe_rae_is_spirals_release() -> None:
    case = GOLDEN["spiral_rae"][0]
    rows = [Row(f"m{i}", 0, {"r": v}, game=g, role=str(r)) for i, (g, r, v) in enumerate(case["inputs"]["stream"])]
    close(credit_table(table_of(rows), load_recipe("rae")).advantages, case["outputs"]["A"])


@cases("at_grpo")
def test_at_grpo_compares_the_same_turn_of_the_same_agent(case: Any) -> None:
    # Candidates of one turn are single-turn episodes here, so the turn stands in the group's name.
    rows = [
        Row(
            f"m{i}",
            0,
            {"team": s["team"], "local": s["local"]},
            group=f"{s['env']}-{s['turn']}",
            role=s["agent"],
        )
        for i, s in enumerate(case["inputs"]["samples"])
    ]
    result = credit_table(table_of(rows), load_recipe("at_grpo"))
    close(result.trace[0][1], case["outputs"]["r"])
    close(result.advantages, case["outputs"]["A"])


@cases("grpo")
def test_grpo(case: Any) -> None:
    inputs = case["inputs"]
    scale = {key: inputs[key] for key in ("eps", "ddof") if key in inputs}
    center = {"keys": ["group", "role"], "per": "episode", "lone": inputs.get("singleton", "zero")}
    result = run(one_turn_each(inputs), "reward", "broadcast", {"center": center}, {"scale": {**center, **scale}})
    close(result.advantages, case["outputs"]["adv"])


def test_the_recipe_grpo_has_verls_settings() -> None:
    for case in GOLDEN["grpo"][:1] + GOLDEN["grpo"][3:]:
        if case["inputs"].get("singleton") == "raw":  # a quirk of verl's
            continue
        table = table_of(one_turn_each(case["inputs"]))
        close(credit_table(table, load_recipe("grpo")).advantages, case["outputs"]["adv"])


@cases("dr_grpo")
def test_dr_grpo(case: Any) -> None:
    if "loss" in case["inputs"]:
        assert _aggregated("constant", case["inputs"]) == pytest.approx(case["outputs"]["loss"])
        return
    table = table_of(one_turn_each(case["inputs"]))
    close(credit_table(table, load_recipe("dr_grpo")).advantages, case["outputs"]["adv"])


def _aggregated(mode: Aggregation, inputs: Mapping[str, Any]) -> float:
    """The loss of sequences of one turn each."""
    mask = torch.tensor(inputs["mask"], dtype=torch.bool)
    sequence_N = torch.nonzero(mask)[:, 0]
    weight_N = torch.ones(len(sequence_N), dtype=torch.float64)
    ids = (sequence_N, sequence_N, torch.zeros_like(sequence_N), sequence_N)
    weights_N = aggregation_weights(mode, *ids, weight_N, inputs.get("const", 1.0))
    return float((weights_N * torch.tensor(inputs["loss"], dtype=torch.float64)[mask]).sum())


@cases("loss_aggregation")
def test_loss_aggregation(case: Any) -> None:
    modes: dict[str, Aggregation] = {"token-mean": "token", "seq-mean-token-mean": "sequence"}
    mode = modes.get(case["inputs"]["mode"], "constant")
    assert _aggregated(mode, case["inputs"]) == pytest.approx(case["outputs"]["loss"])


@cases("rloo")
def test_rloo(case: Any) -> None:
    table = table_of(one_turn_each(case["inputs"]))
    close(credit_table(table, load_recipe("rloo")).advantages, case["outputs"]["adv"])


@cases("reinforce_pp")
def test_reinforce_pp_over_tokens(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    kl = np.array(inputs.get("kl1", np.zeros_like(inputs["token_reward"])))
    rewards = np.array(inputs["token_reward"]) - inputs.get("beta", 0.0) * kl
    whiten = {"whiten": {"keys": ["game", "role"]}}
    rows = by_token(rewards.tolist(), inputs["mask"])
    result = run(rows, "reward", {"returns": {"gamma": inputs["gamma"]}}, whiten)
    sampled = np.array(inputs["mask"], dtype=bool)
    close(dict(result.trace)["returns"], np.array(outputs["returns"])[sampled])
    if "adv" in outputs:
        close(result.advantages, np.array(outputs["adv"])[sampled])


@cases("length_reward_marshal")
def test_length_bonus_of_marshal(case: Any) -> None:
    inputs = case["inputs"]
    bonus = [length_bonus(num_tokens, alpha=inputs["alpha"]) for num_tokens in inputs["l"]]
    assert bonus == pytest.approx(case["outputs"]["r"])


def calls(sub_rewards: Sequence[Sequence[float]], weights: Sequence[Sequence[float]] | None = None) -> list[Row]:
    """One query; per rollout one turn of each sub-agent, with its weight."""
    return [
        Row(f"m{k}", i, {"r": value}, agent=f"sub_{i}", role="sub", weight=1.0 if weights is None else weights[k][i])
        for k, values in enumerate(sub_rewards)
        for i, value in enumerate(values)
    ]


CALLS = {"center": {"keys": ["group", "role"], "per": "episode"}}
CALLS_STD = {"scale": {"keys": ["group", "role"], "per": "episode", "ddof": 0, "eps": 1e-8}}


@cases("mgrpo_weights")
def test_mgrpo_weighs_each_rollout_the_same(case: Any) -> None:
    result = run(calls(case["inputs"]["sub_R"]), "reward", "align", CALLS, CALLS_STD)
    close(result.advantages, case["outputs"]["A_sub"])
    close(result.weights / result.weights.sum(), case["outputs"]["w"])
    assert credit_table(result.table, load_recipe("mgrpo")).advantages == pytest.approx(result.advantages)


@cases("mgrpo")
def test_mgrpo_with_copies(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    main = [Row(f"m{k}", 0, {"r": value}, role="main") for k, value in enumerate(inputs["main_R"])]
    close(run(main, "reward", CALLS, CALLS_STD).advantages, outputs["A_main"])
    counts = [[picks.count(i) for i in range(len(of))] for of, picks in zip(inputs["sub_R"], inputs["picks"])]
    result = run(calls(inputs["sub_R"], counts), "reward", CALLS, CALLS_STD)
    aligned = [result.advantages[row] for row, weight in enumerate(result.weights) for _ in range(int(weight))]
    close(np.array(aligned), outputs["A_sub"])


@cases("comas")
def test_comas_rewards(case: Any) -> None:
    score, out = case["inputs"]["tau"], case["outputs"]
    judgements = [{"solution": 0, "evaluation": 1, "judge": 2, "score": score}]
    match = Match(id="m", game="discussion", seed=0, group="g", seats={})
    episode = Episode(match=match, turns=(), returns={}, hidden={"judgements": judgements})
    released = {0: {"solution": out["solution"]}, 1: {"evaluation": out["evaluation"]}, 2: {"score": out["scorer"]}}
    assert comas_released(episode) == released
    unknown = {0: {"solution": None}, 1: {"evaluation": None}, 2: {"score": -1.0}}
    assert comas(episode) == (unknown if score is None else released)
