"""What somebody who knows the world of `multihop` and `survey` would do in `deep_research`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from games.tasks.corpus import Corpus
from games.tasks.multihop import ask, read_question

SILENCE = "no answer"
"""What is heard of an agent that ends without one."""

Steps = Sequence[Sequence[str]]
"""Actions of an agent, each with what came of it; nothing, where that is no longer in view."""
Questions = Sequence[Mapping[str, Any]]
"""Relations and chain of each question."""


def plan(world: Corpus, questions: Questions, calls: Iterable[tuple[str, str]], left: int) -> str:
    """The next action of a planner that may open so many calls more.

    It asks for the next fact of each question, about whatever the last answer named, and again where it got none.
    """
    heard = dict(calls)
    asks: list[str] = []
    answers: list[str] = []
    for question in questions:
        thing = question["chain"][0]
        for relation in question["relations"]:
            asked = ask(world.things.get(thing), thing, relation)
            thing = heard.get(asked, SILENCE)
            if thing == SILENCE:
                asks.append(asked)
                break
        answers.append(thing)
    return f"ask: {' | '.join(asks[:left])}" if asks and left else f"answer: {'; '.join(answers)}"


def look_up(world: Corpus, question: str, steps: Steps) -> str:
    """The next action of a sub-agent that was asked for one fact: look the thing up and say what is stated."""
    asked = read_question(question)
    if asked is None or asked[1] not in world.things:
        return f"answer: {SILENCE}"
    relation, thing = asked
    found = _stated(world, thing, relation, steps)
    if found is None and len(steps) < 2:
        return _look(thing, steps)
    return f"answer: {found or SILENCE}"


def work_alone(world: Corpus, questions: Questions, steps: Steps, memory: int | None) -> str:
    """The next action of a planner without sub-agents: look up one thing after the other; note what would be lost."""
    noted = {action.removeprefix("note: ") for action, _ in steps if action.startswith("note: ")}
    sought = {action.partition(": ")[2] for action, _ in steps if action.startswith(("search: ", "read: "))}
    outputs = [step for step in steps if step[1]]
    kept = outputs if memory is None or len(outputs) < memory else outputs[1:]
    answers: list[str] = []
    lost: list[str] = []
    missing: str | None = None
    for question in questions:
        thing = question["chain"][0]
        for relation in question["relations"]:
            fact = world.things[thing].facts.get(relation, "") if thing in world.things else ""
            if fact not in noted | sought:
                if _stated(world, thing, relation, outputs) is None:
                    missing = missing or thing
                    break
                if _stated(world, thing, relation, kept) is None:
                    lost.append(fact)
            thing = fact
        answers.append(thing)
    if missing is None:
        return f"answer: {'; '.join(answers)}"
    losing = [fact for fact in lost if fact != missing]
    return f"note: {losing[0]}" if losing else _look(missing, steps)


def _look(thing: str, steps: Steps) -> str:
    """Search for the thing; if that has been done, and did not show enough, read the document about it."""
    search = f"search: {thing}"
    return f"read: {thing}" if search in [action for action, _ in steps] else search


def _stated(world: Corpus, thing: str, relation: str, steps: Steps) -> str | None:
    """The fact, if what the tools have shown so far names it along with the thing."""
    fact = world.things[thing].facts.get(relation) if thing in world.things else None
    shown = any(fact in result and thing in result for _, result in steps) if fact else False
    return fact if shown else None
