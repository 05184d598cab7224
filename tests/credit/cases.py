"""Worked numbers of the methods, from the papers' formulas or, where it was run, from the released code; and rows by
hand to check them with."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marl_llm.credit.load import load_recipe
from marl_llm.credit.recipe import Credited, credit_table
from marl_llm.credit.table import Row, table_of

FILES = sorted((Path(__file__).parent / "golden").glob("*.json"))
GOLDEN: dict[str, list[dict[str, Any]]] = {
    name: c for file in FILES for name, c in json.loads(file.read_text()).items()
}
"""Method to its cases, each with `inputs` and `outputs`; std is that of a sample unless it is said otherwise."""


def cases(method: str) -> pytest.MarkDecorator:
    """Run a test with each case of a method, as `case`."""
    return pytest.mark.parametrize("case", GOLDEN[method], ids=lambda case: json.dumps(case["inputs"])[:60])


def close(actual: np.ndarray, expected: Sequence[Any]) -> None:
    """Equal, but for the rounding of the cases to six digits."""
    np.testing.assert_allclose(actual, np.concatenate([np.atleast_1d(e) for e in expected]), rtol=1e-6, atol=6e-7)


def one_turn_each(inputs: Mapping[str, Any]) -> list[Row]:
    """One sample per episode, named so that the canonical order is the order of the list."""
    rewards = [{f"part_{p}": float(v) for p, v in enumerate(np.atleast_1d(r).tolist())} for r in inputs["rewards"]]
    return [
        Row(f"m{i:03}", 0, by_part, group=group)
        for i, (by_part, group) in enumerate(zip(rewards, inputs["group"], strict=True))
    ]


def one_role_each(episodes: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [
        Row(f"m{i:03}", k, {"r": value}, role=str(episode["role"]))
        for i, episode in enumerate(episodes)
        for k, value in enumerate(episode["rewards"])
    ]


def by_token(rewards: Sequence[Sequence[float]], mask: Sequence[Sequence[float]]) -> list[Row]:
    """A row is a token; tokens that nobody sampled are no rows."""
    return [
        Row(f"m{i:03}", t, {"r": value}) for i, row in enumerate(rewards) for t, value in enumerate(row) if mask[i][t]
    ]


def run(rows: Sequence[Row], *stages: Any) -> Credited:
    """What these stages make of the rows."""
    return credit_table(table_of(rows), load_recipe({"stages": list(stages)}))
