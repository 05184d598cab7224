"""Which devices there are."""

import torch

from marl_llm.errors import ConfigError


def available_device(key: str, name: str) -> torch.device:
    """The device that the setting `key` names.

    Raises:
        ConfigError: it is unknown, or this machine has none.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # how PyTorch reports unknown and missing devices
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{key}: {name!r} is not available ({reason})") from error
