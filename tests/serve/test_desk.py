"""The thread that has the engines: what is asked at once is one batch, and who leaves leaves nothing behind."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest

from marl_llm.config import GameConfig
from marl_llm.evaluation.protocols import PROTOCOLS, asking
from marl_llm.play import play
from marl_llm.serve.desk import Desk, Place, Playing, Sampling, Scores, Scoring
from marl_llm.types import Completion, Episode, Match
from tests.tiny import dictated, saying, seated, untrained

PROMPT = (1, 2, 3, 4, 5)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(lambda call: call())
    yield made
    made.close()


@pytest.fixture
def place() -> Place:
    return Place(seated(untrained(sharpness=5.0)))


def sampling(place: Place, **more: Any) -> Sampling:
    given = {"prompt": PROMPT, "max_tokens": 600, "temperature": 1.0, "seed": 0, **more}
    return Sampling(place=place, **given)


def match(game: GameConfig, number: int = 0, seed: int = 3) -> Match:
    return Match(
        id=f"m{number}",
        game=game.name,
        settings=game.settings,
        seed=seed,
        group="m",
        seats={"*": "agent"},
        member=number,
    )


def told(desk: Desk, *works: Any) -> list[Any]:
    """What came of each."""
    news: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    for index, work in enumerate(works):
        desk.submit(work, lambda what, index=index: news.put((index, what)))
    found = dict(news.get(timeout=30) for _ in works)
    return [found[index] for index in range(len(works))]


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.001)


def running(place: Place) -> int:
    return len(place.policy.engine._slots.running) + len(place.policy.engine._slots.waiting)  # type: ignore[attr-defined]


def test_what_is_asked_comes_as_the_engine_alone_would_give_it(desk: Desk, place: Place) -> None:
    works = [sampling(place, seed=seed, temperature=seed % 2, max_tokens=12) for seed in range(20)]
    found = told(desk, *works)
    other = Place(seated(untrained(sharpness=5.0)))
    for work, completion in zip(works, found, strict=True):
        assert isinstance(completion, Completion)
        assert completion.tokens == told(desk, replace(work, place=other))[0].tokens
    assert len({completion.tokens for completion in found[1::2]}) == 10
    assert len({completion.tokens for completion in found[::2]}) == 1


def test_works_of_all_kinds_go_on_side_by_side(desk: Desk, place: Place) -> None:
    game = asking(PROTOCOLS["debate"], "What is left?")
    playing = Playing(match=match(game), places={"agent": place}, max_turns=99, temperature=0.0)
    score = Scoring(place=place, tokens=PROMPT)
    sampled, episode, scores, alone = told(desk, sampling(place), playing, score, Scoring(place=place, tokens=(3,)))
    assert isinstance(sampled, Completion)
    assert isinstance(episode, Episode)
    engine = place.policy.engine
    assert scores == Scores(
        logprobs=engine.score("agent", [(PROMPT[:1], PROMPT[1:])])[0],
        best=engine.best("agent", [(PROMPT[:1], PROMPT[1:])])[0],
    )
    assert alone == Scores(logprobs=(), best=())


def test_a_team_plays_as_it_does_without_a_desk(desk: Desk) -> None:
    model = dictated(saying({"check": 0.6, "bet": 0.4}))
    place, policy = Place(seated(model)), seated(model)
    game = asking(PROTOCOLS["debate"], "What is left?")
    matches = [match(game, number) for number in range(6)]
    expected = {episode.match.id: episode for episode in play(matches, {"agent": policy})}
    found = told(desk, *(Playing(match=one, places={"agent": place}, max_turns=99) for one in matches))
    assert [episode.hidden["answer"] for episode in found] == [expected[one.id].hidden["answer"] for one in matches]
    assert {episode.hidden["answer"] for episode in found} == {"check", "bet"}
    greedy = told(
        desk, *(Playing(match=one, places={"agent": place}, max_turns=99, temperature=0.0) for one in matches)
    )
    assert {turn.action for episode in greedy for turn in episode.turns} == {"check"}
    (short,) = told(desk, Playing(match=matches[0], places={"agent": place}, max_turns=99, max_tokens=2))
    assert {len(turn.completion.tokens) for turn in short.turns} == {2}


def test_who_watches_is_told_what_is_there_so_far(desk: Desk, place: Place) -> None:
    news: SimpleQueue[Any] = SimpleQueue()
    desk.submit(sampling(place, watch=True), news.put)
    seen = []
    while not seen or isinstance(seen[-1], tuple):
        seen.append(news.get(timeout=30))
    assert len(seen) > 1
    for tokens in seen[:-1]:
        assert seen[-1].tokens[: len(tokens)] == tokens
    assert len(set(seen[:-1])) == len(seen) - 1


def test_a_work_that_is_cancelled_frees_its_slot_and_is_not_told_of(desk: Desk) -> None:
    place = Place(seated(dictated({"\n": {"check": 1.0}, "check": {"check": 1.0}})))
    news: SimpleQueue[Any] = SimpleQueue()
    start = place.policy.chat.encode("\n")
    numbers = [desk.submit(sampling(place, prompt=start, watch=True), news.put) for _ in range(30)]
    game = asking(PROTOCOLS["debate"], "What is left?")
    numbers.append(desk.submit(Playing(match=match(game), places={"agent": place}, max_turns=99), news.put))
    assert isinstance(news.get(timeout=30), tuple)
    for number in numbers:
        desk.cancel(number)
    wait_for(lambda: not desk._open)
    assert (running(place), len(place.view._done)) == (0, 1)
    desk.cancel(numbers[0])
    assert told(desk, sampling(place, prompt=start, max_tokens=1))[0].stop == "length"
    while not news.empty():
        assert isinstance(news.get(), tuple)


def test_an_impossible_request_and_a_match_that_fails_end_alone(desk: Desk, place: Place) -> None:
    game = GameConfig(name="tests.serve.broken_game:env")
    long = (1,) * (place.policy.engine.context_tokens + 1)
    works = [
        sampling(place, max_tokens=40),
        Playing(match=match(game), places={"agent": place}, max_turns=99),
        sampling(place, prompt=long),
        Scoring(place=place, tokens=long),
        Playing(match=match(GameConfig(name="nothing")), places={"agent": place}, max_turns=99),
    ]
    good, *failed = told(desk, *works)
    assert isinstance(good, Completion)
    assert all(isinstance(error, Exception) for error in failed)
    assert "it broke" in str(failed[0])
    assert (running(place), desk._open, desk.broken) == (0, {}, None)


def test_an_engine_that_fails_is_told_to_all_who_wait_and_to_whoever_asks_later(desk: Desk, place: Place) -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    place.policy.engine.poll = fail  # type: ignore[method-assign, assignment]
    first, second = told(desk, sampling(place), sampling(place))
    assert str(first) == str(second) == str(desk.broken) == "out of memory"
    assert str(told(desk, sampling(place))[0]) == "out of memory"


def test_nothing_to_do_costs_nothing(desk: Desk, place: Place) -> None:
    told(desk, sampling(place, max_tokens=2))
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1
