"""The coordinator with workers that are threads of this process, so that everything can be made to happen."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from threading import Event, Thread

import pytest

from marl_llm.config import ClusterConfig, Config, PlayConfig
from marl_llm.errors import GameError, RunError
from marl_llm.runtime.coordinator import Coordinator, Gone, Order, Report
from marl_llm.runtime.rollouts import Step, Stopped
from marl_llm.runtime.watchdog import Signs
from marl_llm.runtime.worker import Effort, Played
from marl_llm.types import Branch, Episode, Match, Status

Play = Callable[["Player", Order], Report]


def ended(match: Match, status: Status = "done") -> Episode:
    return Episode(match=match, turns=(), returns={}, status=status, note="gone")


def group(step: int, number: int, size: int = 2) -> list[Match]:
    name = f"s{step}/g{number}"
    return [Match(id=f"{name}/m{m}", game="none", seed=0, group=name, seats={}) for m in range(size)]


def groups(step: int, count: int, size: int = 2) -> list[Match]:
    return [match for number in range(count) for match in group(step, number, size)]


def played(order: Order, status: Status = "done") -> tuple[Played, ...]:
    names = dict.fromkeys(match.group for match in order.matches)
    return tuple(
        Played(group=name, episodes=tuple(ended(m, status) for m in order.matches if m.group == name)) for name in names
    )


class Player:
    """A worker in a thread per call; `orders` is what it was told."""

    def __init__(self, number: int, play: Play) -> None:
        self.number = number
        self.orders: list[Order] = []
        self.ended = Event()
        self.looks = Signs()
        self._play = play

    def play(self, order: Order) -> "Future[Report]":
        self.orders.append(order)
        answer: Future[Report] = Future()

        def work() -> None:
            try:
                answer.set_result(self._play(self, order))
            except Exception as error:
                answer.set_exception(error)

        Thread(target=work, daemon=True).start()
        return answer

    def signs(self) -> "Future[Signs]":
        answer: Future[Signs] = Future()
        answer.set_result(self.looks)
        return answer

    def end(self) -> None:
        self.ended.set()


class Cast:
    """Makes players, and remembers them and what was told."""

    def __init__(self, play: Play, **cluster: object) -> None:
        self.players: list[Player] = []
        self.told: list[str] = []
        self._play = play
        config = Config(cluster=ClusterConfig(**cluster), play=PlayConfig(max_faults=0.5))  # type: ignore[arg-type]
        self.coordinator = Coordinator(config, self._spawn, self.told.append)

    def _spawn(self, number: int) -> Player:
        self.players.append(Player(number, self._play))
        return self.players[-1]

    def step(self, step: int, matches: list[Match]) -> Step:
        self.coordinator.begin(step, matches)
        return self.coordinator.finish(step, lambda: False)


@pytest.fixture
def cast() -> Iterator[Callable[..., Cast]]:
    casts: list[Cast] = []

    def make(play: Play, **cluster: object) -> Cast:
        casts.append(Cast(play, **cluster))
        return casts[-1]

    yield make
    for each in casts:
        each.coordinator.close()


def at_once(player: Player, order: Order) -> Report:
    return Report(played=played(order), effort=Effort(policy_s={"agent": 1.5}, busy_s=1.0))


def ids(step: Step) -> list[str]:
    return [episode.match.id for episode in step.episodes]


def test_a_step_is_all_its_matches_in_the_order_of_their_ids_and_groups_are_dealt_out_evenly(
    cast: Callable[..., Cast],
) -> None:
    company = cast(at_once, workers=3)
    step = company.step(1, groups(1, 6))
    assert ids(step) == sorted(match.id for match in groups(1, 6))
    assert step.policy_s == {"agent": 4.5}
    for player in company.players:
        assert [match.group for order in player.orders for match in order.matches] == [
            f"s1/g{number}" for number in (player.number, player.number + 3) for _ in range(2)
        ]
    assert step.metrics["cluster/live"] == step.metrics["cluster/queue"] == step.metrics["cluster/restarts"] == 0
    assert step.metrics["cluster/worker_0/games_per_s"] > 0


def test_who_has_twice_what_it_plays_at_once_gets_no_more_until_something_is_over(cast: Callable[..., Cast]) -> None:
    go, begun = Event(), Event()

    def wait(player: Player, order: Order) -> Report:
        begun.set()
        assert go.wait(10)
        return Report(played=played(order))

    company = cast(wait, workers=1, live=2)
    company.coordinator.begin(1, groups(1, 5))
    assert begun.wait(10)
    assert [len(order.matches) for order in company.players[0].orders] == [4]
    go.set()
    step = company.coordinator.finish(1, lambda: False)
    assert len(step.episodes) == 10
    assert all(len(order.matches) <= 4 for order in company.players[0].orders)


def test_a_step_is_never_filled_by_whoever_is_faster(cast: Callable[..., Cast]) -> None:
    """Worker 0 is stuck in step 1 while worker 1 ends all that it has of steps 1 and 2."""
    go = Event()

    def play(player: Player, order: Order) -> Report:
        if player.number == 0:
            assert go.wait(10)
        return Report(played=played(order))

    company = cast(play, workers=2)
    company.coordinator.begin(1, groups(1, 2))
    company.coordinator.begin(2, groups(2, 2))
    asked = iter([False, False, True])
    with pytest.raises(Stopped, match="stopped in step 1"):
        company.coordinator.finish(1, lambda: next(asked))
    go.set()
    assert ids(company.coordinator.finish(1, lambda: False)) == [match.id for match in groups(1, 2)]
    assert ids(company.coordinator.finish(2, lambda: False)) == [match.id for match in groups(2, 2)]


def test_what_a_lost_worker_had_is_played_again_by_the_next_one_and_nothing_twice(cast: Callable[..., Cast]) -> None:
    lost: list[int] = []

    def play(player: Player, order: Order) -> Report:
        if player.number == 1 and len(lost) < 2:
            lost.append(player.number)
            raise Gone("killed")
        return Report(played=played(order))

    company = cast(play, workers=2)
    company.coordinator.publish({"agent": (1, "weights")})
    step = company.step(1, groups(1, 6))
    assert ids(step) == sorted(match.id for match in groups(1, 6))
    assert step.metrics["cluster/restarts"] == 2
    assert company.told == ["worker 1 is lost (killed); another one plays its 6 games again"] * 2
    first, second, third = [player for player in company.players if player.number == 1]
    assert first.ended.is_set()
    assert second.ended.is_set()
    for player in (first, second, third):
        assert player.orders[0].weights is not None
        assert player.orders[0].weights.policies == {"agent": (1, "weights")}
        assert len(player.orders[0].matches) == 6


def test_too_many_losses_end_the_run(cast: Callable[..., Cast]) -> None:
    def play(player: Player, order: Order) -> Report:
        raise Gone("no memory")

    company = cast(play, workers=1, restarts=3)
    with pytest.raises(RunError, match=r"worker 0 is lost \(no memory\), and cluster.restarts is 3"):
        company.step(1, groups(1, 1))


def test_weights_are_sent_once_to_everybody_and_reach_games_in_progress(cast: Callable[..., Cast]) -> None:
    rounds: dict[str, Order] = {}

    def play(player: Player, order: Order) -> Report:
        """What is begun in one call is over in the next."""
        before, rounds["last"] = rounds.get("last", Order()), order
        return Report(played=played(before))

    company = cast(play, workers=1)
    company.coordinator.publish({"agent": (0, "old")})
    company.coordinator.begin(1, groups(1, 1))
    company.coordinator.publish({"agent": (1, "new")})
    company.coordinator.finish(1, lambda: False)
    sent = [order.weights for order in company.players[0].orders]
    assert [weights.policies if weights else None for weights in sent] == [
        {"agent": (0, "old")},
        {"agent": (1, "new")},
    ]


def test_a_bad_game_in_a_worker_ends_the_step_with_its_words(cast: Callable[..., Cast]) -> None:
    def play(player: Player, order: Order) -> Report:
        raise GameError("game none raised")

    with pytest.raises(GameError, match="game none raised"):
        cast(play, workers=2).step(1, groups(1, 2))


def test_faults_end_a_step_as_soon_as_they_are_too_many(cast: Callable[..., Cast]) -> None:
    def play(player: Player, order: Order) -> Report:
        return Report(played=played(order, "fault"))

    with pytest.raises(RunError, match="3 of 4 episodes ended at fault"):
        cast(play, workers=1, live=1).step(1, groups(1, 4, size=1))


def test_more_of_a_step_may_come_and_faults_count_over_all_of_it(cast: Callable[..., Cast]) -> None:
    def play(player: Player, order: Order) -> Report:
        down = all(match.group in ("s1/g2", "s1/g3", "s2/g0") for match in order.matches)
        return Report(played=played(order, "fault" if down else "done"))

    made = cast(play, workers=1)
    assert len(made.step(1, groups(1, 2)).episodes) == 4
    assert ids(made.step(1, group(1, 2))) == ["s1/g2/m0", "s1/g2/m1"], "2 of 6"
    assert ids(made.step(1, group(1, 3))) == ["s1/g3/m0", "s1/g3/m1"], "4 of 8, which is as many as there may be"
    with pytest.raises(RunError, match="2 of 2 episodes ended at fault"):
        made.step(2, group(2, 0))


def test_forks_at_fault_count_when_the_step_is_over_though_its_last_group_has_none(cast: Callable[..., Cast]) -> None:
    """Two games and four forks, of which all four ended at fault, in the first group; the limit is a half."""

    def play(player: Player, order: Order) -> Report:
        first, *others = played(order)
        match = first.episodes[0].match
        fork = Branch(episode=match.id, turn=0)
        forks = [ended(replace(match, id=f"{match.id}/f{n}", branch=fork), "fault") for n in range(4)]
        if match.group == "s1/g0":
            first = replace(first, episodes=(*first.episodes, *forks))
        return Report(played=(first, *others))

    with pytest.raises(RunError, match="4 of 6 episodes ended at fault"):
        cast(play, workers=1, live=1).step(1, groups(1, 2, size=1))


def test_who_does_not_answer_is_named_and_then_replaced(cast: Callable[..., Cast]) -> None:
    go, stuck = Event(), []

    def play(player: Player, order: Order) -> Report:
        if not stuck:
            stuck.append(player)
            player.looks = Signs(polls=7, doing="match s1/g0/m0, agent a: the game")
            go.wait(20)
        return Report(played=played(order))

    company = cast(play, workers=1, hung_s=1.0, lost_s=4.0)
    step = company.step(1, groups(1, 1))
    go.set()
    assert len(step.episodes) == 2
    named, replaced = company.told
    assert named.startswith("worker 0, poll 7: match s1/g0/m0, agent a: the game does not return, for ")
    assert replaced.startswith("worker 0 is lost (it has not answered for 4 s); another one plays its 2 games again")


def test_who_waits_for_a_policy_is_named(cast: Callable[..., Cast]) -> None:
    waiting = Signs(polls=1, waiting=("match s1/g0/m0, agent a: policy far does not answer", 130.0))
    answers = iter([(), ()])

    def play(player: Player, order: Order) -> Report:
        if next(answers, None) is not None:
            kept.append(order)
            return Report(signs=waiting)
        return Report(played=played(kept[0]), signs=waiting)

    kept: list[Order] = []
    company = cast(play, workers=1)
    company.step(1, groups(1, 1))
    assert company.told == ["worker 0: match s1/g0/m0, agent a: policy far does not answer, for 130 s now"]


def test_who_plays_one_match_at_a_time_has_three_more_in_hand(cast: Callable[..., Cast]) -> None:
    go, begun = Event(), Event()

    def wait(player: Player, order: Order) -> Report:
        begun.set()
        assert go.wait(10)
        return Report(played=played(order))

    company = cast(wait, workers=1, live=1)
    company.coordinator.begin(1, groups(1, 9, size=1))
    assert begun.wait(10)
    go.set()
    company.coordinator.finish(1, lambda: False)
    assert [len(order.matches) for order in company.players[0].orders] == [4, 4, 1]


def test_the_more_workers_there_are_the_less_often_each_answers(cast: Callable[..., Cast]) -> None:
    def slices(**cluster: object) -> set[float]:
        company = cast(at_once, **cluster)
        company.step(1, groups(1, 3, size=1))
        return {order.slice_s for player in company.players for order in player.orders}

    assert slices(workers=2) == {0.2}
    assert slices(workers=500) == {2.0}, "250 answers a second"
    assert slices(workers=500, lost_s=1.0) == {0.5}, "well before it is taken for lost"


def test_an_answer_is_due_at_the_end_of_the_slice_and_sooner_if_matches_run_short() -> None:
    order = Order(slice_s=2.0)
    assert not order.due(0.1, short=True)
    assert order.due(0.2, short=True)
    assert not order.due(1.9, short=False)
    assert order.due(2.0, short=False)


def test_what_is_known_of_room_does_not_grow_with_the_matches(cast: Callable[..., Cast]) -> None:
    company = cast(at_once, workers=2, live=1)
    company.step(1, groups(1, 300, size=1))
    assert len(company.coordinator._room) <= 4 * 2 + 1
