"""How a setting out of range is refused."""

from marl_llm.errors import ConfigError


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Refuse the value of a setting unless the condition holds.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    if not condition:
        raise ConfigError(f"{key}: {value!r} is not allowed; it must be {allowed}")
