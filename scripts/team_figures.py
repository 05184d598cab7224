"""Figures of docs/results.md: M-GRPO's two alignments, what scoring is worth in CoMAS, and how teams learn.

python scripts/team_figures.py alignment            # docs/mgrpo_alignment.png, from made-up rollouts
python scripts/team_figures.py scorers RUN          # docs/comas_scorers.png, from the episodes of a run of `discussion`
python scripts/team_figures.py curves SWEEP KEY...  # docs/EXPERIMENT.png, from the metrics of a sweep's runs
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot

from marl_llm.credit import stages
from marl_llm.credit.recipe import credit, load_recipe
from marl_llm.credit.statistics import moments
from marl_llm.credit.table import FloatArray, Row, TurnTable, table_of
from marl_llm.episodes import batch_files, read_episodes
from marl_llm.run import read_metrics

mpl.use("agg")
DOCS = Path(__file__).resolve().parents[1] / "docs"
CALLS = (1, 2, 3, 3, 5, 8, 11, 12)
"""Calls of the sub-agent in the 8 rollouts of one query."""
SEEDS = 4000
KEYS = ("group", "role", "policy")


def rollouts(calls: tuple[int, ...] = CALLS, seed: int = 0) -> TurnTable:
    """One turn per call; the reward of a call is 0.1 + 0.4 c + 0.5 e, c of its rollout and e of its own (M-GRPO)."""
    draws = np.random.default_rng(seed)
    rows = []
    for rollout, number in enumerate(calls):
        correct = draws.random() < 0.5
        for call in range(number):
            reward = 0.1 + 0.4 * correct + 0.5 * draws.random()
            rows.append(Row(f"k{rollout}", call, {"sub": reward}, agent=f"searcher_{call}", role="searcher"))
    return table_of(rows)


def credited(table: TurnTable, **align: object) -> tuple[FloatArray, FloatArray]:
    """Weight of every call, and its advantage."""
    signal = stages.align(table, stages.reward(table), **align)  # type: ignore[arg-type]
    centred = stages.center(table, signal, keys=KEYS, per="episode")
    scaled = stages.scale(table, centred, keys=KEYS, per="episode", ddof=0, eps=1e-8, illegal="include")
    return signal.weights_N, np.nan_to_num(scaled.values_N)


def alignment(path: Path) -> None:
    """Expected multiplicities, expected contributions, and the noise that copying adds."""
    table = rollouts()
    reward_N = stages.reward(table).values_N
    weights_N, advantages_N = credited(table)
    mean, variance = moments(np.zeros(len(table), dtype=np.int64), 1, reward_N, weights_N)
    drawn = [credited(table, by="copies", size=8, seed=seed) for seed in range(SEEDS)]
    copies_SN = np.array([weights for weights, _ in drawn])
    own_SN = np.array([weights * advantages for weights, advantages in drawn])
    held_SN = copies_SN * (reward_N - mean[0]) / variance[0] ** 0.5
    mine_N = weights_N * advantages_N
    error = copies_SN.std(0) / SEEDS**0.5
    print(f"{len(CALLS)} rollouts with {CALLS} calls, {SEEDS} draws of copies of size 8")
    print(f"multiplicity: largest |mean - 1/d| {abs(copies_SN.mean(0) - weights_N).max():.4f}")
    print(f"  in standard errors {(abs(copies_SN.mean(0) - weights_N) / np.where(error > 0, error, 1)).max():.2f}")
    print(f"contribution, mean and deviation held: largest difference {abs(held_SN.mean(0) - mine_N).max():.4f}")
    print(f"contribution, the copies' own mean and deviation: {abs(own_SN.mean(0) - mine_N).max():.4f}")
    print(f"contribution, typical size {abs(mine_N).mean():.4f}, deviation over draws {own_SN.std(0).mean():.4f}")
    noise = {size: _noise(table, size) for size in (2, 4, 8, 16, 32)}
    for size, value in noise.items():
        print(f"gradient along a random direction, size {size}: deviation over draws / its size {value:.3f}")

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    call_N = np.arange(len(table))
    left.errorbar(call_N, copies_SN.mean(0), copies_SN.std(0), fmt=".", label="copies: mean and deviation of a draw")
    left.plot(call_N, weights_N, "k_", markersize=9, label="weights: 1/d")
    left.set(title="Weight of each call", xlabel="call, by rollout", ylabel="weight")
    middle.errorbar(call_N - 0.15, held_SN.mean(0), held_SN.std(0), fmt=".", label="copies, mean and deviation held")
    middle.errorbar(call_N + 0.15, own_SN.mean(0), own_SN.std(0), fmt=".", label="copies, their own")
    middle.plot(call_N, mine_N, "k_", markersize=9, label="weights")
    middle.set(title="Weight times advantage", xlabel="call, by rollout")
    right.plot(list(noise), list(noise.values()), "o-", label="copies")
    right.axhline(0, color="k", label="weights")
    right.set(title="Noise in the gradient", xlabel="size D", ylabel="deviation over draws / size")
    for axes in (left, middle, right):
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    print(path)


def _noise(table: TurnTable, size: int, directions: int = 200) -> float:
    """What the draw of copies adds to a gradient, relative to it: root mean squares over random directions."""
    random = np.random.default_rng(1)
    scores_DN = random.standard_normal((directions, len(table)))
    made = [credited(table, by="copies", size=size, seed=seed) for seed in range(400)]
    along_SD = np.array([weights * advantages for weights, advantages in made]) @ scores_DN.T
    return float((along_SD.std(0) ** 2).mean() ** 0.5 / (along_SD.mean(0) ** 2).mean() ** 0.5)


def scorers(run: Path, path: Path) -> None:
    """Mean advantage per token of each role, step by step, under `comas` and `comas_roles`."""
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    for axes, recipe in zip(panels, ("comas", "comas_roles")):
        told: dict[str, list[float]] = {"solver": [], "evaluator": [], "scorer that can be read": []}
        for file in batch_files(run):
            found = credit(list(read_episodes(file)), load_recipe(recipe))
            for role, value in _by_role(found.table, found.advantages).items():
                told[role].append(value)
        for role, values in told.items():
            axes.plot(range(1, len(values) + 1), values, label=role)
            print(f"{recipe}, {role}: mean advantage per token {np.mean(values):+.3f}, over {len(values)} steps")
        axes.axhline(0, color="k", linewidth=0.8)
        axes.set(title=recipe, xlabel="step", ylabel="mean advantage per token")
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    print(path)


def curves(folder: Path, keys: list[str], path: Path) -> None:
    """Mean and band (lowest to highest) over seeds of some metrics, against all tokens sampled and read so far."""
    variants: dict[str, list[list[dict[str, float | None]]]] = {}
    for run in sorted(found.parent for found in folder.glob("*-seed*/metrics.jsonl")):
        variants.setdefault(run.name.rpartition("-seed")[0], []).append(list(read_metrics(run)))
    figure, panels = pyplot.subplots(1, len(keys), figsize=(6 * len(keys), 4), layout="constrained", squeeze=False)
    for axes, key in zip(panels[0], keys):
        for variant, runs in variants.items():
            length = min(map(len, runs))
            told = [row for row in range(length) if all(run[row].get(key) is not None for run in runs)]
            values_RS = np.array([[run[row][key] for row in told] for run in runs], dtype=np.float64)
            tokens_S = np.mean([np.cumsum([_tokens(row) for row in run[:length]])[told] for run in runs], axis=0) / 1e6
            if len(told) > 12:
                values_RS = np.array([_smooth(values_S) for values_S in values_RS])
            (line,) = axes.plot(tokens_S, values_RS.mean(0), label=f"{variant} ({len(runs)} seeds)")
            axes.fill_between(tokens_S, values_RS.min(0), values_RS.max(0), alpha=0.2, color=line.get_color())
        axes.set(title=key, xlabel="million tokens, sampled and read in training")
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    print(path)


def _tokens(row: Mapping[str, float | None]) -> float:
    """Tokens that all policies sampled and read in a step."""
    ends = ("/tokens", "/prompt_tokens")
    return sum(value or 0 for key, value in row.items() if key.startswith("play/policy_cost/") and key.endswith(ends))


def _smooth(values_S: FloatArray, width: int = 5) -> FloatArray:
    """Mean over up to `width` steps around each."""
    kernel = np.ones(width)
    ones_S = np.ones_like(values_S)
    smoothed: FloatArray = np.convolve(values_S, kernel, "same") / np.convolve(ones_S, kernel, "same")
    return smoothed


def _by_role(table: TurnTable, advantages_N: FloatArray) -> Mapping[str, float]:
    """Mean over tokens; of scorers only what could be read, which earned 0."""
    score_N = table.rewards_NP[:, table.parts.index("score")]
    groups = {
        "solver": table.role == "solver",
        "evaluator": table.role == "evaluator",
        "scorer that can be read": (table.role == "scorer") & (score_N == 0),
    }
    return {
        role: float(np.average(advantages_N[rows], weights=np.maximum(table.num_tokens[rows], 1)))
        for role, rows in groups.items()
        if rows.any()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=("alignment", "scorers", "curves"))
    parser.add_argument("run", nargs="?", type=Path, help="run directory, or folder of a sweep")
    parser.add_argument("keys", nargs="*", help="metrics, for curves")
    given = parser.parse_args()
    if given.figure == "alignment":
        alignment(DOCS / "mgrpo_alignment.png")
    elif given.run is None:
        parser.error(f"{given.figure} needs a folder")
    elif given.figure == "scorers":
        scorers(given.run, DOCS / "comas_scorers.png")
    else:
        curves(given.run, given.keys, DOCS / f"{given.run.name.removeprefix('sweep-')}.png")
