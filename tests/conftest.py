"""What tests of several rooms need."""

from collections.abc import Callable, Iterator
from threading import Thread

import pytest

from tests.endpoint import Answer, Endpoint


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
