"""The opponents of a league in a run: snapshots are saved, loaded into few engines, and exploiters begin anew."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from marl_llm import league as pool
from marl_llm.config import Config
from marl_llm.league import League
from marl_llm.matchmaking import duels, trained_policy
from marl_llm.models import load_model, saved_weights
from marl_llm.players import frozen_copy
from marl_llm.policies.base import Policy
from marl_llm.policies.llm import LLMPolicy
from marl_llm.run import Run, checkpoint_path, snapshot_path
from marl_llm.team import Team
from marl_llm.types import Episode

FIRST = "../../checkpoints/step_0"
"""The way from a snapshot to the checkpoint that is never deleted, in which the base of an adapter is."""


class Opponents:
    """Seats the snapshots of a run. An engine stays as long as the process, and gets its weights when it is seated."""

    def __init__(self, config: Config, path: Path) -> None:
        """`path`: the run directory."""
        self._config = config
        self._path = path
        self._seated: dict[str, LLMPolicy] = {}
        self._free: dict[str, list[LLMPolicy]] = defaultdict(list)
        """By the policy whose snapshots they play."""
        self._made = 0

    def seat(self, names: Collection[str]) -> Mapping[str, Policy]:
        """A policy for each snapshot that is in play, from now on for these alone; those that are seated already stay.

        Raises:
            RunError: a snapshot is missing or damaged.
        """
        for name in sorted(self._seated.keys() - names):
            self._free[_policy(name)].append(self._seated.pop(name))
        for name in sorted(set(names) - self._seated.keys()):
            policy, step = _policy(name), int(name.rpartition("@")[2])
            folder, free = snapshot_path(self._path, name), self._free[policy]
            frozen = free.pop(0) if free else self._make(policy, folder)
            # Also right after it was made and when it has these weights already: it begins with an empty cache.
            frozen.engine.load_weights(frozen.name, load_model(folder).model.state_dict(), step)
            self._seated[name] = frozen
        return self._seated

    def forget(self) -> None:
        """Empty the caches, so that what a step plays does not depend on earlier ones."""
        for frozen in self._seated.values():
            frozen.engine.forget()

    def _make(self, policy: str, folder: Path) -> LLMPolicy:
        self._made += 1
        return frozen_copy(self._config, policy, folder, called=f"{policy} frozen {self._made}")


def _policy(snapshot: str) -> str:
    return snapshot.rpartition("@")[0]


def enlist(config: Config, run: Run, team: Team, league: League, step: int) -> League:
    """The league after a step (0: the warm-up): who is due joins it, and exploiters that have begin anew."""
    settings = config.matchmaking.league
    if settings is None:
        return league
    main = trained_policy(config)
    if step % settings.every == 0:
        league = _join(config, run, team, league, main, step)
    for name, exploiter in settings.exploiters.items():
        if step and step % exploiter.reset_every == 0:
            league = pool.forget(_join(config, run, team, league, name, step), name)
            learner = team.members[name].learner
            assert learner is not None, "the settings say that exploiters learn"
            learner.restart(saved_weights(checkpoint_path(run.path, 0) / name))
    return league


def _join(config: Config, run: Run, team: Team, league: League, policy: str, step: int) -> League:
    settings = config.matchmaking.league
    assert settings is not None
    name = run.snapshot(policy, step, lambda folder: team.write(policy, folder, checkpoint=FIRST))
    return pool.join(settings, league, name, policy=policy, main=trained_policy(config))


def observed(config: Config, league: League, episodes: Iterable[Episode]) -> tuple[League, dict[str, float]]:
    """The league after the games of a step, and its metrics; nothing changes without one."""
    settings = config.matchmaking.league
    if settings is None:
        return league, {}
    main = trained_policy(config)
    league = pool.record(settings, league, duels(episodes), [main, *settings.exploiters])
    return league, league.metrics(main)
