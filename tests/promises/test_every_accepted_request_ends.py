"""Every accepted request ends with an answer or a typed error in time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SOAK = Path(__file__).parents[1] / "soak" / "run.py"
SECONDS = int(os.environ.get("SOAK_SECONDS", "60"))


@pytest.mark.timeout(SECONDS + 180)
def test_under_random_faults_nothing_is_lost_and_nobody_gets_anothers_answer():
    """
    Processes of every kind are killed, stopped and aborted every two seconds
    while five models are asked by sixteen clients.
    """
    ran = subprocess.run(
        [sys.executable, str(SOAK), "--seconds", str(SECONDS), "--seed", "20261122"],
        capture_output=True,
        check=False,
        text=True,
        timeout=SECONDS + 170,
    )

    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
