"""Throw-away environments for peers, outside the checkout, made once and kept.

    FOLDER/torch-3.11-1a2b3c4d/     what several peers need and is large
    FOLDER/mosec-3.11-5e6f7a8b/     one per peer; `made.json` when it is complete

The folder is the flag `--peers-dir`, `STOKER_BENCH_PEERS`, or one in the
user's cache.  Delete it whenever you like.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peers.peer import Peer

#: The same torch in every server, so that the CNN is the same work.
TORCH = ("torch==2.13.0", "numpy")
INSTALL_TIMEOUT_S = 900.0
MADE = "made.json"


class CannotInstall(Exception):
    """Said in the table instead of figures."""


@dataclass(frozen=True, slots=True)
class Environment:
    folder: Path
    versions: dict[str, str]

    @property
    def bin(self) -> Path:
        return self.folder / "bin"


def default_folder() -> Path:
    if chosen := os.environ.get("STOKER_BENCH_PEERS"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "stoker-bench"


def prepare(peer: Peer, folder: Path) -> Environment:
    """The peer's environment, made now if it is not there.

    Raises:
        CannotInstall: With the reason in one line.
    """
    for needed in peer.needs:
        if shutil.which(needed) is None:
            raise CannotInstall(f"needs `{needed}`, which is not on the PATH")
    found = _environment(peer.name, peer.requirements, folder)
    if not peer.wants_torch:
        return found
    shared = _environment("torch", TORCH, folder)
    # Last on its path: whatever the peer brings itself comes first.
    (_site_packages(found.folder) / "shared-torch.pth").write_text(
        f"{_site_packages(shared.folder)}\n"
    )
    return Environment(found.folder, found.versions | {"torch": shared.versions["torch"]})


def _environment(name: str, requirements: Sequence[str], folder: Path) -> Environment:
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower())
    home = folder / f"{slug}-{python}-{digest}"
    made = home / MADE
    if not made.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        _run(name, [sys.executable, "-m", "venv", str(home)])
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        _run(name, [*pip, "install", "--quiet", *requirements])
        made.write_text(json.dumps(_versions(pip), indent=1))
    everything: dict[str, str] = json.loads(made.read_text())
    own = [re.split(r"[\[<>=!~ ]", wanted)[0].lower() for wanted in requirements]
    return Environment(home, {own_name: everything[own_name] for own_name in own})


def _versions(pip: Sequence[str]) -> dict[str, str]:
    listed = subprocess.run(
        [*pip, "list", "--format=json"], stdout=subprocess.PIPE, check=True, timeout=120
    )
    return {row["name"].lower(): row["version"] for row in json.loads(listed.stdout)}


def _run(name: str, command: Sequence[str]) -> None:
    try:
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"installing took longer than {INSTALL_TIMEOUT_S:.0f} s") from None
    if finished.returncode:
        said = [line for line in finished.stderr.splitlines() if line.startswith("ERROR")]
        last = (said or finished.stderr.splitlines() or [f"status {finished.returncode}"])[-1]
        raise CannotInstall(last[:200])


def _site_packages(folder: Path) -> Path:
    return next((folder / "lib").glob("python*")) / "site-packages"
