"""Programs that try to get out of the sandbox: contained, all of them, with the host as it was."""

import os
import select
import signal
import socket
import sqlite3
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from games.tools.sandbox import NoIsolation, Sandbox
from tests.games.tools.escapes import ESCAPES, PRELUDE, WAITING, Escape

ROOT = Path(__file__).parents[3]
SECRET = "canary-7f3a"


def works(isolation: str) -> bool:
    try:
        Sandbox(isolation=isolation)
    except NoIsolation:
        return False
    return True


ISOLATIONS = [isolation for isolation in ("landlock", "bubblewrap") if works(isolation)]


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a program must leave alone."""

    folder: Path
    """Has the canary, a database, and the sandbox's own folders in `boxes`."""
    sockets: tuple[socket.socket, ...]
    """Nobody must have talked to them."""
    inherited: int
    """A descriptor of the canary, for reading and writing, that any child would inherit if it were not closed."""
    pipe: tuple[int, int]
    """Both ends of a pipe that nothing must be written to."""

    def names(self) -> str:
        """Where all this is, as the first lines of a program."""
        tcp, udp, _, _ = self.sockets
        names = {
            "HOST": str(self.folder),
            "CANARY": str(self.folder / "canary"),
            "PORT": tcp.getsockname()[1],
            "UDP": udp.getsockname()[1],
            "UNIX": str(self.folder / "unix"),
            "ABSTRACT": abstract(self.folder),
            "PARENT": os.getpid(),
            "CANARY_FD": self.inherited,
            "PIPE": self.pipe[1],
            "ROOT": str(ROOT),
            "PROJECT": str(ROOT / "pyproject.toml"),
            "INSTALLED": sysconfig.get_path("purelib"),
        }
        return "".join(f"{name} = {value!r}\n" for name, value in names.items())

    def state(self) -> dict[str, object]:
        """Everything that an escape would change, but for what takes time to see."""
        files = {}
        for path in sorted(self.folder.rglob("*")):
            status = path.lstat()
            files[str(path.relative_to(self.folder))] = (
                *(status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size),
                path.name == "boxes" or status.st_mtime_ns,  # there the sandbox itself comes and goes
                path.read_bytes() if path.is_file() else None,
            )
        return {
            "files": files,
            "talked to": [quiet(one) for one in self.sockets],
            "in the pipe": select.select([self.pipe[0]], [], [], 0)[0],
            "children": marked(self.folder),
            "limits": Path("/proc/self/limits").read_text(),
            "left behind": [path for path in ("/dev/shm/escaped", "/tmp/escaped") if os.path.exists(path)],
            "signals": signal.sigpending(),
        }


def abstract(folder: Path) -> str:
    return f"\0marl-llm{folder}"


def quiet(one: socket.socket) -> bool:
    """Whether nobody has connected, or sent anything."""
    try:
        one.accept() if one.type == socket.SOCK_STREAM else one.recv(1)
    except BlockingIOError:
        return True
    return False


def marked(folder: Path) -> list[str]:
    """Processes that the sandbox started: their environment names the folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            try:
                if f"HOME={folder}".encode() in (process / "environ").read_bytes():
                    found.append((process / "status").read_text())
            except (OSError, UnicodeDecodeError):
                continue
    return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    (tmp_path / "boxes").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "boxes"))
    monkeypatch.setenv("SANDBOX_SECRET", SECRET)
    (tmp_path / "canary").write_text(SECRET)
    (tmp_path / "bystander").mkdir()
    (tmp_path / "bystander/__init__.py").write_text(f"# {SECRET}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    make_database(tmp_path / "base.db")
    tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    unix, hidden = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    for one, address in ((unix, str(tmp_path / "unix")), (hidden, abstract(tmp_path))):
        one.bind(address)
        one.listen()
    sockets = (tcp, udp, unix, hidden)
    for one in sockets:
        one.setblocking(False)
    inherited = os.open(tmp_path / "canary", os.O_RDWR)
    pipe = os.pipe()
    for descriptor in (inherited, *pipe):
        os.set_inheritable(descriptor, True)
    yield Host(folder=tmp_path, sockets=sockets, inherited=inherited, pipe=pipe)
    for descriptor in (inherited, *pipe):
        os.close(descriptor)
    for one in sockets:
        one.close()


def make_database(path: Path) -> None:
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE t (a)")
    base.close()


def sandbox(isolation: str, escape: Escape) -> Sandbox:
    return Sandbox(
        isolation=isolation,
        packages=("bystander",),
        cpu_seconds=1 if escape.outcome == "stopped" else 20,
        wall_seconds=2.0 if escape in WAITING else 60.0,
    )


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.name)
def test_an_escape_is_contained_and_the_host_is_unharmed(escape: Escape, isolation: str, host: Host) -> None:
    before = host.state()
    ran = sandbox(isolation, escape).run(host.names() + PRELUDE + escape.code)
    assert host.state() == before
    assert "ESCAPED" not in ran.stdout
    assert SECRET not in ran.stdout + ran.stderr
    if escape.outcome == "stopped":
        assert ran.killed or ran.status < 0
    else:
        assert (ran.status, ran.killed, ran.stderr) == (0, None, "")
    if escape.outcome == "refused":
        assert ran.stdout.startswith("refused")


def test_there_is_something_to_test_and_it_is_enough() -> None:
    assert ISOLATIONS
    assert len({escape.name for escape in ESCAPES}) == len(ESCAPES) >= 40


@pytest.mark.parametrize("escape", [escape for escape in ESCAPES if escape.real], ids=lambda escape: escape.name)
def test_without_isolation_the_same_program_does_get_out(escape: Escape, host: Host) -> None:
    ran = sandbox("none", escape).run(host.names() + PRELUDE + escape.code)
    assert "ESCAPED" in ran.stdout, ran.stderr


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_nothing_is_left_for_the_next_program(isolation: str, host: Host) -> None:
    box = Sandbox(isolation=isolation)
    assert box.run("open('json.py', 'w').write('1/0'); import sys; sys.path.insert(0, '.'); import json").status == 1
    ran = box.run("import json, os; print(os.listdir(), json.dumps([1]))")
    assert ran.stdout == "['main.py'] [1]\n"
    assert list((host.folder / "boxes").iterdir()) == []
