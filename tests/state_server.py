"""The real supervisor process alone, started again and again in the same folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from facts import DEADLINE_S, wait_until

from stoker.wire import asking, frames
from stoker.wire.stream import PeerGone

#: Answers with what it gets; cannot be loaded while a file `broken` lies beside it.
HANDLER = """
import os

if os.path.exists(os.path.join(os.path.dirname(__file__), "broken")):
    raise ImportError("broken")

def handle(data, context):
    return None if data is None else [item["body"] for item in data]
"""


class Asking:
    """One call under way, to a server that may die over it."""

    def __init__(self, runtime_dir: Path, verb: str, arguments: dict[str, Any]) -> None:
        self._asking = asking.Asking(runtime_dir, DEADLINE_S)
        self._asking.say(frames.Call(1, verb, arguments))

    def was_answered(self) -> bool:
        """With success; for when the server is gone, and what has not come will not come."""
        try:
            (said,) = self._asking.hear()
        except PeerGone:
            return False
        finally:
            self._asking.close()
        assert isinstance(said, frames.Result)
        return said.code is None


class StateServer:
    """Its folders outlive its processes; `destroy` removes both."""

    def __init__(self, *flags: str, starts: bool = True) -> None:
        # Short: the name of a Unix socket has room for 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="stoker-", dir="/tmp"))
        for name in ("run", "cache", "log", "state", "store", "handlers"):
            (self.home / name).mkdir(mode=0o700)
        (self.home / "handlers" / "says.py").write_text(HANDLER)
        self.store = self.home / "store"
        self.runtime_dir = self.home / "run"
        self._log = self.home / "supervisor.log"
        self._log.touch()
        self._lines_before = 0
        self._flags = flags
        if starts:
            self.start()

    def start(self, *flags: str) -> None:
        """Returns when it serves."""
        self.begin_start(*flags)
        wait_until(
            lambda: self.logged("supervisor ready") or self.process.poll() is not None,
            "the supervisor serves",
        )
        assert self.process.poll() is None, self._log.read_text()

    def begin_start(self, *flags: str) -> None:
        """Does not wait."""
        self._lines_before = len(self._log.read_text().splitlines())
        command = [sys.executable, "-P", "-m", "stoker.supervisor", "--log-format", "json"]
        for name, folder in (("runtime", "run"), ("cache", "cache"), ("log", "log")):
            command += [f"--{name}-dir", str(self.home / folder)]
        command += ["--state-dir", str(self.home / "state"), "--model-store", str(self.store)]
        command += ["--drain-timeout-s", "2", *self._flags, *flags]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("STOKER_", "TS_"))}
        paths = [str(self.home / "handlers"), *filter(None, [inherited.get("PYTHONPATH")])]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={
                    **inherited,
                    "PYTHONPATH": os.pathsep.join(paths),
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
            )

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(DEADLINE_S) == 0, self._log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Raises StokerError."""
        return asking.ask(self.runtime_dir, verb, arguments, DEADLINE_S)

    def begin_asking(self, verb: str, **arguments: Any) -> Asking:
        """Send a call and do not wait for its answer."""
        return Asking(self.runtime_dir, verb, arguments)

    def register(self, model: str, **arguments: Any) -> dict[str, Any]:
        return self.ask("register", model=model, **{"handler": "says:handle", **arguments})

    def describe(self, model: str) -> list[dict[str, Any]]:
        """All its versions."""
        versions: list[dict[str, Any]] = self.ask("describe", model=model, all=True)["versions"]
        return versions

    def shown(self) -> dict[str, Any]:
        """What is served: defaults and worker counts."""
        found = {}
        for model in self.ask("list", limit=100, offset=0)["models"]:
            versions = self.describe(model["model"])
            found[model["model"]] = {
                "default": next(each["version"] for each in versions if each["is_default"]),
                "versions": {
                    each["version"]: [each["min_workers"], each["max_workers"]] for each in versions
                },
            }
        return found

    def lines(self) -> list[dict[str, Any]]:
        """What the latest process has logged so far."""
        return [
            json.loads(line) for line in self._log.read_text().split("\n")[self._lines_before : -1]
        ]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] == event]

    def complaints(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["level"] not in ("debug", "info")]

    def destroy(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.home)
