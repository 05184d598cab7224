"""A finished run, and hand-written ones, for the episode browser."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from marl_llm.config import load_config
from marl_llm.episodes import episode_to_json
from marl_llm.run import Run
from marl_llm.train import train
from marl_llm.types import Completion, Episode, Match, Turn
from marl_llm.watch.browser import Browser
from marl_llm.watch.index import Index
from tests.test_train import Silent

SMALL = Path(__file__).parents[1] / "small.yaml"
DEMO = Path(__file__).parents[2] / "configs" / "kuhn.yaml"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three steps, with checkpoints of steps 0, 2 and 3; not to be written to."""
    folder = tmp_path_factory.mktemp("runs")
    return train(load_config(SMALL, [f"run.dir={folder}", "run.steps=3", "policies.agent.warmup.steps=2"]), Silent())


def turn(agent: str, reply: str, *, observation: str = "?", policy: str = "agent", legal: bool = True) -> Turn:
    """A turn of three sampled tokens."""
    sampled = Completion(tokens=(1, 2, 3), logprobs=(-0.1, -0.2, -0.3), stop="eos", versions=(0, 0, 0))
    return Turn(
        agent=agent,
        role=agent,
        policy=policy,
        observation=observation,
        reply=reply,
        action=reply,
        legal=legal,
        completion=sampled,
        prompt=(1,),
    )


def episode(number: int, *turns: Turn, first: float = 1.0, step: int = 1, **fields: object) -> Episode:
    """An episode of two players, of whom the first gets `first`."""
    match = Match(id=f"s{step}/g0/m{number}", game="kuhn_poker", seed=1, group=f"s{step}/g0", seats={"*": "agent"})
    returns = {"player_0": first, "player_1": -first}
    return Episode(match=match, turns=turns, returns=returns, **fields)  # type: ignore[arg-type]


def lines(episodes: Sequence[Episode]) -> bytes:
    """As in a file."""
    return "".join(f"{episode_to_json(one)}\n" for one in episodes).encode()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A run directory without episodes, to write to."""
    with Run.create(load_config(SMALL, []), tmp_path / "run") as run:
        return run.path


def step_file(run: Path, step: int) -> Path:
    """Where the episodes of a step are."""
    return run / "episodes" / f"step_{step:06d}.jsonl"


def read(run: Path) -> Index:
    """An up-to-date index of the run."""
    index = Index(run)
    for _ in index.refresh():
        pass
    return index


@pytest.fixture(scope="session")
def reader(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """The trained run as somebody reads it, read in full; nothing is written to it."""
    found = Browser(trained, Index(trained, tmp_path_factory.mktemp("index") / "index.sqlite"))
    for _ in found.index.refresh():
        pass
    found.curves.refresh()
    return found


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the demo: a short one, or the whole one that is named."""
    folder = tmp_path_factory.mktemp("demo")
    if "MARL_LLM_DEMO" in os.environ:
        return Path(shutil.copytree(os.environ["MARL_LLM_DEMO"], folder / "kuhn"))
    short = ["run.steps=12", "run.checkpoint_every=4", "policies.agent.warmup.steps=150", "evaluation.games=20"]
    config = load_config(DEMO, [*short, "run.threads=1", "evaluation.every=4"])
    return train(config, Silent(), path=folder / "kuhn")
