"""The opponents of a league in a run: snapshots are saved, loaded into few engines, and exploiters begin anew."""

from collections import defaultdict
from collections.abc import Iterable

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
from marl_llm.types import Episode, Match

FIRST = "../../checkpoints/step_0"
"""The way from a snapshot to the checkpoint that is never deleted, in which the base of an adapter is."""


class Opponents:
    """Seats the snapshots of a run. An engine stays as long as the process, and gets its weights at every step."""

    def __init__(self, config: Config, run: Run) -> None:
        self._config = config
        self._run = run
        self._engines: dict[str, list[LLMPolicy]] = defaultdict(list)
        """By the policy whose snapshots they play."""

    def seat(self, matches: Iterable[Match]) -> dict[str, Policy]:
        """A policy for each snapshot that the matches name.

        Raises:
            RunError: a snapshot is missing or damaged.
        """
        names = {name for match in matches for name in match.seats.values() if name not in self._config.policies}
        seated: dict[str, Policy] = {}
        used: dict[str, int] = defaultdict(int)
        for name in sorted(names):
            policy, _, step = name.rpartition("@")
            folder, engines = snapshot_path(self._run.path, name), self._engines[policy]
            if used[policy] == len(engines):
                called = f"{policy} frozen {len(engines)}"
                engines.append(frozen_copy(self._config, policy, folder, called=called))
            frozen = engines[used[policy]]
            # Also right after it was made and when it has these weights already: every step begins with an empty cache.
            frozen.engine.load_weights(frozen.name, load_model(folder).model.state_dict(), int(step))
            used[policy] += 1
            seated[name] = frozen
        return seated

    def enlist(self, team: Team, league: League, step: int) -> League:
        """The league after a step (0: the warm-up): who is due joins it, and exploiters that have begin anew."""
        settings = self._config.matchmaking.league
        if settings is None:
            return league
        main = trained_policy(self._config)
        if step % settings.every == 0:
            league = self._join(team, league, main, step)
        for name, exploiter in settings.exploiters.items():
            if step and step % exploiter.reset_every == 0:
                league = pool.forget(self._join(team, league, name, step), name)
                learner = team.members[name].learner
                assert learner is not None, "the settings say that exploiters learn"
                learner.restart(saved_weights(checkpoint_path(self._run.path, 0) / name))
        return league

    def _join(self, team: Team, league: League, policy: str, step: int) -> League:
        settings = self._config.matchmaking.league
        assert settings is not None
        name = self._run.snapshot(policy, step, lambda folder: team.write(policy, folder, checkpoint=FIRST))
        return pool.join(settings, league, name, policy=policy, main=trained_policy(self._config))


def observed(config: Config, league: League, episodes: Iterable[Episode]) -> tuple[League, dict[str, float]]:
    """The league after the games of a step, and its metrics; nothing changes without one."""
    settings = config.matchmaking.league
    if settings is None:
        return league, {}
    main = trained_policy(config)
    league = pool.record(settings, league, duels(episodes), [main, *settings.exploiters])
    return league, league.metrics(main)
