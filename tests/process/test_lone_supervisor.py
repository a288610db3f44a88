"""The supervisor's process: one to a directory, and its end."""

from __future__ import annotations

import os

import pytest
from facts import DEADLINE_S
from lone_supervisor import LoneSupervisor

from stoker.exit_codes import ExitCode

pytestmark = pytest.mark.slow


def test_second_supervisor_in_the_same_directory_says_so_and_ends(
    supervisor: LoneSupervisor,
) -> None:
    """
    It would steal the sockets silently; the first goes on serving.
    """
    second = supervisor.spawn()

    assert second.wait(DEADLINE_S) == ExitCode.ALREADY_RUNNING
    (line,) = supervisor.logged("cannot start")
    assert "Another supervisor is running" in line["reason"]
    assert supervisor.frontend().call("health").code is None


def test_stop_ends_workers_refuses_calls_and_removes_its_sockets() -> None:
    """
    An orderly stop is exit code 0 and leaves only the lock.
    """
    supervisor = LoneSupervisor()
    try:
        frontend = supervisor.frontend()
        pid = supervisor.register(frontend)

        assert supervisor.stop() == ExitCode.OK

        assert [path.name for path in supervisor.runtime_dir.iterdir()] == ["supervisor.lock"]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    finally:
        supervisor.destroy()
