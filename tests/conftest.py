"""What tests of several rooms need."""

import os
import shutil
from collections.abc import Callable, Iterator
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.endpoint import Answer, Endpoint

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: of several processes one is busy with it while the others do the rest."""
    items.sort(key=lambda item: item.path.name != "test_ray.py")


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int], Answer]], Endpoint]]:
    """Starts endpoints, and stops them after the test."""
    running: list[Endpoint] = []

    def start(answer: Callable[[int], Answer]) -> Endpoint:
        running.append(Endpoint(answer))
        Thread(target=running[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return running[-1]

    yield start
    for endpoint in running:
        endpoint.shutdown()
        endpoint.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium that goes nowhere by itself; each test opens contexts of its own and closes them.

    One a file: Playwright's event loop is in this thread for as long as it lives, and other files have theirs.
    """
    from playwright.sync_api import sync_playwright  # which the environment with vLLM does not have

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("there is no browser to look at pages in: apt install chromium, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield started
        started.close()
