"""Writes to disk that are whole or not there at all, whenever the process is killed."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from marl_llm.errors import RunError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while `path` is written into one line for the user.

    Raises:
        RunError: the disk is full, the folder is read-only, or the like.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"could not write {path}: {error.strerror or error}") from error


@contextmanager
def os_errors() -> Iterator[None]:
    """Turn what safetensors, tokenizers and torch raise where the operating system refuses into an `OSError`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each of them reports a full disk by a class of its own
        number = re.search(r"os error (\d+)", str(error))
        if number is not None:
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        if "inline_container" in str(error):
            raise OSError("torch.save failed; is the disk full?") from error
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to write to, which is called `path` once all is written; what was left of a try before is replaced.

    Raises:
        RunError: the disk is full, the folder is read-only, or the like.
    """
    unfinished = path.with_name(f".{path.name}.tmp")
    with writing(path), os_errors():
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            sync_tree(unfinished)
            unfinished.rename(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def replace(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Give a file new content; a reader sees the old or the new content, never a part.

    `durable` waits until the content would survive a loss of power, not only of the process.

    Raises:
        OSError: it could not be written; the old content stays.
    """
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_bytes(data)
        if durable:
            sync(unfinished)
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def append(file: FileIO, data: bytes) -> None:
    """Add `data` at the end of an unbuffered file that is open for appending.

    Raises:
        OSError: it could not be written; the file is as long as before.
    """
    length = file.seek(0, os.SEEK_END)
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(length)
        raise


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` a folder and everything in it."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def remove_folder(folder: Path) -> None:
    """Delete a folder; it is gone under its own name before the first of its files is."""
    doomed = folder.with_name(f".{folder.name}.old")
    if doomed.exists():
        shutil.rmtree(doomed)
    folder.rename(doomed)
    shutil.rmtree(doomed)
