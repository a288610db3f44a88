"""What a server says that does not start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stoker.wire.arena_folder import arena_folder

#: Settings are checked first.
BAD_SETTINGS = 78


def refusal(*flags: str, prefix: tuple[str, ...] = (), **env: str) -> str:
    """The supervisor's last word, with which the whole server ends as for a bad setting."""
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as home:
        os.chmod(home, 0o711)
        command = [*prefix, sys.executable, "-P", "-m", "stoker.supervisor", *flags]
        for name in ("runtime", "state", "cache", "log"):
            command += [f"--{name}-dir", str(Path(home, name))]
        ran = subprocess.run(
            [*command, "--log-format", "json"],
            capture_output=True,
            check=False,
            cwd=home,
            env={**os.environ, **env},
            timeout=60,
        )
        left = [path.name for path in Path(home).rglob("*.sock")]
        left += [path.name for path in arena_folder(Path(home, "runtime")).glob("*")]
    lines = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith(b"{")]
    reasons = [line["reason"] for line in lines if line["event"] == "cannot start"]
    assert (ran.returncode, len(reasons), left) == (BAD_SETTINGS, 1, []), ran.stderr.decode()
    return str(reasons[0])
