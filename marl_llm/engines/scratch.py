"""Folders in shared memory for what can be handed over as files only, and their removal."""

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
"""Where files are in memory; elsewhere than on Linux, the folder for temporary files takes its place."""
_PREFIX = "marl-llm"


def scratch_folder() -> Path:
    """A new folder, for its owner to remove. Those whose owners were killed before they could are removed here."""
    home = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
    _remove_orphans(home)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{_world()}-{os.getpid()}-", dir=home))


def _remove_orphans(home: Path) -> None:
    """Only folders of this user whose process is dead; of another process world, nobody here can tell."""
    for folder in home.glob(f"{_PREFIX}-{_world()}-*"):
        process = folder.name.split("-")[-2]
        if folder.stat().st_uid == os.getuid() and process.isdecimal() and not _lives(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _world() -> int:
    """Which numbers of processes these are: containers may share memory and have numbers of their own."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
