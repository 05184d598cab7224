"""Worked numbers of methods that look at shared states, prefixes and trees."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from marl_llm.config import PreferenceConfig
from marl_llm.credit.load import load_recipe
from marl_llm.credit.recipe import Credited, credit_table
from marl_llm.credit.table import Row, table_of
from marl_llm.learning.batch import flatten
from marl_llm.learning.preferences import Preferences
from marl_llm.types import Sample, Span
from tests.credit.cases import GOLDEN, cases, close, run

SAME = ["group", "role", "policy"]


def by(recipe: str, rows: Sequence[Row]) -> Credited:
    return credit_table(table_of(rows), load_recipe(recipe))


def by_tokens(rows: Sequence[Row], *stages: Any) -> Credited:
    return credit_table(table_of(rows), load_recipe({"unit": "token", "stages": list(stages)}))


def anchored(case: Any) -> list[Row]:
    steps, seen = case["inputs"]["steps"], {}
    rows = []
    for step in steps:
        k = seen[step["traj"]] = seen.get(step["traj"], -1) + 1
        rows.append(Row(step["traj"], k, {"r": float(step["reward"])}, group=step["group"], state=step["state"]))
    return rows


@cases("gigpo")
def test_gigpo_as_released_counts_every_step_and_leaves_a_lone_episode_its_return(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    per, spread = "turn" if inputs.get("cross_steps", True) else "episode", inputs["mode"] == "mean_std_norm"
    group = {"keys": ["group"], "per": per, "lone": "raw"}
    state = {"keys": ["group", "state"]}
    terms = [
        {"stages": ["reward", "broadcast", {"center": group}, *([{"scale": group}] if spread else [])]},
        {
            "weight": inputs["w"],
            "stages": ["reward", {"returns": {"gamma": inputs["gamma"]}}, {"center": state}]
            + ([{"scale": state}] if spread else []),
        },
    ]
    result = run(anchored(case), {"sum": terms})
    trace, last = dict(result.trace), "scale" if spread else "center"
    close(trace["sum.2.returns"], outputs["G"])
    close(trace[f"sum.1.{last}"], outputs["A_E"])
    close(trace[f"sum.2.{last}"], outputs["A_S"])
    close(result.advantages, outputs["A"])


def test_the_recipe_gigpo_counts_each_episode_once_and_gives_a_lone_one_zero() -> None:
    case = GOLDEN["gigpo"][2]
    assert case["inputs"]["cross_steps"] is False
    close(by("gigpo", anchored(case)).advantages, [*case["outputs"]["A"][:-1], 0.0])
    # With std: two episodes, -.5 and .5 of .70711; the same state as in the case.
    episodes = np.array([1, 1, -1, -1, -1]) * 0.5 / (np.sqrt(0.5) + 1e-6)
    expected = episodes + GOLDEN["gigpo"][1]["outputs"]["A_S"][:-1]
    close(by("gigpo_std", anchored(case)).advantages, [*expected, 0.0])


@cases("salt")
def test_salt_averages_over_episodes_that_took_the_same_step(case: Any) -> None:
    inputs = case["inputs"]
    rows = []
    for i, (steps, advantage) in enumerate(zip(inputs["trajs"], inputs["adv"], strict=True)):
        states = ["start", *(seen for _, seen in steps)]  # the last of them ends the game
        for k, (action, _) in enumerate(steps):
            rows.append(Row(f"m{i}", k, {"r": advantage if k == 0 else 0.0}, action=action, state=states[k]))
    merge = {"merge": {"keys": SAME, "history": inputs["h"] or 0}}
    close(run(rows, "reward", "broadcast", merge).advantages, case["outputs"]["A"])
    values = dict(by("salt", rows).trace)
    assert load_recipe("salt").stages[-1].params["history"] == 0
    close(values["merge"][[0, 2]], [values["scale"][[0, 2]].mean()] * 2)


def test_an_episode_that_repeats_a_step_counts_once_for_it() -> None:
    rows = [Row("a", k, {"r": 3.0 if k == 0 else 0.0}, action="go", state="here") for k in range(3)]
    rows += [Row("b", k, {"r": 0.0}, action="go", state="here") for k in range(2)]
    values = run(rows, "reward", "broadcast", "merge").advantages
    # Steps that stay here: of a (twice, 3.0) and of b (0.0); the last ones end both games.
    assert values.tolist() == [1.5] * 5


def completions(inputs: Mapping[str, Any], name: str) -> list[Row]:
    ids = {token: i for i, token in enumerate(sorted({t for response in inputs[name] for t in response}, key=str))}
    return [
        Row(f"m{i}", 0, {"r": value}, tokens=tuple(ids[token] for token in response))
        for i, (response, value) in enumerate(zip(inputs[name], inputs["rewards"], strict=True))
    ]


@cases("tempo")
def test_tempo(case: Any) -> None:
    rows = completions(case["inputs"], "responses")
    if case["inputs"].get("std", True):
        close(by("tempo", rows).advantages, case["outputs"]["A"])
        return
    group = ["reward", "broadcast", {"center": {"keys": SAME, "per": "episode"}}]
    terms = [{"stages": group}, {"stages": [*group, "prefix_gain"]}]
    close(by_tokens(rows, {"sum": terms}).advantages, case["outputs"]["A"])


def test_tempo_of_a_lone_sample_is_zero_where_the_release_has_nan() -> None:
    assert by("tempo", [Row("a", 0, {"r": 1.0}, tokens=(1, 2, 3))]).advantages.tolist() == [0.0] * 3


def test_tempo_over_turns_finds_where_games_part() -> None:
    responses, values = GOLDEN["tempo"][0]["inputs"]["responses"], GOLDEN["tempo"][0]["inputs"]["rewards"]
    rows = [
        Row(f"m{i}", k, {"r": value if k == 0 else 0.0}, action=str(token))
        for i, (response, value) in enumerate(zip(responses, values, strict=True))
        for k, token in enumerate(response)
    ]
    close(by("tempo_turns", rows).advantages, GOLDEN["tempo"][0]["outputs"]["A"])


def test_a_second_turn_after_other_sights_shares_no_prefix() -> None:
    rows = [
        Row("a", 0, {"r": 1.0}, tokens=(1,), observation="start"),
        Row("a", 1, {}, tokens=(2,), observation="heads"),
        Row("b", 0, {"r": 0.0}, tokens=(1,), observation="start"),
        Row("b", 1, {}, tokens=(3,), observation="tails"),
        Row("c", 0, {"r": 0.5}, tokens=(1,), observation="start"),
        Row("c", 1, {}, tokens=(4,), observation="heads"),
    ]
    # What the coin changed is nobody's doing: a is compared with c, which saw heads too.
    assert by_tokens(rows, "reward", "broadcast", "prefix_gain").advantages.tolist() == [0, 0.25, 0, 0, 0, -0.25]


def test_t_spmo_counts_every_pair_of_prefix_and_token_once() -> None:
    (case,) = GOLDEN["t_spmo"]
    sequences = case["inputs"]["sequences"]
    result = by("t_spmo", completions(case["inputs"], "sequences"))
    pairs: dict[str, list[tuple[float, float]]] = {}
    at = [(s, t) for s in sequences for t in range(len(s))]
    for (s, t), advantage, weight in zip(at, result.advantages, result.weights, strict=True):
        pairs.setdefault("".join(s[:t] or ["<root>"]) + "|" + s[t], []).append((advantage, weight))
    assert {pair: found[0][0] for pair, found in pairs.items()} == pytest.approx(case["outputs"]["adv"], abs=1e-9)
    assert [sum(weight for _, weight in found) for found in pairs.values()] == pytest.approx([1.0] * len(pairs))


def test_mt_grpo() -> None:
    (case,) = GOLDEN["mt_grpo"]
    inputs = case["inputs"]
    rows = []
    for i, (turn, outcome, called) in enumerate(
        zip(inputs["turn_r"], inputs["outcome_r"], inputs["has_tool"], strict=True)
    ):
        if called:
            rows.append(Row(f"m{i}", 0, {"tool": float(turn)}))
        rows.append(Row(f"m{i}", int(called), {"outcome": float(outcome)}))
    close(by("mt_grpo", rows).advantages, case["outputs"]["A_segments"])


def over_turns(turn_r: Sequence[Sequence[float]], outcome_r: Sequence[float]) -> list[Row]:
    return [
        Row(f"m{i}", k, {"outcome": outcome} if k == len(turns) else {"tool": float(turns[k])})
        for i, (turns, outcome) in enumerate(zip(turn_r, outcome_r, strict=True))
        for k in range(len(turns) + 1)
    ]


def test_mt_grpo_over_k_turns() -> None:
    (case,) = GOLDEN["mt_grpo_k"]
    inputs = case["inputs"]
    close(by("mt_grpo_k", over_turns(inputs["turn_r"], inputs["outcome_r"])).advantages, case["outputs"]["A_turns"])


def test_mt_grpo_over_k_turns_compares_a_turn_with_those_that_have_it() -> None:
    result = by("mt_grpo_k", over_turns([[1.0, 5.0], [0.0], [0.5, 7.0]], [1.0, 1.0, 1.0]))
    spread = np.sqrt(2) + 1e-4  # of 5 and 7; m1 answers in that turn, and its 0 is no part of it
    close(result.advantages[[0, 3, 5]], [0.5 / 0.5001, -0.5 / 0.5001, 0.0])
    close(result.advantages[[1, 4, 6]], [-1 / spread, 0.0, 1 / spread])


def leaves(tree: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], float]]:
    if isinstance(tree, list):
        for i, child in enumerate(tree):
            yield from leaves(child, (*path, i))
    else:
        yield path, float(tree)


def grown(tree: Any, *, roles: Sequence[str] = (), root: bool = False) -> list[Row]:
    """An episode per leaf; of a turn that several share, the first has its weight."""
    rows, seen = [], set()
    for path, value in leaves(tree):
        for k in range(0 if root else 1, len(path) + 1):
            node = "root" + "".join(f".{i}" for i in path[:k])
            turn = k if root else k - 1
            role = roles[turn] if roles else "any"
            row = Row("".join(map(str, path)), turn, {"r": value}, node=node, weight=float(node not in seen))
            rows.append(row._replace(role=role, agent=role, rewards={"r": value} if roles or k == len(path) else {}))
            seen.add(node)
    return rows


def of_nodes(result: Credited, stage: str) -> dict[str, float]:
    return dict(zip(result.table.column("node").tolist(), dict(result.trace)[stage].tolist(), strict=True))


def test_malt_values_the_tree_and_pairs_what_has_the_same_parent() -> None:
    (case,) = GOLDEN["malt"]
    outputs = case["outputs"]
    result = by("malt", grown(case["inputs"]["tree"], roles=("generator", "verifier", "refiner")))
    value = of_nodes(result, "pool")
    assert [value[f"root.{g}"] for g in range(3)] == pytest.approx(outputs["V_gen"], abs=1e-6)
    for g, expected in enumerate(outputs["V_ver"]):
        assert [value[f"root.{g}.{v}"] for v in range(3)] == pytest.approx(expected, abs=1e-6)
    assert preferred([value[f"root.{g}"] for g in range(3)], case) == outputs["pairs_gen"]
    for g in range(3):
        assert preferred([value[f"root.{g}.{v}"] for v in range(3)], case) == outputs["pairs_ver"][g]
        for v in range(3):
            found = preferred([value[f"root.{g}.{v}.{r}"] for r in range(3)], case)
            assert found == outputs["pairs_ref"][g][v]


def preferred(values: Sequence[float], case: Any = None) -> list[list[int]]:
    """The learner's pairs among different replies to one prompt that have these values."""
    span = Span(start=1, length=1, logprobs=(-1.0,), role="r", turn=0)
    samples = [
        Sample(policy="p", game="g", episode=str(i), agent="a", tokens=(9, i), spans=(replaced(span, value),))
        for i, value in enumerate(values)
    ]
    config = PreferenceConfig(threshold=case["inputs"]["thr"] if case else PreferenceConfig().threshold)
    found = Preferences.make(samples, flatten(samples), config)
    return sorted([a, b] for a, b in zip(found.chosen_P.tolist(), found.rejected_P.tolist(), strict=True))


def replaced(span: Span, value: float) -> Span:
    return Span(start=span.start, length=1, logprobs=span.logprobs, role="r", turn=0, advantages=(value,))


def test_children_and_leaves_weigh_differently_where_a_tree_is_uneven() -> None:
    tree = json.loads(GOLDEN["c3po"][0]["inputs"]["tree"])
    rows = grown(tree, root=True)
    by_leaf, by_child = (
        of_nodes(run(rows, "reward", "broadcast", {"pool": {"fan": fan}}), "pool") for fan in ("leaves", "children")
    )
    assert by_leaf["root"] == pytest.approx(0.5)
    assert by_child["root"] == pytest.approx((0 + 1 / 2 + (1 + 0) / 2) / 3)
    assert (by_leaf["root.2"], by_child["root.2"]) == pytest.approx((2 / 3, 0.5))


@cases("c3po")
def test_c3po_values_a_turn_by_all_episodes_through_it(case: Any) -> None:
    found = of_nodes(by("c3po", grown(json.loads(case["inputs"]["tree"]), root=True)), "pool")
    assert found == pytest.approx(case["outputs"], abs=1e-6)


@cases("spo_tree")
def test_spo_tree(case: Any) -> None:
    tree, outputs = json.loads(case["inputs"]["tree"]), case["outputs"]
    siblings = {"keys": [*SAME, "parent"]}
    stages: list[Any] = ["reward", "broadcast", {"pool": {"fan": "children"}}, {"center": siblings}]
    rows = grown(tree, root=True)
    if case["inputs"]["method"] == "rloo":
        result = run(rows, *stages)
        assert of_nodes(result, "pool")["root"] == pytest.approx(outputs["V_root"])
    else:
        result = run(rows, *stages, {"scale": siblings | {"ddof": 0, "eps": 1e-8}})
        centred, scaled = of_nodes(result, "center"), of_nodes(result, "scale")
        assert centred["root.1"] / scaled["root.1"] == pytest.approx(outputs["std_root"], rel=1e-6)
    edges = of_nodes(result, result.trace[-1][0])
    named = {"root" + "".join(f".{i}" for i in edge): value for edge, value in outputs["edges"]}
    assert {node: value for node, value in edges.items() if node != "root"} == pytest.approx(named, abs=1e-6)


def test_the_recipe_spo_tree_drops_edges_that_change_nothing() -> None:
    case = GOLDEN["spo_tree"][0]
    result = by("spo_tree", grown(json.loads(case["inputs"]["tree"])))
    kept = {n for n, w in zip(result.table.column("node"), result.weights, strict=True) if w > 0}
    assert kept == {"root" + "".join(f".{i}" for i in edge) for edge, value in case["outputs"]["edges"] if value}


def segmented() -> list[Row]:
    """The tree of the golden case by token: its first segments have two tokens, the others as many as they like."""

    def leaf(name: str, tokens: int, value: float, stems: tuple[tuple[str, int], ...] = ()) -> Row:
        return Row(name, 0, {"r": value}, tokens=tuple(range(tokens)), stems=stems)

    first = [leaf("0", 3, 1.0), leaf("0f", 5, 0.0, (("0#0", 2),))]
    return [*first, leaf("1", 2, 0.0), leaf("2", 4, 1.0), leaf("2f", 3, 1.0, (("2#0", 2),))]


@cases("spo_tree")
def test_spo_tree_by_token_gives_all_tokens_of_a_segment_what_the_segment_changes(case: Any) -> None:
    outputs, siblings = case["outputs"], {"keys": [*SAME, "parent"]}
    if case["inputs"]["method"] == "rloo":
        result = by("spo_tree_tokens", segmented())
        root, _ = np.split(dict(result.trace)["pool"][[0, 8, 10]], [3])
        assert root.mean() == pytest.approx(outputs["V_root"])
    else:
        stages: list[Any] = ["reward", "broadcast", {"pool": {"keys": ["node", "token"], "fan": "children"}}]
        result = by_tokens(segmented(), *stages, {"center": siblings}, {"scale": siblings | {"ddof": 0, "eps": 1e-8}})
        centred, scaled = (dict(result.trace)[stage][8] for stage in ("center", "scale"))
        assert centred / scaled == pytest.approx(outputs["std_root"], rel=1e-6)
    edges = dict(outputs["edges"])
    lengths = {"0f": (2, 3), "0": (2, 1), "1": (2,), "2": (2, 2), "2f": (2, 1)}
    names = {"0": ("0", "00"), "0f": ("0", "01"), "1": ("1",), "2": ("2", "20"), "2f": ("2", "21")}
    for (name, _), values in result.by_turn(dict(result.trace)[result.trace[-1][0]]).items():
        expected = [edges[edge] for edge, size in zip(names[name], lengths[name], strict=True) for _ in range(size)]
        assert values == pytest.approx(expected, abs=1e-6), name


def test_the_recipe_spo_tree_tokens_learns_each_token_once_and_none_that_changes_nothing() -> None:
    result = by("spo_tree_tokens", segmented())
    assert result.by_turn(result.weights) == {
        ("0", 0): [0, 0, 1],  # what 0 and 0f share is worth what the root is
        ("0f", 0): [0, 0, 1, 1, 1],
        ("1", 0): [1, 1],
        ("2", 0): [1, 1, 0, 0],
        ("2f", 0): [0, 0, 0],
    }


def test_a_tree_of_tokens_that_is_uneven_and_what_follows_its_reply() -> None:
    """a forks after its first and its second token, and each leaf plays a second turn: V of a's tokens is .25 (of 0 and
    .5), .5 (of 1 and 0) and 1, that of the root .625 (with b's 1). In the second turns nothing is to choose."""
    stems = {"a": (), "af": (("a#0", 1),), "ag": (("a#0", 2),), "b": ()}
    tokens = {"a": (1, 2, 3), "af": (1, 4), "ag": (1, 2, 5, 6), "b": (7, 8)}
    rows = [
        Row(name, turn, {"r": value}, tokens=tokens[name] if turn == 0 else (9, 9), stems=() if turn else stems[name])
        for name, value in {"a": 0.5, "af": 0.0, "ag": 0.0, "b": 0.5}.items()
        for turn in range(2)
    ]
    result = by("spo_tree_tokens", rows)
    found = result.by_turn(result.advantages)
    assert {name: found[name, 0] for name in stems} == {
        "a": [-0.375, 0.25, 0.5],
        "af": [-0.375, -0.25],
        "ag": [-0.375, 0.25, -0.5, -0.5],
        "b": [0.375, 0.375],
    }
    assert all(found[name, 1] == [0.0, 0.0] for name in stems)
    parent = result.by_turn(result.table.codes["parent"])
    assert parent["a", 0][2] == parent["ag", 0][2] == parent["ag", 0][3]
    assert len({*parent["a", 0], parent["af", 0][1], parent["b", 0][0]}) == 3
    assert len({parent[name, 1][0] for name in stems}) == 4


@cases("marge")
def test_marge_compares_what_continues_the_same_turn_and_drops_flat_ones(case: Any) -> None:
    rows = []
    for state, scores in enumerate(case["inputs"]["state_scores"]):
        for i, score in enumerate(scores):
            guide = Row(f"s{state}{i}", 0, {}, node=f"state {state}", weight=float(i == 0))
            rows += [guide, guide._replace(turn=1, node="", weight=1.0, rewards={"r": float(score)})]
    result = by("marge", rows)
    continued = result.table.turn == 1
    kept = continued & (result.weights > 0)
    close(result.advantages[kept], [a for a in case["outputs"]["A"] if a])
    dropped = [not a for a in case["outputs"]["A"]]
    assert (result.weights[continued].reshape(3, -1) == 0).all(axis=1).tolist() == dropped


@cases("collabui")
def test_collabui_prefers_useful_turns_to_useless_ones(case: Any) -> None:
    scores = case["inputs"]["scores"]
    rows = [
        Row("m", k, {"critic": score, "outcome": 5.0}, agent=agent) for k, (agent, score) in enumerate(scores.items())
    ]
    values = by("collabui", rows).advantages.tolist()
    names = list(scores)
    pairs = [[names[a], names[b]] for a, b in preferred(values)]
    assert pairs == case["outputs"]["pairs"]


@cases("coma_mc")
def test_coma_by_sampling_compares_messages_in_the_same_place(case: Any) -> None:
    rows = []
    for i, value in enumerate(case["inputs"]["returns"]):
        before = Row(f"m{i}", 0, {}, node="before", weight=float(i == 0))
        rows += [before, Row(f"m{i}", 1, {"r": value}, role="asked", agent="asked")]
    result = by("coma_mc", rows)
    close(result.advantages[result.table.turn == 1], case["outputs"]["A"])


@cases("brpo_summary")
def test_answers_after_one_thought_are_compared_with_each_other(case: Any) -> None:
    rows = []
    for thought, answers in enumerate(case["inputs"]["summary_reward"]):
        for i, value in enumerate(answers):
            shared = Row(f"t{thought}{i}", 0, {}, node=f"thought {thought}", weight=float(i == 0))
            rows += [shared, Row(f"t{thought}{i}", 1, {"r": value}, role="summary", agent="summary")]
    result = by("brpo_summary", rows)
    close(result.advantages[result.table.turn == 1], case["outputs"]["adv"])


def process(inputs: Mapping[str, Any]) -> list[Row]:
    scores = inputs.get("process_reward", inputs.get("r"))
    return [Row("m", k, {"process": value, "outcome": 9.0}) for k, value in enumerate(scores)]


@cases("pure_softmin")
def test_pure_lets_the_worst_step_decide(case: Any) -> None:
    scores, outputs = case["inputs"]["process_reward"], case["outputs"]
    soft = {"soft_min": {"part": "process", "temperature": case["inputs"]["T"]}}
    trace = dict(run(process(case["inputs"]), soft, "returns").trace)
    close(trace["soft_min"], outputs["reward"])
    np.testing.assert_allclose(trace["soft_min"] / scores, outputs["weights"], rtol=1e-6)
    if "returns" in outputs:
        close(trace["returns"], outputs["returns"])


@cases("pure_min_form")
def test_pure_min_form(case: Any) -> None:
    close(dict(by("pure_min", process(case["inputs"])).trace)["returns"], case["outputs"]["returns"])


@cases("pure_min")
def test_a_turn_is_worth_the_worst_from_it_on(case: Any) -> None:
    close(dict(by("pure_min", process(case["inputs"])).trace)["returns"], case["outputs"]["R"])


@cases("pure_rloo")
def test_pure_as_in_verl_takes_the_mean_of_the_others_over_a_padded_matrix(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    sampled = np.array(inputs["mask"], dtype=bool)
    rows = [
        Row(f"m{i}", t, {"r": value}, group=inputs["group"][i])
        for i, values in enumerate(inputs["token_reward"])
        for t, value in enumerate(values)
        if sampled[i, t]
    ]
    result = run(rows, "reward", "returns", {"center_padded": {"reference": "others"}}, "whiten")
    trace = dict(result.trace)
    close(trace["returns"], np.array(outputs["returns"])[sampled])
    close(trace["center_padded"], np.array(outputs["centered"])[sampled])
    close(result.advantages, np.array(outputs["adv"])[sampled])


@cases("pure_token_baseline")
def test_the_recipe_pure_takes_off_the_other_samples_mean_per_token(case: Any) -> None:
    sums, lengths = case["inputs"]["sum_process_reward"], [int(n) for n in case["inputs"]["lengths"]]
    rows = [
        Row(f"m{i}", 0, {"process": value}, tokens=(7,) * length)
        for i, (value, length) in enumerate(zip(sums, lengths, strict=True))
    ]
    trace = dict(by("pure", rows).trace)
    firsts = np.cumsum([0, *lengths[:-1]])
    close(-trace["center"][firsts], case["outputs"]["baseline"])  # nothing is paid at the first token
    # A step's reward less the baseline times its tokens.
    expected = [v - b * n for v, b, n in zip(sums, case["outputs"]["baseline"], lengths, strict=True)]
    close(trace["returns"][firsts], expected)


@cases("igpo_released")
def test_igpo_as_released_takes_the_mean_of_each_token_position(case: Any) -> None:
    sampled = np.array(case["inputs"]["mask"], dtype=bool)
    rows = [
        Row(f"m{i}", t, {"r": float(value)}, probes={"gold": -1.0, "gold_before": -1.0}, tokens=(5,))
        for i, values in enumerate(case["inputs"]["token_rewards"])
        for t, value in enumerate(values)
        if sampled[i, t]
    ]
    close(by("igpo_released", rows).advantages, np.array(case["outputs"]["A"])[sampled])


def test_only_some_rows_keep_their_values() -> None:
    rows = [
        Row("a", 0, {"r": 1.0}),
        Row("a", 1, {"r": 2.0, "tool": 0.0}),
        Row("a", 2, {"r": 3.0}),
        Row("b", 0, {"r": 4.0}),
        Row("b", 1, {"r": None}),
    ]

    def kept(**settings: str) -> list[float]:
        return run(rows, "reward", {"only": {"part": "tool", **settings}}).trace[-1][1].tolist()

    nan = pytest.approx(float("nan"), nan_ok=True)
    assert kept(where="due") == [0, 2, 0, 0, 0]
    assert kept(where="until_due") == [1, 2, 0, 0, 0]
    assert kept(where="some_due") == [1, 2, 3, 0, 0]
    assert kept(where="none_due") == [0, 0, 0, 4, nan]
    assert kept(where="last") == [0, 0, 3, 0, nan]
    assert kept(where="before_last") == [1, 2, 0, 4, 0]
    assert kept(where="all_known", otherwise="unknown") == [1, 2, 3, nan, nan]
