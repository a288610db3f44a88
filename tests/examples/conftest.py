"""Lets tests reach the scripts in `examples/` and `benchmarks/`, which are no package."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDERS = ("benchmarks", "benchmarks/models", "examples", "examples/digits")


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope="package", autouse=True)
def scripts_on_path() -> Iterator[None]:
    """Their folders on sys.path, as python itself does for a script it runs.

    Other tests load handlers that are called `model` or `handler` too, so
    nothing of ours stays importable.
    """
    folders = [str(CHECKOUT / folder) for folder in FOLDERS]
    sys.path.extend(folders)
    yield
    for folder in folders:
        sys.path.remove(folder)
    for name, module in list(sys.modules.items()):
        if any(str(getattr(module, "__file__", None)).startswith(f"{f}/") for f in folders):
            del sys.modules[name]


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network, trained and packed once for all tests of all processes of a run."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "digits"
    with folder.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "model-store" / "digits.mar").exists():
            subprocess.run(
                [sys.executable, str(CHECKOUT / "examples" / "digits" / "pack.py"), str(folder)],
                check=True,
                timeout=100,
            )
    return folder
