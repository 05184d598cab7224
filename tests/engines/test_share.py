"""Several who ask one engine."""

import pytest

from marl_llm.engines.share import Share
from tests.engines.contract import POLICY, request, words
from tests.engines.test_hf import MODELS, bench, make


def test_each_view_gets_its_own_and_one_that_does_not_step_waits_for_others() -> None:
    engine = make(MODELS["qwen3"](0), slots=4, context_tokens=60)
    first = Share(engine, POLICY, called="first", steps=False)
    second = Share(engine, POLICY, beside=first, called="second")
    for view in (first, second):
        view.submit(request("same", words(bench("qwen3"), 9, 0), tokens=1))
    assert first.poll() == []
    assert not first.ready
    ((ticket, completion),) = second.poll()
    assert (ticket, first.ready, second.ready) == ("same", True, False)
    assert first.poll() == [("same", completion)]


def test_a_view_cancels_its_own_also_what_is_done_and_was_not_fetched() -> None:
    engine = make(MODELS["qwen3"](0), slots=1, context_tokens=60)
    first = Share(engine, POLICY, called="first")
    second = Share(engine, POLICY, beside=first, called="second")
    for view in (first, second):
        view.submit(request("a", words(bench("qwen3"), 9, 0), tokens=2))
    assert len(first.sampled("a")) == 0
    first.step()
    assert len(first.sampled("a")) == 1
    while not first.ready:
        first.step()
    first.cancel("a")
    assert not first.ready
    second.cancel("a")
    assert engine.poll() == first.poll() == second.poll() == []
    with pytest.raises(ValueError, match="not in flight"):
        second.cancel("a")
