"""From the settings to where a run's parts are."""

from collections.abc import Iterator
from contextlib import contextmanager

from marl_llm.config import Config
from marl_llm.runtime.rollouts import LOCAL, Runtime


@contextmanager
def connected(config: Config) -> Iterator[Runtime]:
    """The runtime that the settings want, for as long as the context lasts.

    Raises:
        ConfigError, RunError: the cluster is not there, or has less than what is asked for.
    """
    if config.runtime == "local":
        yield LOCAL
        return
    from marl_llm.runtime.ray import cluster  # ray is not for everybody

    with cluster(config) as runtime:
        yield runtime
