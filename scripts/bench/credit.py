"""How long each recipe takes for 10,000 episodes of 10 turns with 8 tokens each, and how that grows with the turns.

PYTHONPATH=. python scripts/bench/credit.py [--episodes N] [--only RECIPE ...]
"""

import argparse
from collections.abc import Sequence
from time import perf_counter

from marl_llm.credit.load import Recipe, load_recipe, recipe_names
from marl_llm.credit.needs import OFFERS, needs
from marl_llm.credit.recipe import credit_table
from marl_llm.credit.table import Row, TurnTable, table_of
from marl_llm.seeds import generator

TOKENS = 8
WHOLE_TURNS, BY_TOKEN = 1.0, 5.0
"""Seconds wanted: for recipes over turns, and for those that look at tokens or at how episodes hang together."""


def table(episodes: int, turns: int) -> TurnTable:
    """Groups of 8 episodes of two players, who are paid in the end; states come back, and everything is measured."""
    draws = generator(0, "bench", "credit")
    won = draws.integers(2, size=episodes).tolist()
    states, moves = draws.integers(20, size=(2, episodes, turns)).tolist()
    tokens = draws.integers(50, size=(episodes, turns, TOKENS)).tolist()
    measured = draws.random((episodes, turns, TOKENS)).tolist()
    names = ["logprob", *sorted(OFFERS.keys() - {"state_key", "tokens"})]
    return table_of(
        Row(
            f"g{i // 8}/m{i % 8}",
            k,
            {"outcome": float(won[i])} if k >= turns - 2 else {},
            agent=f"player_{k % 2}",
            role=f"player_{k % 2}",
            group=f"g{i // 8}",
            observation=f"state {states[i][k]}",
            state=f"state {states[i][k]}",
            action=f"move {moves[i][k]}",
            truncated=i % 10 == 0,
            tokens=tuple(tokens[i][k]),
            token_probes=dict.fromkeys(names, tuple(measured[i][k])),
        )
        for i in range(episodes)
        for k in range(turns)
    )


def seconds(turns: TurnTable, recipe: Recipe) -> float:
    """Of one pass; the better of two."""
    times = []
    for _ in range(2):
        began = perf_counter()
        credit_table(turns, recipe)
        times.append(perf_counter() - began)
    return min(times)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", default=recipe_names(), help="recipes")
    options = parser.parse_args(arguments)
    began = perf_counter()
    ten = table(options.episodes, 10)
    print(f"{options.episodes} episodes x 10 turns x {TOKENS} tokens, made in {perf_counter() - began:.1f} s")
    five = table(options.episodes, 5)
    print("| recipe | s for 10 turns | wanted | times those for 5 turns |\n|---|---|---|---|")
    slow = []
    for name in options.only:
        recipe = load_recipe(name)
        wanted = BY_TOKEN if recipe.by_token or {"tokens", "state_key"} & set(needs(recipe)) else WHOLE_TURNS
        took = seconds(ten, recipe)
        print(f"| {name} | {took:.2f} | {wanted:g} | {took / seconds(five, recipe):.1f} |", flush=True)
        slow += [name] if took > wanted else []
    print(f"slower than wanted: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
