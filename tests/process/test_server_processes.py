"""The processes of a real server, killed and stopped one after the other.

One server for all of them: each test leaves it serving.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from facts import DEADLINE_S, wait_until
from process_titles import title_of

from stoker.cli.listening import bound_addresses
from stoker.cli.pid_file import find_running
from stoker.settings.load import load

pytestmark = pytest.mark.slow

# `stoker serve` with watchdogs that bite after seconds.
SERVE = """
import sys
from stoker.cli import child, launcher, main
from stoker.frontend import __main__ as frontend

child.WATCHDOG_S, launcher.ABORT_GRACE_S, frontend.STUCK_S = 2.0, 0.2, 2
sys.exit(main.main(["serve", *sys.argv[1:]]))
"""
HANDLER = "def handle(data, context):\n    return data and [b'here'] * len(data)\n"


class Server:
    """A server with one worker, and who its processes are."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.flags = [
            *(f"--{name}-address=http://127.0.0.1:0" for name in LISTENERS),
            *(f"--{name}-dir={folder / name}" for name in ("runtime", "state", "cache", "log")),
            "--drain-timeout-s=1",
            "--disable-token-authorization=true",
            *flags,
        ]
        self.log = folder / "server.log"
        (folder / "here.py").write_text(HANDLER)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", SERVE, *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)},
                cwd=folder,
            )
        self.settings = load(self.flags, {})
        self.wait_serving()

    def pid_of(self, role: str) -> int:
        running = find_running(self.settings.runtime_dir)
        return running.children.get(role, 0) if running else 0

    def processes(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def frontend_process(self) -> int:
        """The process that serves, below gunicorn's master."""
        children = psutil.Process(self.pid_of("frontend")).children()
        return children[0].pid if children else 0

    def ask(self, listener: str, method: str, path: str) -> tuple[int, bytes]:
        address = urlsplit(bound_addresses(self.settings)[listener])
        client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
        with contextlib.closing(client):
            client.request(method, path)
            answer = client.getresponse()
            return answer.status, answer.read()

    def serves(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("inference", "GET", "/ping")[0] == 200
        return False

    def wait_serving(self) -> None:
        wait_until(
            lambda: self.serves() or self.process.poll() is not None,
            lambda: self.log.read_text()[-2000:],
        )
        assert self.process.poll() is None, self.log.read_text()[-2000:]

    def wait_replaced(self, role: str, pid: int, within_s: float = DEADLINE_S) -> None:
        wait_until(lambda: self.pid_of(role) not in (0, pid), f"another {role}", within_s)
        self.wait_serving()

    def kill(self) -> None:
        for process in self.processes() if self.process.poll() is None else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(DEADLINE_S)


LISTENERS = ("inference", "management", "metrics")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.mark.parametrize("role", ["supervisor", "frontend"])
def test_kill_9_of_either_child_is_repaired_at_once(server: Server, role: str) -> None:
    """
    The programs are imported already, so the successor only has to open its sockets.
    """
    killed = server.pid_of(role)
    others = {"supervisor", "frontend"} - {role}
    before = {other: server.pid_of(other) for other in others}

    os.kill(killed, signal.SIGKILL)

    server.wait_replaced(role, killed, within_s=2.0)
    assert {other: server.pid_of(other) for other in others} == before


@pytest.mark.parametrize("role", ["supervisor", "frontend"])
def test_a_stopped_child_is_replaced(server: Server, role: str) -> None:
    """
    SIGSTOP, a debugger, a dead disk: it does not end, so only its silence tells.
    """
    stopped = server.pid_of(role)

    os.kill(stopped, signal.SIGSTOP)

    server.wait_replaced(role, stopped)
    assert not psutil.pid_exists(stopped)


def test_a_stopped_process_of_the_frontend_is_replaced_by_its_master(server: Server) -> None:
    """
    Its siblings must not speak for it; the master goes on.
    """
    stopped, master = server.frontend_process(), server.pid_of("frontend")

    os.kill(stopped, signal.SIGSTOP)

    wait_until(lambda: server.frontend_process() not in (0, stopped), "another process")
    server.wait_serving()
    assert server.pid_of("frontend") == master


@pytest.mark.parametrize("role", ["supervisor", "frontend"])
def test_a_child_that_is_aborted_shows_where_it_hangs(server: Server, role: str) -> None:
    """
    The watchdog's SIGABRT is for the person who reads the log afterwards.
    """
    end = len(server.log.read_bytes())
    aborted = server.pid_of(role)

    os.kill(aborted, signal.SIGABRT)

    server.wait_replaced(role, aborted)
    said = server.log.read_bytes()[end:]
    assert b"Fatal Python error: Aborted" in said
    assert b"most recent call first" in said


def test_a_process_of_the_frontend_ends_with_its_master(server: Server) -> None:
    """
    Nobody could stop it any more, and it holds the ports that the next master wants.
    """
    master = psutil.Process(server.pid_of("frontend"))
    orphan = psutil.Process(server.frontend_process())
    # Alone: the launcher would kill the whole group in the same moment.
    os.kill(server.process.pid, signal.SIGSTOP)

    master.kill()
    try:
        wait_until(lambda: not is_alive(orphan), "the orphan ends")
    finally:
        os.kill(server.process.pid, signal.SIGCONT)

    server.wait_replaced("frontend", master.pid)


def test_kill_9_of_the_launcher_leaves_nothing_running(server: Server) -> None:
    """
    Last, since nothing brings it back: no process may hold ports, models and GPUs for ever.
    """
    query = "/models?model_name=here&handler=here:handle&initial_workers=1&synchronous=true"
    assert server.ask("management", "POST", query)[0] == 200
    assert server.ask("inference", "POST", "/predictions/here") == (200, b"here")
    processes = server.processes()
    titles = {title.split(" ")[1] for title in map(title_of, processes) if title}

    server.process.kill()
    server.process.wait(DEADLINE_S)

    wait_until(
        lambda: not any(map(is_alive, processes)),
        lambda: f"still there: {[process for process in processes if is_alive(process)]}",
    )
    assert titles >= {"launcher", "supervisor", "frontend", "worker"}


def test_workers_that_are_there_from_the_start_share_their_imports(tmp_path: Path) -> None:
    """
    They are wanted before the template has imported anything; an interpreter for each of
    them would cost a tenth of a second and ten megabytes.
    """
    manifest = {"runtime": "python", "model": {"modelName": "here", "handler": "here.py"}}
    with zipfile.ZipFile(tmp_path / "here.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("here.py", HANDLER)

    server = Server(tmp_path, f"--model-store={tmp_path}", "--load-models=here.mar")
    try:
        wait_until(
            lambda: server.ask("inference", "POST", "/predictions/here")[0] == 200,
            lambda: server.log.read_text()[-2000:],
        )
        shared_kb = [
            int(line.split()[1])
            for process in server.processes()
            if "stoker: worker" in title_of(process)
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            if line.startswith("Shared_Dirty:")
        ]
    finally:
        server.kill()

    # Objects of the template's; an interpreter of its own shares none.
    assert shared_kb
    assert min(shared_kb) > 2000


def is_alive(process: psutil.Process) -> bool:
    """A zombie that nobody has reaped yet is not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
