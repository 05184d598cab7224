"""From the settings to where a run's parts are."""

from collections.abc import Iterator
from contextlib import contextmanager

from marl_llm.config import Config
from marl_llm.errors import ConfigError
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
    try:
        from marl_llm.runtime.ray import cluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError("runtime: ray is not installed; pip install 'marl-llm[ray]'") from error
    with cluster(config) as runtime:
        yield runtime
