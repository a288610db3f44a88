"""`stoker serve` as an operator runs it, and clients that see every byte.

Tests come by one through the fixtures of `live_fixtures.py`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psutil
from facts import DEADLINE_S, wait_until
from process_titles import title_of
from raw_http import RawHttp

HANDLERS = Path(__file__).parent / "e2e" / "handlers"
LISTENERS = ("inference", "management", "metrics")
#: Locks stay: removing a file that another process may be about to lock is a race.
STAYS_IN_RUNTIME_DIR = {"launcher.lock", "supervisor.lock"}


# -- answers ---------------------------------------------------------------------------


@dataclass
class Answer:
    """One HTTP answer, whoever fetched it."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    #: With curl: the lines of the answer's head as `-v` shows them.
    shown: list[str] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def said(self) -> str:
        """The text of a management answer."""
        return str(self.json["status"])


class RawConnection(RawHttp):
    """One that gives answers."""

    def __init__(self, address: str) -> None:
        where = urlsplit(address)
        super().__init__((where.hostname, where.port))

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_head(self) -> Answer:
        status_line, headers = self.take_head()
        _, status, reason = status_line.split(" ", 2)
        return Answer(int(status), reason, headers, b"")

    def read_answer(self) -> Answer:
        answer = self.read_head()
        answer.body = self.read_exactly(int(answer.header("content-length") or 0))
        return answer


class Gate:
    """A place where a handler stops until the test lets it go on.

    A FIFO: the handler blocks in opening it for reading, so the test knows
    when it is there, and goes on at the end of file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._fd = -1

    def wait_reached(self) -> None:
        wait_until(self._can_open, f"a handler waits at {self.path.name}")

    def let_go(self) -> None:
        if self._fd < 0:
            self.wait_reached()
        os.close(self._fd)
        self._fd = -1

    def stay_open(self) -> None:
        """Whoever comes from now on passes; who waits already goes on waiting."""
        self.path.unlink()
        self.path.touch()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.path.unlink(missing_ok=True)

    def _can_open(self) -> bool:
        if self._fd < 0:
            with contextlib.suppress(OSError):
                self._fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        return self._fd >= 0


# -- the server ------------------------------------------------------------------------

#: Servers that are supposed to run.
RUNNING: list[Server] = []


class Server:
    """One running `stoker serve` in folders of its own."""

    def __init__(
        self,
        *flags: str,
        model_store: Path | None = None,
        env: dict[str, str] | None = None,
        program: tuple[str, ...] = ("-m", "stoker.cli"),
        prefix: tuple[str, ...] = (),
        mode: int = 0o700,
        owner: int | None = None,
    ) -> None:
        # Short: the name of a Unix socket has room for 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="stoker-", dir="/tmp"))
        self.home.chmod(mode)
        for name in ("run", "cache", "log", "state", "tmp", "gates"):
            (self.home / name).mkdir(mode=0o700)
        for folder in (self.home, *self.home.iterdir()) if owner is not None else ():
            os.chown(folder, owner, owner)
        self.runtime_dir, self.cache_dir = self.home / "run", self.home / "cache"
        self.log_dir = self.home / "log"
        self.model_store = model_store
        self.addresses: dict[str, str] = {}
        self.origin: Any = None
        self._errors_seen = 0
        self._expected: list[str] = []
        self._gates: list[Gate] = []
        self._log = self.home / "server.log"
        command = [*prefix, sys.executable, "-P", *program, "serve", "--log-format", "json"]
        # A configuration file may want to say where to listen.
        is_said = "--config" in flags or "--listeners" in flags
        for listener in () if is_said else LISTENERS:
            command += [f"--{listener}-address", "http://127.0.0.1:0"]
        for name, folder in (("runtime", "run"), ("cache", "cache"), ("log", "log")):
            command += [f"--{name}-dir", str(self.home / folder)]
        command += ["--state-dir", str(self.home / "state")]
        command += ["--drain-timeout-s", "5", "--unregister-model-timeout", "2"]
        if model_store is not None:
            command += ["--model-store", str(model_store)]
        self._command = [*command, *flags]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("STOKER_", "TS_"))}
        self._env = {
            **inherited,
            "PYTHONPATH": os.pathsep.join(
                [str(HANDLERS), *filter(None, [inherited.get("PYTHONPATH")])]
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.home / "tmp"),
            "E2E_GATES": str(self.home / "gates"),
            **(env or {}),
        }
        self.process = self._start()
        RUNNING.append(self)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.home,
                env=self._env,
                start_new_session=True,
            )

    def start_anew(self, **env: str) -> None:
        """Stop it, and start it again with what it had, and these variables."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE_S) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._env |= env
        self.process = self._start()
        self.wait_started()

    def wait_started(self) -> None:
        """Standard output says so, as tools expect (contract 1.1)."""
        assert self.process.stdout is not None
        timer = threading.Timer(DEADLINE_S, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        assert line == b"Model server started.\n", self._log.read_text()
        self.read_addresses()

    def read_addresses(self) -> None:
        written = json.loads((self.runtime_dir / "addresses.json").read_bytes())
        if "--listeners" not in self._command:
            assert written.keys() >= set(LISTENERS)
        self.addresses = written

    def is_answering(self) -> bool:
        """Also after a restart of the frontend, which may have got other ports."""
        try:
            self.read_addresses()
            return self.ask("inference", "GET", "/ping", timeout_s=2).status == 200
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def start_again(self) -> tuple[int, str]:
        """The very same command while this one runs; exit status and what it said."""
        ran = subprocess.run(
            self._command, capture_output=True, check=False, timeout=DEADLINE_S, cwd=self.home
        )
        return ran.returncode, ran.stderr.decode()

    # -- clients --------------------------------------------------------------

    def connect(self, listener: str = "inference") -> RawConnection:
        return RawConnection(self.addresses[listener])

    def ask(
        self,
        listener: str,
        method: str,
        path: str,
        body: bytes | None = None,
        timeout_s: float = DEADLINE_S,
        **headers: str,
    ) -> Answer:
        """One request on a connection of its own; `content_type=` is `Content-Type:`."""
        where = urlsplit(self.addresses[listener])
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout_s)
        spelled = {name.replace("_", "-").title(): text for name, text in headers.items()}
        try:
            connection.request(method, path, body, spelled)
            response = connection.getresponse()
            pairs = response.getheaders()
            return Answer(response.status, response.reason, pairs, response.read())
        finally:
            connection.close()

    def manage(self, method: str, path: str, **query: Any) -> Answer:
        return self.ask("management", method, f"{path}?{urlencode(query)}" if query else path)

    def predict(self, model: str, body: bytes | str = b"", **headers: str) -> Answer:
        data = body.encode() if isinstance(body, str) else body
        return self.ask("inference", "POST", f"/predictions/{model}", data, **headers)

    def register(self, model: str, handler: str, workers: int = 1, **query: Any) -> None:
        """A handler from PYTHONPATH, with its workers ready."""
        answer = self.manage(
            "POST",
            "/models",
            model_name=model,
            handler=handler,
            initial_workers=workers,
            synchronous="true",
            **query,
        )
        assert answer.status == 200, answer.text

    @property
    def _torchserve(self) -> str:
        """Where models are managed in that dialect, whatever others there are."""
        own = "torchserve/management"
        return own if own in self.addresses else "management"

    def describe(self, model: str, version: str = "") -> Any:
        path = f"/models/{model}" + (f"/{version}" if version else "")
        answer = self.ask(self._torchserve, "GET", path)
        assert answer.status == 200, answer.text
        return answer.json[0]

    def workers(self, model: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.describe(model)["workers"]
        return found

    def later(self, call: Callable[..., Answer], *args: Any, **more: Any) -> Later:
        return Later(call, args, more)

    def curl(self, line: str) -> Answer:
        """Run a line as it stands in the documentation, against this server."""
        assert line.startswith("curl ")
        swaps = {
            "http://localhost:8080": self.addresses["inference"],
            "http://localhost:8081": self.addresses["management"],
        }
        if self.origin is not None:
            swaps["https://torchserve.pytorch.org"] = self.origin.address
        for said, meant in swaps.items():
            line = line.replace(said, meant)
        words = [word for word in shlex.split(line) if word != "-v"]
        options = ["-sSv", "--noproxy", "*", "--max-time", str(DEADLINE_S)]
        ran = subprocess.run([words[0], *options, *words[1:]], capture_output=True, check=False)
        assert ran.returncode == 0, ran.stderr.decode()
        noise = ran.stderr.decode("latin-1").replace("\r", "").splitlines()
        # An interim 100 comes before the answer proper.
        starts = [i for i, text in enumerate(noise) if text.startswith("< HTTP/1.1 ")]
        shown = [text[2:] for text in noise[starts[-1] :] if text.startswith("< ")]
        _, status, reason = shown[0].split(" ", 2)
        pairs = [text.partition(": ") for text in shown[1:] if text]
        headers = [(name, value) for name, _, value in pairs]
        return Answer(int(status), reason, headers, ran.stdout, [text for text in shown if text])

    def gate(self, name: str) -> Gate:
        gate = Gate(self.home / "gates" / name)
        self._gates.append(gate)
        return gate

    def _close_gates(self) -> None:
        for gate in self._gates:
            gate.close()
        self._gates.clear()

    # -- what it writes ---------------------------------------------------------

    def log_lines(self) -> list[dict[str, Any]]:
        """Every whole line of the server's log; one that is no JSON has only an `event`."""
        found: list[dict[str, Any]] = []
        for line in self._log.read_text(errors="replace").split("\n")[:-1]:
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"event": line, "level": "not a log line"})
        return found

    def log_tail(self) -> str:
        """For a report: how it came to a failure."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])

    def logged(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        return [
            line
            for line in self.log_lines()
            if line["event"] == event and facts.items() <= line.items()
        ]

    def wait_logged(self, event: str, count: int = 1, **facts: Any) -> dict[str, Any]:
        found = wait_until(
            lambda: self.logged(event, **facts)[count - 1 :], f"the log says {event!r} {facts}"
        )
        line: dict[str, Any] = found[-1]
        return line

    def model_log(self, model: str, version: str = "1.0") -> str:
        """What the workers of one version have printed so far."""
        path = self.log_dir / "models" / model / f"{version}.log"
        return path.read_text() if path.exists() else ""

    def expect_error(self, event: str) -> None:
        """The test makes the server complain, in words that begin so; other complaints fail it."""
        self._expected.append(event)

    def check_errors(self) -> None:
        """Every complaint since the last check was announced, and every announced one came."""
        lines = [
            line for line in self.log_lines() if line["level"] not in ("debug", "info", "warning")
        ]
        new, expected = lines[self._errors_seen :], tuple(self._expected)
        self._errors_seen, self._expected = len(lines), []
        unexpected = [line for line in new if not line["event"].startswith(expected or "\n")]
        assert not unexpected, "\n".join(line["event"] for line in unexpected)
        for event in expected:
            assert any(line["event"].startswith(event) for line in new), event

    # -- processes --------------------------------------------------------------

    def child(self, title: str) -> psutil.Process:
        """The one process below the launcher whose title starts so."""
        found = [process for process in self.tree() if title_of(process).startswith(title)]
        assert len(found) == 1, [(p.pid, title_of(p)) for p in self.tree()]
        return found[0]

    @property
    def supervisor(self) -> psutil.Process:
        return self.child("stoker: supervisor")

    @property
    def frontend(self) -> psutil.Process:
        """The process that answers HTTP; its parent is gunicorn's master."""
        return self.child("stoker: frontend 1")

    def tree(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    # -- the end ----------------------------------------------------------------

    def clear(self) -> None:
        """Unregister everything, so that the next test finds an empty server."""
        self._close_gates()
        for name in [model["modelName"] for model in self.manage("GET", "/models").json["models"]]:
            records = self.ask(self._torchserve, "GET", f"/models/{name}/all").json
            default = self.describe(name)["modelVersion"]
            versions = [record["modelVersion"] for record in records]
            for version in sorted(versions, key=lambda each: each == default):
                answer = self.ask(self._torchserve, "DELETE", f"/models/{name}/{version}")
                assert answer.status == 200, answer.text

    def stop(self) -> None:
        """SIGTERM: exit code 0 and nothing left anywhere."""
        self._close_gates()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE_S) == 0, self._log.read_text()
        self.forget()
        self.check_nothing_left()
        self.check_errors()

    def check_nothing_left(self) -> None:
        assert find_leftovers() == []
        assert {path.name for path in self.runtime_dir.iterdir()} <= STAYS_IN_RUNTIME_DIR
        assert list((self.home / "tmp").iterdir()) == []
        assert [path.name for path in self.cache_dir.rglob(".*")] == []
        downloads = self.cache_dir / "downloads"
        assert not downloads.exists() or [*downloads.iterdir()] == []

    def forget(self) -> None:
        """From now on, what is left of it counts as left over."""
        if self in RUNNING:
            RUNNING.remove(self)

    def destroy(self) -> None:
        """Whatever happened in the test."""
        tree = self.tree()
        self.forget()
        orphans = [
            process
            for process in psutil.Process().children()
            if title_of(process).startswith("stoker: ") and process.pid not in _meant()
        ]
        for process in [*tree, *orphans]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not find_leftovers(), "what was killed is gone", 5)
        shutil.rmtree(self.home, ignore_errors=True)


class Later:
    """A request under way in a thread; `answer` waits for it."""

    def __init__(self, call: Callable[..., Answer], args: Any, more: Any) -> None:
        self._outcome: Answer | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call, args, more), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[..., Answer], args: Any, more: Any) -> None:
        try:
            self._outcome = call(*args, **more)
        except BaseException as error:
            self._outcome = error

    @property
    def is_answered(self) -> bool:
        return not self._thread.is_alive()

    def answer(self) -> Answer:
        self._thread.join(DEADLINE_S)
        assert self._outcome is not None, "no answer in time"
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


def has_ended(pid: int) -> bool:
    """Also a zombie has: an orphan's waits for us."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _meant() -> set[int]:
    """Processes of servers that are supposed to run."""
    pids = {process.pid for server in RUNNING for process in server.tree()}
    return pids | {server.process.pid for server in RUNNING}


def find_leftovers() -> list[str]:
    """Descendants of ours that still run; orphans come to us, so none can hide.

    Servers that are meant to run are not counted.  Zombies that were handed
    to us when their parent was killed are reaped.
    """
    found = []
    meant = _meant()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid in meant:
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {title_of(process)}")
            elif process.ppid() == os.getpid():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
    return found
