"""The workflow example, end to end: two notations, one answer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]

TIMEOUT_S = 180


def test_both_notations_are_as_right_as_the_bare_pipeline(
    checkout: Path, tmp_path: Path, digits_folder: Path
) -> None:
    """
    Queues, batches, and functions in other processes must not change one answer.
    """
    # The first network is the one of the other example; the second is trained here.
    shutil.copytree(digits_folder, tmp_path / "digits" / "first")
    before = {process.pid for process in psutil.Process().children(recursive=True)}

    finished = subprocess.run(
        [
            sys.executable,
            str(checkout / "examples" / "digits_workflow" / "run.py"),
            *("--folder", str(tmp_path / "digits")),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = re.findall(r"^(\w+) +(\d+) of 360 right", finished.stdout, re.MULTILINE)
    assert [name for name, _ in found] == ["bare", "torchserve", "djl"]
    (count,) = {int(count) for _, count in found}
    assert count >= 340
    after = {process.pid for process in psutil.Process().children(recursive=True)}
    assert after <= before
