"""One run of a workflow: a supervisor of our own, no HTTP, and nothing left afterwards.

The engine, the workers and the wire are those of a server; only the frontend is
missing, in whose place this process asks.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker.archives.war import pack_war
from stoker.archives.yaml_document import BadYaml, read_yaml
from stoker.clock import MonotonicClock
from stoker.errors import StokerError
from stoker.wire.frames import JobFlag
from stoker.wire.link import Link
from stoker.wire.payloads import (
    AnswerKind,
    Parameter,
    header_block,
    pack_request,
    unpack_parts,
)

START_TIMEOUT_S: Final = 30.0
LOAD_TIMEOUT_S: Final = 600.0
STOP_TIMEOUT_S: Final = 20.0
NAME: Final = "trial"
LOG_LINES: Final = 15


class TrialFailed(Exception):
    """It did not come to an answer; why is a sentence for people."""


@dataclass(frozen=True, slots=True)
class TrialAnswer:
    body: bytes
    status: int
    nodes: int
    loaded_s: float
    took_s: float


class Trial:
    """A workflow to try.

    Args:
        spec: A `.war`, TorchServe's YAML, or a definition of DJL Serving's.
        handler: The functions, where the specification is a YAML of TorchServe's.
        extra: Files that they import.
        model_store: Where models are named from; default the specification's folder.
    """

    def __init__(
        self,
        spec: Path,
        handler: Path | None = None,
        extra: tuple[Path, ...] = (),
        model_store: Path | None = None,
    ) -> None:
        self._spec = spec.resolve()
        self._handler = handler
        self._extra = extra
        self._model_store = model_store or self._spec.parent

    def run(self, given: bytes, name: str, deadline_s: float) -> TrialAnswer:
        """Raises TrialFailed."""
        # Short: the name of a Unix socket has room for 107 bytes.
        home = Path(tempfile.mkdtemp(prefix="stoker-"))
        try:
            home.chmod(0o700)
            arguments, stores = self._prepare(home)
            with (home / "log.txt").open("wb") as log:
                process = subprocess.Popen(
                    self._command(home, stores), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
                try:
                    return asyncio.run(self._ask(home, arguments, given, name, deadline_s))
                except StokerError as error:
                    raise TrialFailed(self._why(home, error)) from None
                finally:
                    process.terminate()
                    try:
                        process.wait(STOP_TIMEOUT_S)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
        finally:
            shutil.rmtree(home, ignore_errors=True)

    # -- before ----------------------------------------------------------------------

    def _prepare(self, home: Path) -> tuple[dict[str, Any], list[str]]:
        """What to register, and flags that say where things lie.  Raises TrialFailed."""
        if not self._spec.is_file():
            raise TrialFailed(f"there is no file {self._spec}")
        store = ["--model-store", str(self._model_store)]
        if self._spec.suffix == ".war":
            flags = [*store, "--workflow-store", str(self._spec.parent)]
            return {"url": self._spec.name, "workflow": NAME}, flags
        try:
            document, _ = read_yaml(self._spec)
        except BadYaml as error:
            raise TrialFailed(f"{self._spec.name} {error}") from None
        if not isinstance(document, dict) or not {"dag", "workflow"} & document.keys():
            raise TrialFailed(f"{self._spec.name} has neither dag nor workflow")
        if "dag" not in document:
            asked = {"url": self._spec.name, "workflow": NAME, "notation": "djl"}
            # What a definition names lies where it does.
            return asked, ["--model-store", str(self._spec.parent)]
        wars = home / "wars"
        wars.mkdir()
        try:
            pack_war(NAME, self._spec, self._handler, wars, self._extra)
        except StokerError as error:
            raise TrialFailed(error.message) from None
        return {"url": f"{NAME}.war"}, [*store, "--workflow-store", str(wars)]

    def _command(self, home: Path, stores: list[str]) -> list[str]:
        command = [sys.executable, "-P", "-m", "stoker.supervisor", *stores]
        for name in ("runtime", "state", "cache", "log"):
            (home / name).mkdir(mode=0o700)
            command += [f"--{name}-dir", str(home / name)]
        return [*command, "--restore-state", "off", "--orphan-grace-s", "0"]

    # -- meanwhile ---------------------------------------------------------------------

    async def _ask(
        self, home: Path, arguments: dict[str, Any], given: bytes, name: str, deadline_s: float
    ) -> TrialAnswer:
        """Raises StokerError."""
        clock = MonotonicClock()
        link = Link(home / "runtime", clock)
        await link.start()
        try:
            await link.wait_connected(START_TIMEOUT_S)
            began_at = time.monotonic()
            await link.call("register_workflow", arguments, LOAD_TIMEOUT_S)
            loaded_s = time.monotonic() - began_at
            described = await link.call("describe_workflow", {"workflow": NAME}, START_TIMEOUT_S)
            nodes = len(described["versions"][0]["nodes"])
            kind = mimetypes.guess_type(name)[0] or ""
            headers = [("content-type", kind)] if kind else []
            payload = pack_request(
                "trial", header_block([], headers), [Parameter("body", kind, given)]
            )
            began_at = time.monotonic()
            pending = link.submit(
                NAME, "", clock.now() + deadline_s, JobFlag.WORKFLOW.value, payload
            )
            body, status = await _whole(pending)
            return TrialAnswer(body, status, nodes, loaded_s, time.monotonic() - began_at)
        finally:
            await link.close()

    # -- when it fails ---------------------------------------------------------------------

    def _why(self, home: Path, error: StokerError) -> str:
        """The error, and what the workers had printed last."""
        printed: list[str] = []
        for log in sorted((home / "log").rglob("*.log")):
            printed += log.read_text(errors="replace").splitlines()
        node = error.details.get("node")
        said = error.message or error.code
        tail = "\n".join(f"  {line}" for line in printed[-LOG_LINES:])
        where = f" (node {node})" if node and str(node) not in said else ""
        return f"{said}{where}\n{tail}".rstrip()


async def _whole(pending: Any) -> tuple[bytes, int]:
    """A stream's pieces joined, several nodes' answers as one JSON object, and the status."""
    pieces: list[bytes] = []
    while True:
        answer = await pending.next()
        pieces.append(answer.body)
        if answer.kind is not AnswerKind.CHUNK:
            break
    if answer.kind is not AnswerKind.PARTS:
        return b"".join(pieces), answer.status
    merged: dict[str, str] = {}
    for node, body in unpack_parts(answer.body):
        merged[node] = merged.get(node, "") + body.decode("utf-8", "replace")
    return json.dumps({node: _read(text) for node, text in merged.items()}).encode(), 200


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
