"""Worked numbers of the methods that look at tokens, and what their stages do where the papers say nothing."""

import json
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from marl_llm.credit.load import load_recipe
from marl_llm.credit.recipe import credit_table
from marl_llm.credit.rewards import first_call
from marl_llm.credit.table import Row, table_of
from marl_llm.credit.tokens import rank_phi
from marl_llm.types import Completion, Episode, Match, Turn
from tests.credit.cases import cases, close, run

Z = (
    "broadcast",
    {"center": {"keys": ["group"], "per": "episode"}},
    {"scale": {"keys": ["group"], "per": "episode"}},
)


def samples(rewards: Sequence[float], mask: Sequence[Sequence[float]], **probes: Any) -> list[Row]:
    """One turn per episode, with the tokens that were sampled and what was measured for each."""
    counts = [int(sum(row)) for row in mask]
    return [
        Row(
            f"m{i}",
            0,
            {"r": reward},
            tokens=tuple(range(count)),
            token_probes={name: values[i][:count] for name, values in probes.items()},
        )
        for i, (reward, count) in enumerate(zip(rewards, counts, strict=True))
    ]


def by_token(rows: Sequence[Row], *stages: Any) -> Any:
    return credit_table(table_of(rows), load_recipe({"unit": "token", "stages": list(stages)}))


@cases("ucas")
def test_ucas(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    if "logits" in inputs:  # what a learner measures: see tests/learning/test_measure.py
        z = np.array(inputs["logits"])
        assert np.log(np.exp(z).sum()) - z.mean() == pytest.approx(outputs["certainty"])
        return
    mask = np.array(inputs["mask"], dtype=bool)
    rows = samples(inputs["rewards"], inputs["mask"], certainty=inputs["certainty"], logit=inputs["chosen_logit"])
    signs = {"positive": -inputs["beta_pos"], "negative": inputs["beta_neg"]}
    times = {"times": {"by": "certainty", **signs, "reduce": inputs["reduce"]}}
    penalty = {"by": "logit", "form": "range", "weight": -inputs["lam"], "keys": [], "keep_sign": True}
    released = by_token(rows, "reward", *Z, times, {"bonus": {**penalty, "where": "all"}})
    close(released.advantages, np.array(outputs["adv"])[mask])
    mine = credit_table(table_of(rows), load_recipe("ucas"))
    if not any(released.trace[2][1]):  # all right: the release pushes them down, we leave them alone
        assert mine.advantages.tolist() == [0.0] * len(mine.advantages)
    elif inputs["reduce"] == "mean":
        close(mine.advantages, np.array(outputs["adv"])[mask])


@cases("xrpo_novelty")
def test_xrpo_novelty(case: Any) -> None:
    inputs = case["inputs"]
    rows = samples(inputs["adv"], [[1.0, 1.0]] * 4, logprob=[[x - 0.1, x + 0.1] for x in inputs["mean_logp"]])
    bonus = {"by": "logprob", "form": "novelty", "weight": inputs["lam"], "kappa": inputs["kappa"]}
    result = run(rows, "reward", {"bonus": {**bonus, "positive_only": True}})
    close(result.advantages, case["outputs"]["adv"])
    named = credit_table(
        table_of([row._replace(rewards={"r": float(row.rewards["r"] or 0) > 0}) for row in rows]),
        load_recipe("xrpo_novelty"),
    )
    close(named.advantages, case["outputs"]["adv"])


@cases("aspo")
def test_aspo(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    rows = [
        Row(f"m{i}", 0, {"r": float(right)} | ({} if call is None else {"call": call}), num_tokens=length)
        for i, (right, call, length) in enumerate(
            zip(inputs["correct"], inputs["first_code_pos"], inputs["lengths"], strict=True)
        )
    ]
    bonus = {"by": "call", "form": "early", "weight": inputs["delta"], "kappa": inputs["k"]}
    close(run(rows, {"reward": {"weights": {"call": 0.0}}}, *Z, {"bonus": bonus}).advantages, outputs["adv"])
    if inputs["k"] == 0.7:
        close(credit_table(table_of(rows), load_recipe("aspo")).advantages, outputs["adv"])


def test_the_first_call_is_where_a_tool_or_another_agent_is_called() -> None:
    def turn(agent: str, reply: str, length: int, parent: int | None = None) -> Turn:
        said = Completion(tokens=(1,) * length, logprobs=(0.0,) * length, stop="eos", versions=(0,) * length)
        return Turn(
            agent=agent,
            role=agent,
            policy="p",
            observation="",
            reply=reply,
            action="",
            legal=True,
            completion=said,
            parent=parent,
        )

    turns = (
        turn("a", "let me see", 5),
        turn("a", "so <code>1</code>xxx", 20),
        turn("a", "<code>2</code>", 9),
        turn("b", "ask c", 4),
        turn("c", "yes", 2, parent=3),
    )
    match = Match(id="m", game="g", seed=0, group="g", seats={})
    # Of 20 characters and 20 tokens 3 come first, after 5 of the turn before; b's call is all of its reply.
    assert first_call(Episode(match=match, turns=turns, returns={})) == {1: {"call": 8.0}, 3: {"call": 4.0}}


def learned(x: Mapping[str, float], ema: Mapping[str, float], reward: float, **params: Any) -> Any:
    """The advantage of a turn of three tokens whose hidden states have these ranks, and the averages afterwards."""
    names = {"ER": "er", "ERV": "erv", "ERA": "era"}
    rows = [Row("m", 0, {"r": reward}, tokens=(1, 2, 3), token_probes={names[n]: (v,) * 3 for n, v in x.items()})]
    recipe = load_recipe({"stages": ["reward", {"rank": params}], "unit": params.pop("unit", "turn")})
    state = {"rank": {json.dumps([names[n], "agent_0", "policy"]): v for n, v in ema.items()}}
    return credit_table(table_of(rows), recipe, state)


@cases("verl_phi")
def test_verl_phi(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    order = ("ER", "ERV", "ERA")
    x, ema = (np.array([[inputs[kind][name]] for name in order]) for kind in ("x", "ema"))
    close(rank_phi(x, ema, inputs["gain"]), [[outputs["phi"]]])
    result = learned(inputs["x"], inputs["ema"], 10.0, gain=inputs["gain"], alpha=0.25)
    close(result.advantages, [10 + outputs["phi"]])
    assert list(result.state["rank"].values()) == pytest.approx([2.25, 0.875, 0.0625])
    last = learned(inputs["x"], inputs["ema"], 10.0, gain=inputs["gain"], at="last", unit="token")
    close(last.advantages, [0.0, 0.0, 10 + outputs["phi"]])
    first = learned(inputs["x"], {}, 10.0)
    assert first.advantages.tolist() == [10.0], "the first batch has nothing to be held against"
    assert list(first.state["rank"].values()) == pytest.approx([3.0, 0.5, 0.1])


@cases("verl_advantage")
def test_verl_advantage(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    (adv,) = inputs["adv"]
    bonus = {"by": "phi", "where": "all", "positive_only": True, "kappa": 1 / inputs["kappa"]}
    rows = [Row("m", 0, {"r": adv}, probes={"phi": inputs["phi"]})]
    close(run(rows, "reward", {"bonus": bonus}).advantages, outputs["adv"])
    if inputs["phi"] > 0:
        verl_phi = {"ER": 3.0, "ERV": 0.5, "ERA": 0.1}, {"ER": 2.0, "ERV": 1.0, "ERA": 0.05}
        close(learned(*verl_phi, adv, kappa=inputs["kappa"]).advantages, outputs["adv"])


@cases("prime")
def test_prime(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    mask = np.array(inputs["mask"], dtype=bool)
    table = table_of(samples(inputs["accuracy"], inputs["mask"], implicit=inputs["implicit"]))
    result = credit_table(table, load_recipe("prime"))
    trace = dict(result.trace)
    close(trace["sum.1.fit"], np.array(outputs["normalized_implicit"])[mask])
    close(trace["returns"], np.array(outputs["returns"])[mask])
    close(result.advantages, np.array(outputs["adv"])[mask])


@cases("s_grpo_mask")
def test_s_grpo_mask(case: Any) -> None:
    inputs = case["inputs"]
    rows = [Row("m", 0, {"r": 1.0}, tokens=(0,) * inputs["length"])]
    thin = {"first": inputs["alpha"], "more": inputs["k"], "chance": inputs["prob"]}
    assert by_token(rows, "reward", {"thin": thin}).weights.tolist() == case["outputs"]["mask"]


def test_later_tokens_are_drawn_each_turn_anew_and_the_same_whatever_else_there_is() -> None:
    rows = [Row(f"m{i}", k, {"r": 1.0}, tokens=(0,) * 400) for i in range(3) for k in range(2)]
    stages: list[Any] = ["reward", {"thin": {"first": 10, "more": 100, "chance": 0.2}}]
    kept = by_token(rows, *stages).weights.reshape(6, 400)
    assert (kept[:, :10] == 1).all()
    shares = kept[:, 10:].sum(axis=1)
    assert (shares <= 100).all()
    assert shares.mean() == pytest.approx(0.2 * 390, abs=15)
    assert len({tuple(row) for row in kept.tolist()}) == 6
    assert by_token(rows[2:3], *stages).weights.tolist() == kept[2].tolist()
    other = by_token(rows, "reward", {"thin": {"first": 10, "more": 100, "chance": 0.2, "seed": 1}}).weights
    assert other.tolist() != kept.ravel().tolist()
    few = by_token(rows, "reward", {"thin": {"first": 10, "more": 5, "chance": 0.2}}).weights.reshape(6, 400)
    assert few.sum(axis=1).tolist() == [15.0] * 6


def test_what_is_not_measured_changes_nothing() -> None:
    rows = [Row(f"m{i}", 0, {"r": float(i % 2)}, tokens=(1, 2)) for i in range(4)]
    plain = run(rows, "reward", *Z).advantages.tolist()
    for name in ("xrpo_novelty", "aspo", "verl"):
        assert credit_table(table_of(rows), load_recipe(name)).advantages.tolist() == plain


QUANTITIES = ("certainty", "logit", "logprob", "er", "erv", "era", "implicit")


@pytest.mark.parametrize("name", ["aspo", "prime", "s_grpo", "ucas", "verl", "xrpo_novelty"])
def test_ten_thousand_episodes_of_ten_turns_take_little(name: str) -> None:
    rows = [
        Row(
            f"m{i:05}",
            k,
            {"r": float(i % 3), "call": float(k)},
            group=f"g{i // 8}",
            tokens=(1,) * 8,
            token_probes=dict.fromkeys(
                ("certainty", "logit", "logprob", "er", "erv", "era", "implicit"), (i % 7 / 7,) * 8
            ),
        )
        for i in range(1000)
        for k in range(10)
    ]
    table, recipe = table_of(rows), load_recipe(name)
    began = perf_counter()
    credit_table(table, recipe)
    assert perf_counter() - began < 1.0, "a tenth of them, on a busy machine"
