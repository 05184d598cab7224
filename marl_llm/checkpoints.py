"""Checkpoints and a league's snapshots: folders that are complete, or are not there under their name.

Each has a `manifest.json` with the size and SHA-256 of every other file, and a
`values.json` for what is no tensor.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marl_llm.errors import RunError
from marl_llm.files import os_errors, remove_folder, sync, sync_tree, writing

MANIFEST = "manifest.json"
VALUES = "values.json"


def write_whole(final: Path, write: Callable[[Path], None], values: Any) -> None:
    """Make the folder `final` from the files that `write` puts into a folder that it is given, and JSON values.

    Raises:
        RunError: it could not be written; what was there before is untouched.
    """
    unfinished = final.with_name(f".{final.name}.tmp")
    with writing(final):
        try:
            unfinished.mkdir()
            with os_errors():
                write(unfinished)
            (unfinished / VALUES).write_text(json.dumps(values))
            (unfinished / MANIFEST).write_text(json.dumps(_manifest(unfinished), indent=1))
            sync_tree(unfinished)
            unfinished.rename(final)
            sync(final.parent)
        except BaseException:  # a full disk, a learner that is lost, Ctrl-C: nothing half-written stays
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def checkpoint_values(checkpoint: Path) -> Any:
    """The JSON values of a checkpoint that `latest_checkpoint` returned; tuples come back as lists."""
    return json.loads((checkpoint / VALUES).read_text())


def checkpoint_path(run: str | Path, step: int) -> Path:
    """The folder of a run's checkpoint of one step, every file verified.

    Raises:
        RunError: there is none, or it is damaged; the message names the file, or the steps that there are.
    """
    folder = Path(run) / "checkpoints"
    path = folder / f"step_{step}"
    if not path.is_dir():
        raise RunError(f"{run}: no checkpoint of step {step}; there are {[n for n, _ in list_checkpoints(folder)]}")
    _require_whole(path)
    return path


def snapshot_path(run: str | Path, name: str) -> Path:
    """The folder of a league's snapshot, every file verified.

    Raises:
        RunError: it is missing or damaged.
    """
    path = Path(run) / "league" / name
    _require_whole(path)
    return path


def list_snapshots(run: str | Path) -> list[tuple[int, Path]]:
    """Step and folder of every snapshot in a run directory, those that have left the pool included, by step."""
    named = ((re.fullmatch(r".+@(\d+)", path.name), path) for path in (Path(run) / "league").glob("*@*"))
    return sorted((int(match[1]), path) for match, path in named if match)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The finished checkpoints of a folder `checkpoints`, oldest first, unverified."""
    named = ((re.fullmatch(r"step_(\d+)", path.name), path) for path in folder.glob("step_*"))
    return sorted((int(match[1]), path) for match, path in named if match)


def latest_checkpoint(run: str | Path) -> tuple[int, Path] | None:
    """Step and folder of a run's newest checkpoint, every file verified; None when there is none yet.

    Raises:
        RunError: the newest one is damaged; the message names the file and the older one that can be used.
    """
    found = list_checkpoints(Path(run) / "checkpoints")
    if not found:
        return None
    step, newest = found[-1]
    damage = _damage(newest)
    if damage is None:
        return step, newest
    intact = next((older for older, path in reversed(found[:-1]) if _damage(path) is None), None)
    advice = "no older checkpoint can be used" if intact is None else f"delete that folder to go on from step {intact}"
    raise RunError(f"checkpoint {newest} is damaged: {damage}; {advice}")


def checkpoint_of(run: str | Path, step: int | None) -> tuple[int, Path]:
    """The checkpoint of a step, or the latest one, and its step.

    Raises:
        RunError: there is none.
    """
    if step is not None:
        return step, checkpoint_path(run, step)
    latest = latest_checkpoint(run)
    if latest is None:
        raise RunError(f"{run}: has no checkpoint yet")
    return latest


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all checkpoints but the newest `keep` and that of step 0."""
    later = [path for step, path in list_checkpoints(folder) if step > 0]
    for path in later[:-keep]:
        remove_folder(path)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left half-written or half-deleted."""
    for path in folder.glob(".*"):
        shutil.rmtree(path)


def _manifest(folder: Path) -> dict[str, dict[str, int | str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_whole(path: Path) -> None:
    damage = _damage(path)
    if damage is not None:
        raise RunError(f"{path} is damaged: {damage}")


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None when nothing is."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return f"{MANIFEST} is missing or malformed"
    for name, (size, sha256) in expected.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if _sha256(path) != sha256:
            return f"{name} has changed since it was written"
    return None
