"""From a YAML file and `key=value` texts to the settings, and back. OmegaConf lives here only."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from marl_llm.config.benchmark import BenchmarkConfig
from marl_llm.config.cluster import ClusterConfig
from marl_llm.config.experiment import Config
from marl_llm.config.machines import MachinesConfig
from marl_llm.errors import ConfigError

K = TypeVar("K")
WHOLE = ("games", "policies", "matchmaking.seats", "variants")
"""What is not merged with what stood there before, but replaces it, where it is given as a whole."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read one experiment from a YAML file and apply `key=value` overrides.

    Raises:
        ConfigError: the file is missing or malformed, a key is unknown (the nearest valid name is given), or a
            value is of the wrong type or out of range.
    """
    loaded = _read(path)
    given: Any = loaded
    with _explained(path, lambda: given, Config):
        changes = _parse(overrides)
        for key in WHOLE:  # `games={...}` replaces them all, `games.NAME.share=2` changes one
            changed = OmegaConf.select(changes, key)
            if OmegaConf.is_dict(changed) and any(override.startswith(f"{key}=") for override in overrides):
                OmegaConf.update(loaded, key, changed, merge=False)
        given = OmegaConf.merge(loaded, changes)
        tree = OmegaConf.merge(_defaults(loaded), given)
        # Merging ignores a missing value, so that `tree` would hold the default.
        for key, value in (*_leaves("", _plain(given)), *_leaves("", _plain(changes))):
            if value == "???":
                raise ConfigError(f"{key}: '???' is not allowed; it must be a value")
        config = OmegaConf.to_object(tree)
    assert isinstance(config, Config)
    return config


def load_machines(path: str | Path) -> MachinesConfig:
    """Read the description of a cluster.

    Raises:
        ConfigError: as `load_config`.
    """
    return _load(MachinesConfig, path, ())


def load_benchmark(path: str | Path, overrides: Sequence[str] = ()) -> BenchmarkConfig:
    """Read the settings of a benchmark and apply `key=value` overrides.

    Raises:
        ConfigError: as `load_config`.
    """
    return _load(BenchmarkConfig, path, overrides)


def _load(kind: type[K], path: str | Path, overrides: Sequence[str]) -> K:
    """Settings of that kind; an override takes the place of all that stood under its key."""
    given: Any = _read(path)
    with _explained(path, lambda: given, kind):
        for override in overrides:
            key = override.partition("=")[0]
            OmegaConf.update(given, key, OmegaConf.select(_parse([override]), key), merge=False, force_add=True)
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), given))
    assert isinstance(settings, kind)
    return settings


@contextmanager
def _explained(path: str | Path, given: Callable[[], Any], kind: type) -> Iterator[None]:
    """Say what is wrong with a file in words of ours; `given`: its settings of that kind as they are by then."""
    try:
        yield
    except OmegaConfBaseException as error:
        raise ConfigError(f"config {path}: {_explain(error, given(), kind)}") from error
    except ConfigError as error:
        raise ConfigError(f"config {path}: {error}") from error


def _read(path: str | Path) -> DictConfig:
    if not Path(path).is_file():
        raise ConfigError(f"config {path}: no such file")
    try:
        loaded = OmegaConf.load(path)
    except Exception as error:  # the YAML library has several unrelated error classes
        raise ConfigError(f"config {path}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"config {path}: must be a mapping of settings, not {type(loaded).__name__}")
    return loaded


def game_settings(given: Sequence[str]) -> dict[str, Any]:
    """A game's settings from `key=value` texts.

    Raises:
        ConfigError: a text is no setting.
    """
    parsed = OmegaConf.to_container(_parse(given))
    assert isinstance(parsed, dict)
    return {str(key): value for key, value in parsed.items()}


def _parse(overrides: Sequence[str]) -> DictConfig:
    for override in overrides:
        if "=" not in override[1:]:
            raise ConfigError(f"override {override!r}: must be key=value, for example run.seed=1")
        try:
            OmegaConf.from_dotlist([override])
        except YAMLError as error:
            raise ConfigError(f"override {override!r}: its value is not valid YAML") from error
    return OmegaConf.from_dotlist(list(overrides))


def _defaults(loaded: DictConfig) -> DictConfig:
    """Default settings, without the games, policies or seats that the file replaces: merged in, they would be there
    still."""
    tree: DictConfig = OmegaConf.structured(Config)
    for key in WHOLE:
        if OmegaConf.is_dict(OmegaConf.select(loaded, key)):
            above, _, name = key.rpartition(".")
            parent = OmegaConf.select(tree, above) if above else tree
            with read_write(parent):
                parent[name] = {}
    return tree


def to_yaml(config: Config | BenchmarkConfig) -> str:
    """The resolved tree as YAML; `load_config` of it gives an equal tree."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def require_same_settings(wanted: Config, running: Config) -> None:
    """Refuse to resume a run with settings other than those it began with; which variants it has beside it does not
    change it, and on which machines it goes on is free.

    Raises:
        ConfigError: names every key that differs, with both values.
    """
    old, new = flat_settings(running), flat_settings(wanted)
    changed = [f"{key} is {old.get(key)!r}, not {new.get(key)!r}" for key in old | new if old.get(key) != new.get(key)]
    if changed:
        raise ConfigError(f"a run goes on with the settings it began with: {'; '.join(changed)}")


def require_same_questions(wanted: BenchmarkConfig, begun: BenchmarkConfig) -> None:
    """Refuse to go on with a benchmark in which the same names now mean something else; there may be more of them.

    Raises:
        ConfigError: names what differs.
    """
    changed = [key for key in ("seed", "play") if getattr(wanted, key) != getattr(begun, key)]
    for key in ("teams", "benchmarks", "protocols"):
        new, old = getattr(wanted, key), getattr(begun, key)
        changed += [f"{key}.{name}" for name in new if name in old and new[name] != old[name]]
    if changed:
        raise ConfigError(
            f"the answers that are there were given to other settings of {', '.join(changed)}; "
            "choose another name, or another folder with --into"
        )


def flat_settings(config: Config) -> dict[str, Any]:
    """Key, as on the command line, to value, without what says where a run goes on; lists are one value."""
    tree = OmegaConf.to_container(
        OmegaConf.structured(replace(config, variants={}, runtime="local", cluster=ClusterConfig()))
    )
    return dict(_leaves("", tree))


def _leaves(prefix: str, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), value)
    else:
        yield prefix, node


def _plain(tree: DictConfig) -> Any:
    return OmegaConf.to_container(tree, resolve=False)


def _explain(error: OmegaConfBaseException, given: Any, kind: type) -> str:
    key = str(error.full_key or error.key or _culprit(kind, OmegaConf.to_container(given), ""))
    reason = _one_line(error)
    known = _known_keys(error.parent_node)
    if known and key.rpartition(".")[2] not in known:
        near = difflib.get_close_matches(key.rpartition(".")[2], known, n=1, cutoff=0.0)
        return f"{key}: unknown key; nearest valid name: {near[0]}; allowed: {', '.join(known)}"
    if "is not a ListConfig" in reason:
        reason = "it must be a list, as in [a, b]"
    elif "is not a subclass of" in reason:
        reason = f"{reason.rpartition('value: ')[2]} is not allowed; it must be a mapping of settings"
    return f"{key}: {reason}" if key else reason


def _culprit(kind: type, given: Any, prefix: str) -> str:
    """The deepest key that cannot be merged by itself, for the errors that name none; empty if there is no such."""
    for key, value in given.items() if isinstance(given, dict) else ():
        name = f"{prefix}.{key}" if prefix else str(key)
        alone = OmegaConf.create()
        OmegaConf.update(alone, name, value, force_add=True)
        try:
            OmegaConf.merge(OmegaConf.structured(kind), alone)
        except OmegaConfBaseException:
            return _culprit(kind, value, name) or name
    return ""


def _known_keys(node: Any) -> list[str]:
    kind = OmegaConf.get_type(node) if node is not None else None
    return [f.name for f in fields(kind)] if isinstance(kind, type) and is_dataclass(kind) else []


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("full_key:")[0].split())
