"""What tests of several rooms need."""

from collections.abc import Callable, Iterator
from threading import Thread

import pytest

from tests.endpoint import Answer, Endpoint


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
