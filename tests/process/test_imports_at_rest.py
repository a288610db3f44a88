"""What a server that nobody asks anything holds of code, and when it imports the rest.

Memory at rest is mostly code: whatever creeps into the imports of a program is
paid for by every server.  And what is imported late must not be late on the
way of a request.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from facts import DEADLINE_S, wait_until

from stoker.cli.listening import bound_addresses
from stoker.cli.pid_file import find_running
from stoker.settings.load import load

pytestmark = pytest.mark.slow

LISTENERS = ("inference", "management", "metrics")

# `stoker serve` whose processes note, line by line, who imports what.
SERVE = """
import os, sys

# By name: what is open is closed in a fork.
class Notes:
    def __init__(self, path):
        self.path = path

    def find_spec(self, name, path=None, target=None):
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{os.getpid()} {name}\\n".encode())
        os.close(fd)
        return None

sys.meta_path.insert(0, Notes(sys.argv[1]))
from stoker.cli.main import main
sys.exit(main(["serve", *sys.argv[2:]]))
"""
HANDLER = "def handle(data, context):\n    return data and [b'here'] * len(data)\n"

#: Of others, and nobody's at rest.  (gunicorn and Falcon bring much that we do not use:
#: that is not ours to choose.)
HEAVY = {
    "gzip",
    "jinja2",
    "multiprocessing",
    "numpy",
    "pip",
    "psutil",
    "pydoc",
    "sqlite3",
    "tarfile",
    "torch",
    "unittest",
    "urllib3",
    "uvicorn",
    "venv",
    "yaml",
}
#: Of ours: other commands, dialects that nobody speaks, formats of archives, what workers are.
OURS_FOR_LATER = {
    "stoker.archives.pack",
    "stoker.archives.untar",
    "stoker.archives.unzip",
    "stoker.cli.doctor",
    "stoker.cli.management",
    "stoker.cli.mms",
    "stoker.cli.start",
    "stoker.cli.torchserve",
    "stoker.compat",
    "stoker.frontend.dialects.djl",
    "stoker.frontend.dialects.mms",
    "stoker.handlers",
    "stoker.worker",
}
#: What supervising two programs takes none of.
NOT_THE_LAUNCHERS = {
    "asyncio",
    "falcon",
    "gunicorn",
    "hashlib",
    "http",
    "msgpack",
    "ssl",
    "stoker.archives",
    "stoker.frontend",
    "stoker.supervisor",
    "stoker.wire.codec",
    "stoker.wire.link",
    "subprocess",
    "tempfile",
    "uvloop",
    "zmq",
}


class Server:
    """A server whose processes note what they import."""

    def __init__(self, folder: Path) -> None:
        (folder / "here.py").write_text(HANDLER)
        flags = [
            *(f"--{name}-address=http://127.0.0.1:0" for name in LISTENERS),
            *(f"--{name}-dir={folder / name}" for name in ("runtime", "state", "cache", "log")),
            "--disable-token-authorization=true",
        ]
        self.settings = load(flags, {})
        self._notes = folder / "notes"
        self._read = 0
        self.log = folder / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", SERVE, str(self._notes), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)},
                cwd=folder,
            )
        wait_until(self._is_ready, lambda: self.log.read_text()[-2000:])

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        running = find_running(self.settings.runtime_dir)
        return running is not None and running.is_ready

    def new_imports(self) -> list[tuple[int, str]]:
        """Since the last call: pids, and what each imported."""
        lines = self._notes.read_text().splitlines()
        fresh, self._read = lines[self._read :], len(lines)
        return [(int(pid), name) for pid, name in (line.split(" ", 1) for line in fresh)]

    def ask(self, listener: str, method: str, path: str, body: bytes | None = None) -> bytes:
        address = urlsplit(bound_addresses(self.settings)[listener])
        client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=DEADLINE_S)
        with contextlib.closing(client):
            client.request(method, path, body)
            answer = client.getresponse()
            said = answer.read()
        assert answer.status == 200, said
        return said

    def stop(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(DEADLINE_S)
        if self.process.poll() is None:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                process.kill()
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.stop()


def held(imported: set[str], modules: set[str]) -> set[str]:
    """Those of `modules` that were imported, or something below them."""
    return {module for module in modules if module in imported} | {
        name for name in imported for module in modules if name.startswith(f"{module}.")
    }


def test_imports_are_done_before_the_first_fork_or_when_a_feature_is_first_used(
    server: Server,
) -> None:
    """
    What the launcher has imported its two programs share, as do their successors.  What only
    some servers need is imported when they do, and never on the way of a prediction.
    """
    at_start = server.new_imports()
    query = "model_name=here&handler=here:handle&initial_workers=1&synchronous=true"
    server.ask("management", "POST", f"/models?{query}")
    server.ask("inference", "POST", "/predictions/here", b"x")
    by_registration = {name for _, name in server.new_imports()}
    server.ask("inference", "POST", "/predictions/here", b"x")
    server.ask("inference", "POST", "/predictions/here", b"x" * (1 << 20))

    imported = {name for _, name in at_start}
    assert {"stoker.supervisor.loop", "stoker.frontend.dialects.torchserve"} <= imported
    assert held(imported, HEAVY | OURS_FOR_LATER) == set()
    assert {pid for pid, _ in at_start} == {server.process.pid}
    # The journal is opened with the first thing to remember.
    assert by_registration <= {"sqlite3", "sqlite3.dbapi2", "_sqlite3"}
    assert server.new_imports() == []


def test_the_launcher_itself_is_made_of_little() -> None:
    """
    It is the start of every `stoker serve`, and these imports are before those of the programs.
    """
    code = (
        "import sys\n"
        "from stoker.cli.main import build_parser\n"
        "build_parser(['serve']).parse_known_args(['serve'])\n"
        "import stoker.cli.launcher, stoker.cli.program, stoker.settings.load\n"
        "print(*sys.modules)\n"
    )

    said = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert held(set(said.split()), NOT_THE_LAUNCHERS | OURS_FOR_LATER) == set()
