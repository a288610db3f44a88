"""The time of day may jump by hours, forwards and back, while requests wait."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from facts import wait_until

pytestmark = pytest.mark.slow

# Every process of the server reads it as it starts.
JUMPING = """
import os, time

_true_time = time.time
_place = os.environ["JUMPS"]

def _jumped():
    try:
        return _true_time() + float(open(_place).read() or 0)
    except OSError:
        return _true_time()

time.time = _jumped
time.time_ns = lambda: int(_jumped() * 1e9)
"""


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
def test_waiting_requests_and_workers_outlive_a_jump_of_a_day(
    start_server, tmp_path: Path, monkeypatch, jump_s
):
    """
    Deadlines, back-off, watchdogs and silence are measured on a clock that
    nobody sets.
    """
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    jumps = tmp_path / "jumps"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = start_server("--request-deadline-s", "20", JUMPS=str(jumps))
    server.register("gated", "digest:handle")
    workers = [worker["pid"] for worker in server.workers("gated")]
    gate = server.gate("clock")
    waits = server.later(server.predict, "gated", b"patient", x_gate="clock")
    gate.wait_reached()
    queued = [server.later(server.predict, "gated", b"behind") for _ in range(5)]

    jumps.write_text(str(jump_s))
    # A few of the supervisor's sweeps see the new time before the handler goes on.
    for _ in range(3):
        assert server.ask("inference", "GET", "/ping").status == 200
        assert server.describe("gated")["status"] == "Healthy"
    gate.let_go()

    assert waits.answer().status == 200
    assert [each.answer().status for each in queued] == [200] * 5
    assert [worker["pid"] for worker in server.workers("gated")] == workers
    wait_until(server.is_answering, "it still answers")
    assert not server.logged("worker gone")
    server.register("later", "echo:handle")
    written = datetime.fromisoformat(server.log_lines()[-1]["timestamp"])
    assert abs((written - datetime.now(UTC)).total_seconds()) > 40_000, "nobody saw the jump"
