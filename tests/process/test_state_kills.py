"""
Killed with SIGKILL at any point of register, scale, unregister or set-default,
a restart shows the state before the call or the one after it, never a third.

`make kill-points` tries ten thousand.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from state_server import StateServer

pytestmark = pytest.mark.slow

POINTS = int(os.environ.get("KILL_POINTS", "200"))
SEED = int(os.environ.get("KILL_SEED", "1"))


@pytest.mark.timeout(60 + POINTS)
def test_killed_at_a_seeded_point_it_shows_before_or_after(tmp_path: Path) -> None:
    """
    Points are lines of our code and instructions inside SQLite, of a call and of a restore.
    """
    ran = subprocess.run(
        [
            *(sys.executable, "-P", str(Path(__file__).with_name("kill_points.py"))),
            *(str(tmp_path), str(SEED), str(POINTS)),
        ],
        capture_output=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr.decode()[-3000:]
    counts = json.loads(ran.stdout)
    assert counts["killed"] == POINTS
    assert counts["killed before the answer"] > POINTS / 10, "most kills must hurt somebody"


def test_a_real_supervisor_killed_at_a_seeded_moment_shows_before_or_after() -> None:
    """
    The whole process with its sockets, threads and workers, killed by time.
    """
    seed = random.Random(SEED)
    server = StateServer()
    try:
        state: Any = server.shown()
        for turn in range(8):
            model = f"m{turn % 3}"
            is_known = model in state
            verb = seed.choice(["scale", "unregister"]) if is_known else "register"
            asked = {
                "register": {"handler": "says:handle", "initial_workers": 1, "synchronous": True},
                "scale": {"min_workers": 2, "max_workers": 2},
                "unregister": {},
            }[verb]
            asking = server.begin_asking(verb, model=model, **asked)
            time.sleep(seed.uniform(0, 0.06))
            server.kill()
            was_answered = asking.was_answered()
            server.start()
            before, state = state, server.shown()
            later = dict(before)
            if verb == "unregister":
                del later[model]
            else:
                count = 1 if verb == "register" else 2
                later[model] = {"default": "1.0", "versions": {"1.0": [count, count]}}
            assert state in ([later] if was_answered else [before, later])
    finally:
        server.destroy()
