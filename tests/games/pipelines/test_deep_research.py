"""Deep research: who is asked when, what a planner and its sub-agents read, what is paid, and faults of tools."""

from typing import Any

import pytest

import games
from games.conformance import check
from games.pipelines.deep_research import DeepResearch
from games.turns import InTurns
from marl_llm.play import play
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Match

SURVEY = {"source": "survey", "documents": 60, "questions": 3}
TWO_HOPS = {"source": "multihop", "documents": 60, "hops": 2}


def begin(**settings: Any) -> tuple[InTurns, DeepResearch]:
    env = games.make("deep_research", **{"tasks": TWO_HOPS, "expert": "chain", **settings})
    env.reset(seed=3)
    assert isinstance(env, InTurns)
    assert isinstance(env.parallel, DeepResearch)
    return env, env.parallel


def test_calls_run_side_by_side_and_the_planner_reads_their_own_answers() -> None:
    env, game = begin()
    _, bridge, gold = game.position.task.metadata["chain"]
    assert list(env.choosing) == ["planner_0"]
    env.step("ask: Who heads it? |  Where is it? ")
    assert list(env.choosing) == ["searcher_0", "searcher_1"]
    assert env.observe("searcher_1")["text"] == "You are searcher_1. Question: Where is it?\nTurns left: 4."
    env.step(f"answer: {bridge}")
    env.step(f"search: {bridge}")
    assert list(env.choosing) == ["searcher_1"]
    assert bridge in env.observe("searcher_1")["text"]
    assert "Turns left: 3." in env.observe("searcher_1")["text"]
    env.step("answer: nowhere")
    seen = env.observe("planner_0")["text"]
    assert f"Who heads it? -> {bridge}\nWhere is it? -> nowhere\nTurns left: 5." in seen
    env.step(f"answer: {gold}")
    assert env.hidden == {
        "task": game.position.task.id,
        "gold": gold,
        "gold_action": f"answer: {gold}",
        "answer": gold,
        "correct": 1.0,
        "calls": 2,
        "answered": 1.0,
        "found": 0.5,
    }
    assert env.rewards["planner_0"] == 2.0
    assert env.rewards["searcher_0"] == 3.0
    assert env.rewards["searcher_1"] == 2.0
    assert env.rewards["searcher_2"] == 0.0


def test_a_question_can_be_answered_by_search_and_reading() -> None:
    env, game = begin()
    first, bridge, _ = game.position.task.metadata["chain"]
    env.step(f"ask: {first}")
    env.step(f"search: {first}")
    found = env.observe("searcher_0")["text"]
    assert game.position.task.metadata["support"][0] in found
    env.step(f"read: {game.position.task.metadata['support'][0]}")
    assert bridge in env.observe("searcher_0")["text"]


def test_a_sub_agents_turns_know_the_planners_turn_that_called_it() -> None:
    match = Match(id="m", game="deep_research", settings={"tasks": TWO_HOPS}, seed=1, group="g", seats={"*": "random"})
    for member in range(40):
        (episode,) = play([Match(**{**vars_of(match), "member": member})], {"random": make_scripted("random", {})})
        called = [turn for turn in episode.turns if turn.agent != "planner_0"]
        if called:
            break
    assert called
    for turn in episode.turns:
        if turn.agent == "planner_0":
            assert turn.parent is None
        else:
            assert turn.parent is not None
            assert episode.turns[turn.parent].agent == "planner_0"
            assert (episode.turns[turn.parent].action or "").startswith("ask: ")


def vars_of(match: Match) -> dict[str, Any]:
    return {name: getattr(match, name) for name in Match.__slots__}


def test_a_reply_that_cannot_be_read_ends_the_work_and_earns_nothing() -> None:
    env, game = begin()
    env.step("ask: What? | Where?")
    env.step("hm")
    env.step("answer: here")
    assert "What? -> no answer\nWhere? -> here" in env.observe("planner_0")["text"]
    env.step(f"answer: {game.position.task.answer}")
    assert env.rewards["searcher_0"] == 0.0
    assert env.rewards["searcher_1"] == 2.0
    assert env.hidden["answered"] == 0.5


def test_turns_and_calls_are_limited() -> None:
    env, _ = begin(planner_turns=2, searcher_turns=1, calls=2)
    assert not env.parallel.accepts("planner_0", "ask: a | b | c")
    env.step("ask: a")
    env.step("search: a")
    assert "a -> no answer" in env.observe("planner_0")["text"]
    assert not env.parallel.accepts("planner_0", "ask: b | c")
    env.step("ask: b")
    env.step("answer: c")
    assert env.hidden["answer"] == "no answer"
    assert env.hidden["calls"] == 2
    assert env.terminations["planner_0"]


@pytest.mark.parametrize(
    ("action", "fine"),
    [
        ("Answer:  x  y", True),
        ("answer:", False),
        ("ask: ", False),
        ("ask: a | ", False),
        ("search: x", False),
        ("x", False),
    ],
)
def test_what_a_planner_may_say(action: str, fine: bool) -> None:
    env, _ = begin()
    assert env.parallel.accepts("planner_0", action) is fine


def test_a_planner_alone_searches_itself() -> None:
    env, game = begin(alone=True, expert="none")
    assert env.possible_agents == ["planner_0"]
    assert not env.parallel.accepts("planner_0", "ask: a")
    env.step(f"search: {game.position.task.metadata['chain'][0]}")
    assert game.position.task.metadata["support"][0] in env.observe("planner_0")["text"]
    env.step(f"answer: {game.position.task.answer}")
    assert env.rewards == {"planner_0": 2.0}


def test_only_the_latest_outputs_stay_in_view_and_notes_do() -> None:
    env, game = begin(tasks=SURVEY, alone=True, expert="none", memory=1, results=2)
    assert "'note: TEXT'" in env.metadata["rules"]
    assert " Tool outputs in view: the latest 1. Notes stay." in env.metadata["rules"]
    (first, fact), (second, _), _ = (each["chain"] for each in game.position.task.metadata["questions"])
    env.step(f"search: {first}")
    assert f"search: {first}\n[" in env.observe("planner_0")["text"]
    env.step(f"note:  {fact} ")
    assert f"\nnote: {fact}\nTurns left: 4." in env.observe("planner_0")["text"]
    assert f"search: {first}\n[" in env.observe("planner_0")["text"]
    env.step(f"read: {second}")
    seen, known = env.observe("planner_0")["text"], env.infos["planner_0"]["state_key"]
    assert f"?\nsearch: {first}\nnote: {fact}\nread: {second}\n[" in seen
    assert f"{first} was" not in known
    assert f"{second}" in known


def test_a_sub_agent_has_the_same_memory() -> None:
    env, _ = begin(tasks=SURVEY, memory=1)
    env.step("ask: Who?")
    env.step("read: d0001")
    env.step("read: d0002")
    seen = env.observe("searcher_0")["text"]
    assert "Who?\nread: d0001\nread: d0002\n[d0002]" in seen
    assert env.parallel.accepts("searcher_0", "note: it")


def test_nobody_takes_notes_who_forgets_nothing_or_has_no_tools() -> None:
    env, _ = begin(alone=True, expert="none")
    assert not env.parallel.accepts("planner_0", "note: it")
    env, _ = begin(memory=2)
    assert not env.parallel.accepts("planner_0", "note: it")


def test_a_search_shows_as_many_words_as_it_is_told() -> None:
    shown = []
    for snippet in (3, 64):
        env, game = begin(alone=True, expert="none", snippet=snippet)
        thing = game.position.task.metadata["chain"][0]
        env.step(f"search: {thing}")
        shown.append(env.observe("planner_0")["text"].partition("]")[2])
    assert len(shown[0].split()) < 12
    assert len(shown[1].split()) > 20


def test_what_an_agent_gets_wrong_with_a_tool_it_is_told() -> None:
    env, _ = begin()
    env.step("ask: a")
    env.step("read: nothing of the kind")
    assert "no document has the id or the title 'nothing of the kind'" in env.observe("searcher_0")["text"]


def test_a_tool_that_hangs_is_a_fault_and_nobodys_move() -> None:
    settings = {"tasks": TWO_HOPS, "alone": True, "tool_seconds": 1e-9}
    matches = [
        Match(id=f"m{i}", game="deep_research", settings=settings, seed=i, group="g", seats={"*": "random"})
        for i in range(60)
    ]
    episodes = list(play(matches, {"random": make_scripted("random", {})}))
    faults = [episode for episode in episodes if episode.status == "fault"]
    assert 0 < len(faults) < 60
    assert all(" hangs: not done after 1e-09 s" in episode.note for episode in faults)
    searches = [turn for episode in faults for turn in episode.turns if (turn.action or "").startswith("search")]
    assert len(searches) < len(faults) / 2, "the search that hangs is no turn; on a busy machine one may be in time"


@pytest.mark.parametrize(
    "settings", [{}, {"alone": True}, {"expert": "chain", "calls": 2}, {"alone": True, "memory": 1, "tasks": SURVEY}]
)
def test_it_keeps_the_contract_of_games(settings: dict[str, Any]) -> None:
    assert check(lambda: games.make("deep_research", **{"tasks": TWO_HOPS, **settings}), games=10) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"calls": 0}, "calls=0 is not allowed"),
        ({"alone": 1}, "alone=1 is not allowed; it must be true or false"),
        ({"memory": 0}, "memory=0 is not allowed; it must be a whole number, 1 or more"),
        ({"snippet": 65}, "snippet=65 is not allowed; it must be a whole number, 1 to 64"),
        ({"expert": "gpt"}, "expert='gpt' is not allowed; it must be none or chain"),
        ({"tool_seconds": 0}, "tool_seconds=0 is not allowed; it must be more than 0"),
        ({"tasks": {"source": "arithmetic"}}, "corpus=None is not allowed; it must be a file of JSON lines"),
        ({"corpus": "/nowhere.jsonl"}, "corpus /nowhere.jsonl: cannot be read"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"deep_research|corpus") as caught:
        games.make("deep_research", **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
@pytest.mark.parametrize("alone", [False, True])
def test_whoever_follows_advice_finds_the_answer(hops: int, alone: bool) -> None:
    tasks = {"source": "multihop", "documents": 60, "hops": hops}
    env = games.make("deep_research", tasks=tasks, alone=alone, planner_turns=9)
    for seed in range(5):
        env.reset(seed=seed)
        while not any(env.terminations.values()):
            env.step(env.parallel.advise(env.infos[env.agent_selection]["state_key"]))
        assert env.hidden["correct"] == 1.0
        assert env.hidden["calls"] == (0 if alone else hops)


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize(("alone", "memory"), [(False, None), (False, 1), (True, None), (True, 1), (True, 2)])
def test_advice_on_a_survey_asks_everything_at_once_or_notes_what_would_be_lost(
    hops: int, alone: bool, memory: int | None
) -> None:
    tasks = {**SURVEY, "hops": hops}
    env = games.make("deep_research", tasks=tasks, alone=alone, memory=memory, planner_turns=15, results=2, snippet=64)
    for seed in range(5):
        env.reset(seed=seed)
        turns, notes = 0, 0
        while not any(env.terminations.values()):
            action = env.parallel.advise(env.infos[env.agent_selection]["state_key"])
            turns, notes = turns + (env.agent_selection == "planner_0"), notes + action.startswith("note: ")
            env.step(action)
        assert env.hidden["correct"] == 1.0
        assert env.hidden["calls"] == (0 if alone else 3 * hops)
        assert alone or turns == hops + 1
        assert (notes > 0) == (alone and memory is not None)
        assert memory != 1 or hops == 2 or notes <= 2


def test_advice_goes_on_with_the_calls_that_are_left() -> None:
    env, game = begin(tasks=SURVEY, calls=2)
    action = game.advise(env.infos["planner_0"]["state_key"])
    assert action.count("|") == 1
    env.step(action)
    env.step("answer: no answer")
    env.step("answer: here")
    assert game.advise(env.infos["planner_0"]["state_key"]) == "answer: no answer; here; no answer"


def test_a_sub_agent_that_is_asked_nonsense_has_no_answer() -> None:
    env, _ = begin()
    env.step("ask: How do you do?")
    assert env.parallel.advise(env.infos["searcher_0"]["state_key"]) == "answer: no answer"
