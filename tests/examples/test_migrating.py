"""Every command of docs/migrating-from-torchserve.md, in order, on an installation as it describes.

A fenced `sh` block is run in one shell that goes on from block to block; if a
`text` block follows, that is what it must print.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from facts import wait_until

from stoker.cli.model_server_pid import ModelServerPid
from stoker.process_start import start_ticks

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "migrating-from-torchserve.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LISTENERS = {"8080": "inference", "8081": "management", "8082": "metrics"}
#: The page shows the usual ones.
FREE_PORTS = {
    f"STOKER_{listener.upper()}_ADDRESS": "http://127.0.0.1:0" for listener in LISTENERS.values()
}
GREETER = """
from ts.torch_handler.base_handler import BaseHandler


class Greeter(BaseHandler):
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return [f"hello {row['body']}" for row in data]
"""
UPPER = """
try:
    import no_such_tokenizer
except ImportError:
    no_such_tokenizer = None


def handle(data, context):
    return data
"""


def archive(name: str, handler: str, source: str = "", version: str = "1.0") -> bytes:
    manifest = {
        "runtime": "python",
        "model": {"modelName": name, "handler": handler, "modelVersion": version},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        file.writestr("handler.py" if source else "vocabulary.txt", source)
    return buffer.getvalue()


class Session:
    """A shell in an installation; the page's path and ports are swapped for real ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.temporary = root / "tmp"
        self.temporary.mkdir(mode=0o700)
        self.installation = root / "torchserve"
        store = self.installation / "model-store"
        store.mkdir(parents=True)
        blocks = BLOCK.findall(PAGE.read_text())
        config = next(text for kind, text in blocks if kind == "properties")
        (self.installation / "config.properties").write_text(config)
        (self.installation / "start.sh").write_text("#!/bin/sh\ntorchserve --start --ncs\n")
        (store / "greeter.mar").write_bytes(archive("greeter", "handler.py", GREETER))
        (store / "sentiment.mar").write_bytes(archive("sentiment", "text_classifier"))
        (store / "upper.mar").write_bytes(archive("upper", "handler.py", UPPER, "2.0"))
        tools = root / "bin"
        tools.mkdir()
        (tools / "stoker").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m stoker.cli "$@"\n')
        (tools / "stoker").chmod(0o755)
        self._before = ""
        self._environ = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(root),
            "TMPDIR": str(self.temporary),
        }

    def run(self, block: str) -> str:
        """Run a block behind the earlier ones' `cd` and `alias`; returns what it printed."""
        said = block.replace("/srv/torchserve", str(self.installation))
        for port, listener in LISTENERS.items():
            said = said.replace(f"http://127.0.0.1:{port}", self._address(listener))
        said = said.replace("curl ", "curl --silent --show-error ")
        # A server in the background keeps its streams, so none of them may be a pipe.
        with tempfile.TemporaryFile("w+") as out:
            done = subprocess.run(
                ["bash", "-c", f"shopt -s expand_aliases\n{self._before}{said}"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                check=False,
                env=self._environ | (FREE_PORTS if "--start" in said else {}),
                timeout=100,
            )
            out.seek(0)
            printed = out.read()
        assert done.returncode in (0, 2), printed
        kept = [line for line in said.splitlines() if line.startswith(("cd ", "alias "))]
        self._before += "".join(f"{line}\n" for line in kept)
        return printed.replace(str(self.installation), "/srv/torchserve")

    def _address(self, listener: str) -> str:
        path = self.temporary / f"stoker-{os.geteuid()}" / "addresses.json"
        return str(json.loads(path.read_text())[listener]) if path.exists() else "http://unserved"


@pytest.fixture
def session() -> Iterator[Session]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mv-", dir="/tmp") as root:
        found = Session(Path(root))
        yield found
        if (pid := ModelServerPid(found.temporary).find()) is not None:
            os.kill(pid, 15)
            wait_until(lambda: start_ticks(pid) is None, "the server has stopped")


@pytest.mark.slow
def test_the_page_can_be_typed_as_it_stands(session: Session) -> None:
    """
    It is what an operator does on the first day, with the outcome in front of him.
    """
    blocks = BLOCK.findall(PAGE.read_text())
    shown = 0

    for (kind, text), (next_kind, expected) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind != "sh":
            continue
        printed = session.run(text)
        if next_kind == "text":
            assert printed.rstrip("\n") == expected.rstrip("\n")
            shown += 1

    assert shown == 4


def test_every_link_of_the_page_leads_somewhere() -> None:
    """
    Relative links rot silently.
    """
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGE.read_text())

    assert targets
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []
