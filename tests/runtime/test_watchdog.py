"""Who does not answer is named once, and nobody else."""

from threading import Event

from marl_llm.runtime.watchdog import Signs, Watchdog, watched


def test_a_poll_that_does_not_return_is_named_once_with_what_it_is_in() -> None:
    told: list[str] = []
    dog = Watchdog(10.0, told.append)
    stuck = Signs(polls=3, doing="match m, agent a: the game")
    for now in (0.0, 9.0, 10.0, 50.0):
        dog.see("worker 0", stuck, now)
    assert told == ["worker 0, poll 3: match m, agent a: the game does not return, for 10 s now"]
    dog.see("worker 0", Signs(polls=4, doing="policy p"), 60.0)
    dog.see("worker 0", Signs(polls=4, doing="policy p"), 75.0)
    assert told[1:] == ["worker 0, poll 4: policy p does not return, for 15 s now"]


def test_who_comes_round_or_has_nothing_to_do_is_not_named() -> None:
    told: list[str] = []
    dog = Watchdog(10.0, told.append)
    for second in range(100):
        dog.see("busy", Signs(polls=second, doing="policy p"), float(second))
        dog.see("idle", Signs(polls=1), float(second))
    assert told == []


def test_who_was_asked_first_and_has_not_answered_is_named_when_that_was_long_ago() -> None:
    told: list[str] = []
    dog = Watchdog(10.0, told.append)
    for seconds in (9.0, 11.0, 12.0):
        dog.see(
            "worker 0", Signs(polls=int(seconds), waiting=("match m, agent a: policy far does not answer", seconds))
        )
    assert told == ["worker 0: match m, agent a: policy far does not answer, for 11 s now"]


def test_a_worker_of_this_process_is_looked_at_from_a_thread() -> None:
    named = Event()
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        named.set()

    with watched("this process", lambda: Signs(polls=1, doing="policy p"), 0.05, tell):
        assert named.wait(10)
    assert told[0].startswith("this process, poll 1: policy p does not return")
