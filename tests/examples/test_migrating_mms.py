"""Every command of docs/migrating-from-mms.md, in order, on such an installation.

A fenced `sh` block is run in one shell that goes on from block to block; if a
`text` block follows, that is what it must print.
"""

from __future__ import annotations

import json
import os
import re
import signal
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
from stoker.settings.load import load

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "migrating-from-mms.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = {"8080": "inference", "8081": "management", "8082": "metrics"}
FREE_PORTS = {f"STOKER_{api.upper()}_ADDRESS": "http://127.0.0.1:0" for api in PORTS.values()}
HANDLER = """
from mms.service import PredictionException


def handle(data, context):
    if data is None:
        return None
    return [f"hello {row['body']}" for row in data]
"""
MANIFEST = {
    "runtime": "python",
    "modelServerVersion": "1.0",
    "implementationVersion": "1.0",
    "specificationVersion": "1.0",
    "model": {"modelName": "greeter", "handler": "service.py:handle"},
}


@pytest.fixture
def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


class Session:
    """A shell in an installation; the page's path and ports are swapped for real ones."""

    def __init__(self, home: Path, config: str) -> None:
        self.home = home
        for name in ("tmp", "bin", "mms/store"):
            (home / name).mkdir(mode=0o700, parents=True)
        (home / "mms" / "config.properties").write_text(config)
        with zipfile.ZipFile(home / "mms" / "store" / "greeter.mar", "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps(MANIFEST))
            archive.writestr("service.py", HANDLER)
        tool = home / "bin" / "stoker"
        tool.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m stoker.cli "$@"\n')
        tool.chmod(0o755)
        self._before = ""

    def run(self, block: str) -> str:
        """Run a block behind the earlier ones' `cd` and `alias`; returns what it printed."""
        said = block.replace("/srv/mms", str(self.home / "mms"))
        path = self.home / "tmp" / f"stoker-{os.geteuid()}" / "addresses.json"
        if path.exists():
            for port, api in PORTS.items():
                said = said.replace(
                    f"http://127.0.0.1:{port}", json.loads(path.read_text()).get(api, "")
                )
        said = said.replace("curl ", "curl --silent --show-error --noproxy '*' ")
        # A server in the background keeps its streams, so none of them may be a pipe.
        with tempfile.TemporaryFile("w+") as out:
            subprocess.run(
                ["bash", "-c", f"shopt -s expand_aliases\n{self._before}{said}"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                check=True,
                env={
                    "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
                    "HOME": str(self.home),
                    "TMPDIR": str(self.home / "tmp"),
                    **FREE_PORTS,
                },
                timeout=100,
            )
            out.seek(0)
            printed = out.read()
        kept = [line for line in said.splitlines() if line.startswith(("cd ", "alias "))]
        self._before += "".join(f"{line}\n" for line in kept)
        return printed.replace(str(self.home / "mms"), "/srv/mms")


@pytest.fixture
def session(blocks: list[tuple[str, str]]) -> Iterator[Session]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mm-", dir="/tmp") as root:
        found = Session(Path(root), next(text for kind, text in blocks if kind == "properties"))
        yield found
        if (pid := ModelServerPid(found.home / "tmp").find()) is not None:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: start_ticks(pid) is None, "the server has stopped")


@pytest.mark.slow
def test_the_page_works_as_it_stands(session: Session, blocks: list[tuple[str, str]]) -> None:
    """
    A guide that does not work is worse than none.
    """
    shown = [(kind, text) for kind, text in blocks if kind in ("sh", "text")]
    assert len(shown) >= 8

    for (kind, command), (after, expected) in zip(shown[::2], shown[1::2], strict=True):
        assert (kind, after) == ("sh", "text")
        assert session.run(command) == expected


def test_the_settings_of_the_page_are_settings(
    blocks: list[tuple[str, str]], tmp_path: Path
) -> None:
    """
    Several dialects at once, as the page has them.
    """
    path = tmp_path / "stoker.toml"
    path.write_text(next(text for kind, text in blocks if kind == "toml"))

    assert len(load(["--config", str(path)], {}).listeners) == 3
