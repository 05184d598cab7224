"""A worker plays whole groups, whatever stage they are in, and says who does not answer."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from marl_llm.config import Config, GameConfig, PlayConfig, TreeConfig
from marl_llm.matchmaking import series
from marl_llm.opponents import Opponents
from marl_llm.policies.base import Policy, Reply, Strategy, View
from marl_llm.policies.scripted import make_scripted
from marl_llm.runtime.worker import Played, Worker
from marl_llm.types import Episode, Match


class Silent:
    """Never answers."""

    def submit(self, ticket: Hashable, view: View) -> None: ...

    def poll(self) -> list[tuple[Hashable, Reply]]:
        return []

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        return []


def matches(*groups: str, size: int = 2) -> list[Match]:
    found = []
    for name in groups:
        match = series(GameConfig(name="kuhn_poker"), {"*": "agent"}, name="x", games=1, seed=len(name))[0]
        found += [replace(match, id=f"{name}/m{m}", group=name, member=m) for m in range(size)]
    return found


def worker(policy: Policy, **play: object) -> Worker:
    config = Config(play=PlayConfig(**play))  # type: ignore[arg-type]
    return Worker(config, {"agent": policy}, Opponents(config, Path()), rewards=None)


def play_on(player: Worker) -> list[Played]:
    while player.num_matches:
        player.poll()
    return player.take()


def test_groups_come_back_whole_and_forks_with_them() -> None:
    player = worker(make_scripted("random", {}), tree=TreeConfig(width=3, turns=1))
    player.begin(matches("a", "bb"))
    played = {each.group: each for each in play_on(player)}
    assert played.keys() == {"a", "bb"}
    for name, group in played.items():
        assert len(group.episodes) == 2 * 3
        assert {episode.match.group for episode in group.episodes} == {name}
        assert sum(episode.match.branch is None for episode in group.episodes) == 2
    assert play_on(player) == []


def test_what_begins_while_others_are_played_is_played_as_if_alone() -> None:
    alone = worker(make_scripted("random", {}))
    alone.begin(matches("bb"))
    (expected,) = play_on(alone)
    player = worker(make_scripted("random", {}))
    player.begin(matches("a"))
    player.poll()
    player.begin(matches("bb"))
    assert next(each for each in play_on(player) if each.group == "bb") == expected


def test_rewards_of_a_users_own_are_added_to_every_episode() -> None:
    config = Config()

    def bonus(episode: Episode) -> dict[int, dict[str, float | None]]:
        return {0: {"bonus": 2.0}}

    player = Worker(config, {"agent": make_scripted("random", {})}, Opponents(config, Path()), bonus)
    player.begin(matches("a"))
    (group,) = play_on(player)
    assert [episode.turns[0].rewards["bonus"] for episode in group.episodes] == [2.0, 2.0]


def test_who_does_not_answer_is_named_with_match_agent_and_policy() -> None:
    player = worker(Silent())
    assert player.signs().waiting is None
    player.begin(matches("a", size=1))
    player.poll()
    signs = player.signs()
    assert signs.polls == 1
    assert signs.doing == ""
    assert signs.waiting is not None
    assert signs.waiting[0] == "match a/m0, agent player_0: policy agent does not answer"
    assert signs.waiting[1] >= 0


def test_effort_is_what_was_spent_since_the_last_time() -> None:
    player = worker(make_scripted("random", {}))
    player.begin(matches("a"))
    play_on(player)
    effort = player.effort()
    assert effort.busy_s > effort.policy_s["agent"] > 0
    assert player.effort().busy_s == player.effort().policy_s["agent"] == 0


def test_a_worker_runs_short_once_something_is_over_and_nothing_waits() -> None:
    config = Config(play=PlayConfig())
    player = Worker(config, {"agent": make_scripted("random", {})}, Opponents(config, Path()), rewards=None, live=1)
    player.begin(matches("a", "bb", "ccc", size=1))
    shorts = []
    while player.num_matches:
        player.poll()
        shorts.append((player.num_matches, player.short))
    assert {short for left, short in shorts if left in (3, 2)} <= {False}
    assert {short for left, short in shorts if left in (1, 0)} == {True}
    player.take()
    assert not player.short, "all that is over has been told"
