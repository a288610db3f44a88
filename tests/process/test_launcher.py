"""The launcher, with real processes in both roles."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from facts import DEADLINE_S, wait_until

from stoker.cli.pid_file import find_running
from stoker.cli.restarts import GiveUp, Restart, Restarts
from stoker.exit_codes import ExitCode
from stoker.process_start import start_ticks

pytestmark = pytest.mark.slow


# Plays a supervisor or a frontend: writes down what happens to it.  Files in
# its folder say how it behaves.
CHILD = """
import os, signal, sys
from pathlib import Path
from setproctitle import setproctitle
from stoker.notify import Notifier

def serve(name, folder, environ):
    setproctitle(f"stoker_child.py {name}")

    def note(what):
        with open(folder / "events", "a") as file:
            file.write(f"{name} {what} {os.getpid()}\\n")

    signals = {signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT}
    if (folder / f"{name}.exit").exists():
        print("Failed to bind to address: http://127.0.0.1:8080", file=sys.stderr)
        note("failed")
        return int((folder / f"{name}.exit").read_text())
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    note("started")
    notifier = Notifier(environ)
    if not (folder / f"{name}.mute").exists():
        notifier.ready("here I am")
    hangs = (folder / f"{name}.hangs").exists()
    if hangs:
        (folder / f"{name}.hangs").unlink()
        signals.remove(signal.SIGABRT)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGABRT})
    while True:
        caught = signal.sigtimedwait(signals, notifier.watchdog_interval_s / 2)
        if caught is None:
            hangs or notifier.watchdog()
            continue
        number = caught.si_signo
        note(signal.Signals(number).name)
        if number == signal.SIGTERM and not (folder / f"{name}.stubborn").exists():
            return 0
        if number == signal.SIGQUIT:
            sys.exit(0)
"""

# What `stoker serve` does, with other programs.
LAUNCHER = """
import os, sys
from pathlib import Path
from stoker import logs
from stoker.cli import child, launcher
from stoker.cli.program import Program
from stoker.settings.load import load

folder, watchdog_s = Path(sys.argv[1]), float(sys.argv[2])
child.WATCHDOG_S = watchdog_s
launcher.ABORT_GRACE_S = min(launcher.ABORT_GRACE_S, watchdog_s)
sys.path.append(str(folder))
settings = load(sys.argv[3:], os.environ)
logs.configure(settings, "launcher")
programs = [Program("stoker_child", name, folder) for name in ("supervisor", "frontend")]
sys.exit(launcher.Launcher(settings, *programs, os.environ).run())
"""


class Server:
    """A running launcher and what its children wrote down."""

    def __init__(self, folder: Path, *flags: str, watchdog_s: float = 30.0) -> None:
        self.folder = folder
        self.runtime_dir = folder / "run"
        self.runtime_dir.mkdir(exist_ok=True, mode=0o700)
        (folder / "stoker_child.py").write_text(CHILD)
        (folder / "stoker_launcher.py").write_text(LAUNCHER)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", str(folder / "stoker_launcher.py")),
                *(str(folder), str(watchdog_s)),
                *("--runtime-dir", str(self.runtime_dir), "--drain-timeout-s", "5", *flags),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait_started(self) -> bytes:
        """The first line on standard output."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(DEADLINE_S), "the launcher says nothing"
        return self.process.stdout.readline()

    def events(self) -> list[str]:
        path = self.folder / "events"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.rpartition(" ")[0] for line in lines]

    def pids(self) -> list[int]:
        path = self.folder / "events"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.rpartition(" ")[2]) for line in lines]

    def pid_of(self, name: str) -> int:
        """Of the latest process in that role."""
        lines = (self.folder / "events").read_text().splitlines()
        return [int(line.split()[2]) for line in lines if line.startswith(f"{name} started")][-1]

    def wait_until(self, fact: Callable[[], bool]) -> None:
        wait_until(fact, lambda: f"events: {self.events()}")

    def wait_exit(self) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out.decode(), err.decode()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*flags: str, watchdog_s: float = 30.0) -> Server:
        servers.append(Server(tmp_path, *flags, watchdog_s=watchdog_s))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.communicate()
        for pid in set(server.pids()):
            if is_ours(pid):
                os.kill(pid, signal.SIGKILL)


def is_ours(pid: int) -> bool:
    try:
        return b"stoker_child.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_the_started_line_comes_once_and_only_when_both_are_ready(serve):
    """
    Tools block on exactly this line (contract 1.1), so it must be true.
    """
    server = serve()

    line = server.wait_started()
    server.process.send_signal(signal.SIGTERM)
    code, rest, _ = server.wait_exit()

    assert line == b"Model server started.\n"
    assert rest == ""
    assert code == 0
    assert set(server.events()[:2]) == {"supervisor started", "frontend started"}


def test_a_supervisor_that_never_becomes_ready_ends_the_start(serve, tmp_path):
    """
    A frontend without a supervisor could only refuse; and a start that hangs must end.
    """
    (tmp_path / "supervisor.mute").touch()
    server = serve("--start-timeout-s", "1")

    code, out, err = server.wait_exit()

    assert code == ExitCode.UNAVAILABLE
    assert out == ""
    assert "did not become ready in time" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_ends_the_frontend_before_the_supervisor(serve, number):
    """
    The frontend holds requests that only a living supervisor can answer.
    """
    server = serve()
    server.wait_started()

    server.process.send_signal(number)
    code, _, _ = server.wait_exit()

    assert code == 0
    assert server.events()[2:] == ["frontend SIGTERM", "supervisor SIGTERM"]
    assert not any(is_ours(pid) for pid in server.pids())


def test_nothing_of_ours_is_left_in_the_runtime_directory(serve):
    """
    Only the lock's empty file stays: removing it would race with the next start.
    """
    server = serve()
    server.wait_started()

    server.process.send_signal(signal.SIGTERM)
    server.wait_exit()

    assert [path.name for path in server.runtime_dir.iterdir()] == ["launcher.lock"]


@pytest.mark.parametrize("name", ["supervisor", "frontend"])
def test_whichever_dies_is_started_again_and_the_other_is_left_alone(serve, name):
    """
    A crash of one process is no reason to lose the other's state.
    """
    server = serve()
    server.wait_started()
    first = server.pid_of(name)

    os.kill(first, signal.SIGKILL)
    server.wait_until(lambda: server.events().count(f"{name} started") == 2)

    other = {"supervisor": "frontend", "frontend": "supervisor"}[name]
    assert server.events().count(f"{other} started") == 1
    assert first != server.pid_of(name)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit()[0] == 0


def test_an_address_in_use_reaches_the_person_and_exits_with_1(serve, tmp_path):
    """
    The peer's text and status (contract 1.1); trying again would not help.
    """
    (tmp_path / "frontend.exit").write_text(str(int(ExitCode.ADDRESS_IN_USE)))
    server = serve()

    code, out, err = server.wait_exit()

    assert code == 1
    assert out == ""
    assert "Failed to bind to address: http://127.0.0.1:8080" in err
    assert server.events().count("frontend failed") == 1
    # Both start at once: the supervisor may have been stopped before it said anything.
    assert server.events().count("supervisor started") == server.events().count(
        "supervisor SIGTERM"
    )
    assert not [pid for pid in server.pids() if Path(f"/proc/{pid}").exists()]


def test_a_bad_setting_found_by_a_child_is_not_retried(serve, tmp_path):
    """
    A boot failure is reported once, with its own exit code.
    """
    (tmp_path / "supervisor.exit").write_text(str(int(ExitCode.CONFIG)))
    server = serve()

    code, _, _ = server.wait_exit()

    assert code == ExitCode.CONFIG
    assert server.events().count("supervisor failed") == 1


def test_a_process_that_keeps_dying_ends_the_server(serve, tmp_path):
    """
    Spinning for ever hides the fault and costs a processor.
    """
    (tmp_path / "supervisor.exit").write_text("1")
    server = serve()

    code, _, err = server.wait_exit()

    assert code == ExitCode.KEEPS_DYING
    assert server.events().count("supervisor failed") == 5
    assert "dies again and again" in err


def test_kill_9_of_the_launcher_leaves_no_process(serve):
    """
    A server that nobody can stop any more would hold its ports and GPUs.
    """
    server = serve()
    server.wait_started()
    pids = server.pids()

    server.process.kill()

    server.wait_until(lambda: not any(is_ours(pid) for pid in pids))
    assert len(pids) == 2


def test_a_second_launcher_in_the_same_folder_says_so(serve):
    """
    Two servers over one set of sockets would steal each other's workers.
    """
    first = serve()
    first.wait_started()

    second = serve()
    code, out, err = second.wait_exit()

    assert code == ExitCode.ALREADY_RUNNING
    assert out == ""
    assert f"stoker is already running (pid {first.process.pid})" in err
    assert first.process.poll() is None


def test_sighup_is_passed_on(serve):
    """
    Without a terminal SIGHUP means: read your settings again.
    """
    server = serve()
    server.wait_started()

    server.process.send_signal(signal.SIGHUP)

    server.wait_until(lambda: {"supervisor SIGHUP", "frontend SIGHUP"} <= set(server.events()))
    assert server.process.poll() is None


def test_a_second_interrupt_hurries(serve, tmp_path):
    """
    A person who presses Ctrl-C twice does not want to wait for the drain.
    """
    (tmp_path / "frontend.stubborn").touch()
    server = serve("--drain-timeout-s", "600")
    server.wait_started()

    server.process.send_signal(signal.SIGINT)
    server.wait_until(lambda: "frontend SIGTERM" in server.events())
    server.process.send_signal(signal.SIGINT)
    code, _, _ = server.wait_exit()

    assert server.events()[2:] == [
        "frontend SIGTERM",
        "frontend SIGQUIT",
        "supervisor SIGTERM",
    ]
    assert code == 0


def test_a_child_that_ignores_stop_is_killed_at_its_deadline(serve, tmp_path):
    """
    Every wait has a deadline; what was not answered by then is said by the exit code.
    """
    (tmp_path / "supervisor.stubborn").touch()
    server = serve("--drain-timeout-s", "600")
    server.wait_started()

    server.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda: "supervisor SIGTERM" in server.events())
    server.process.send_signal(signal.SIGTERM)  # shortens the deadline to seconds
    code, _, err = server.wait_exit()

    assert code == ExitCode.FAILURE
    assert "did not stop in time" in err


def test_a_child_that_stops_its_watchdog_is_aborted_and_replaced(serve, tmp_path):
    """
    A hanging loop answers nobody; SIGABRT first, so that its stack can be shown.
    """
    (tmp_path / "supervisor.hangs").touch()
    server = serve(watchdog_s=0.3)

    server.wait_until(lambda: server.events().count("supervisor started") == 2)
    server.process.send_signal(signal.SIGTERM)
    _, _, err = server.wait_exit()

    assert "process hangs, aborted" in err
    assert "exit=SIGABRT" in err


@pytest.mark.parametrize("name", ["supervisor", "frontend"])
def test_a_stopped_child_is_killed_and_replaced(serve, name):
    """
    It neither answers nor ends by itself, and SIGABRT does not reach it.
    """
    server = serve(watchdog_s=0.5)
    server.wait_started()
    stopped = server.pid_of(name)

    os.kill(stopped, signal.SIGSTOP)
    server.wait_until(lambda: server.events().count(f"{name} started") == 2)
    server.process.send_signal(signal.SIGTERM)
    code, _, err = server.wait_exit()

    assert code == 0
    assert "process hangs, aborted" in err
    assert "exit=SIGKILL" in err
    assert not is_ours(stopped)


def test_the_pid_file_names_every_process_and_is_true(serve):
    """
    `stoker stop` sends signals by it; a wrong number would hit a stranger.
    """
    server = serve()
    server.wait_started()

    running = find_running(server.runtime_dir)

    assert running is not None
    assert server.process.pid == running.pid
    assert start_ticks(server.process.pid) == running.start_ticks
    assert running.is_ready
    assert {
        "supervisor": server.pid_of("supervisor"),
        "frontend": server.pid_of("frontend"),
    } == running.children


def test_a_pid_file_of_a_dead_launcher_is_not_believed(serve):
    """
    After a crash the number may belong to anybody.
    """
    server = serve()
    server.wait_started()
    pids = server.pids()
    server.process.kill()
    server.process.wait()
    server.wait_until(lambda: not any(is_ours(pid) for pid in pids))
    pid_file = server.runtime_dir / "launcher.pid"

    assert pid_file.exists()
    assert find_running(server.runtime_dir) is None
    # Not even with a live pid in it.
    document = json.loads(pid_file.read_text())
    pid_file.write_text(json.dumps({**document, "pid": os.getpid()}))
    assert find_running(server.runtime_dir) is None


def test_systemd_hears_ready_and_stopping(tmp_path, monkeypatch, serve):
    """
    `stoker serve` may itself be a Type=notify service.
    """
    from stoker.cli.notify_socket import NotifySocket

    with NotifySocket(tmp_path / "systemd.sock") as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", str(systemd.path))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        server = serve()
        heard: list[dict[str, str]] = []

        def has_heard(name: str) -> bool:
            heard.extend(systemd.receive_nowait())
            return any(name in message for message in heard)

        server.wait_until(lambda: has_heard("READY"))
        server.wait_until(lambda: has_heard("WATCHDOG"))
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: has_heard("STOPPING"))

    assert server.wait_exit()[0] == 0


def test_back_off_begins_at_nothing_doubles_and_forgets_after_a_quiet_while():
    """
    One crash is repaired at once; a storm is slowed.
    """
    storm, quiet = Restarts(), Restarts()

    delays = [served(storm, now=i * 0.5) for i in range(9)]
    slow = [served(quiet, now=i * 20.0) for i in range(50)]

    assert [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] == [pytest.approx(d) for d in delays]
    assert {0.0} == set(slow)


def served(restarts: Restarts, *, now: float) -> float:
    """The delay after the death of a process that had worked."""
    decision = restarts.after_death(-9, was_ready=True, was_ever_ready=True, now=now)
    assert isinstance(decision, Restart)
    return decision.delay_s


def test_a_process_that_works_between_its_deaths_is_never_given_up():
    """
    Whoever kills it may stop doing so; a server that ends for it answers nobody.
    """
    restarts = Restarts()

    for i in range(4):
        restarts.after_death(1, was_ready=False, was_ever_ready=True, now=i * 0.1)
    for i in range(100):
        served(restarts, now=1.0 + i)
    failed = [
        restarts.after_death(1, was_ready=False, was_ever_ready=True, now=102.0 + i * 0.1)
        for i in range(5)
    ]

    assert all(isinstance(decision, Restart) for decision in failed[:4])
    assert GiveUp(ExitCode.KEEPS_DYING, "dies again and again") == failed[4]


def test_a_taken_port_after_a_crash_is_waited_for():
    """
    Left-over processes of the frontend that died may hold the port for a moment.
    """
    decision = Restarts().after_death(
        ExitCode.ADDRESS_IN_USE, was_ready=False, was_ever_ready=True, now=0.0
    )

    assert Restart(0.0) == decision
