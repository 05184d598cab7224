"""Calls that may never return."""

import threading
import time

import pytest

from games.time_limit import uninterrupted, within


def forever():
    while True:
        pass


def test_a_call_in_time_returns_and_raises_as_ever():
    assert within(60, lambda: 7) == 7
    with pytest.raises(KeyError, match="lost"):
        within(60, lambda: {}["lost"])


def test_a_late_call_raises_and_is_stopped():
    before = threading.active_count()
    with pytest.raises(TimeoutError, match=r"not done after 0\.05 s"):
        within(0.05, forever)
    assert threading.active_count() == before


def test_a_late_call_that_catches_what_it_can_is_stopped_too():
    caught = []

    def stubborn():
        while len(caught) < 3:
            try:
                forever()
            except BaseException as error:
                caught.append(error)

    before = threading.active_count()
    with pytest.raises(TimeoutError):
        within(0.05, stubborn)
    assert len(caught) == 3
    assert threading.active_count() == before


def test_it_needs_no_main_thread():
    found = []

    def elsewhere():
        try:
            within(0.05, forever)
        except TimeoutError as error:
            found.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == ["not done after 0.05 s"]


def test_a_call_that_sits_in_c_is_left_behind():
    with pytest.raises(TimeoutError):
        within(0.05, lambda: time.sleep(7))


def test_what_must_not_be_interrupted_is_done_to_its_end_though_the_call_is_late() -> None:
    done: list[str] = []

    def late() -> None:
        with uninterrupted():
            time.sleep(0.2)
            done.append("kept")
        forever()
        done.append("never")

    with pytest.raises(TimeoutError):
        within(0.05, late)
    assert done == ["kept"]
