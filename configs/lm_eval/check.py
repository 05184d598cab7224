"""Answers are checked as everywhere in marl-llm: by the task's own checker."""

from typing import Any

from games.tasks import Task, check


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """How right the answer is."""
    task = Task(
        id=str(doc["id"]),
        prompt=doc["prompt"],
        answer=doc["answer"],
        check=doc.get("check") or "exact",
        metadata=doc.get("metadata") or {},
    )
    return {"right": check(task, results[0])}
