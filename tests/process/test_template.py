"""Workers forked from a template are as good as started ones, only sooner."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from process_titles import title_of

from stoker.strays import become_subreaper
from stoker.supervisor.template import Template

DEADLINE_S = 20.0


@pytest.fixture
def template() -> Iterator[Template]:
    become_subreaper()
    template = Template(sys.executable, (), dict(os.environ))
    template.start()
    deadline = time.monotonic() + DEADLINE_S
    while not template.is_ready:
        assert time.monotonic() < deadline, "the template never became ready"
        select.select([], [], [], 0.01)
    yield template
    template.stop()
    become_subreaper(False)


def spawn(template: Template, env: dict[str, str], cwd: Path) -> tuple[int, int]:
    """A worker without a token: it complains on stderr and exits with USAGE."""
    read, write = os.pipe()
    argv = ["--worker-id", "1", "--address", "unix:/nowhere", "--label", "9000 m:1.0"]
    pid = template.spawn(argv, env, str(cwd), (write, write))
    os.close(write)
    assert pid is not None
    return pid, read


def test_a_forked_worker_is_our_child_and_speaks_through_our_pipes(
    template: Template, tmp_path: Path
) -> None:
    """
    Whoever decides over a process must be able to reap it and to read its last words.
    """
    pid, read = spawn(template, {"PATH": "/bin"}, tmp_path)

    _, status = os.waitpid(pid, 0)

    with os.fdopen(read) as words:
        assert "started by the supervisor, not by hand" in words.read()
    assert os.waitstatus_to_exitcode(status) == 64


def test_a_forked_worker_survives_its_template(template: Template, tmp_path: Path) -> None:
    """
    A template is never needed, only faster: its death costs no worker.
    """
    reader, writer = os.pipe()
    env = {
        "STOKER_WORKER_TOKEN": "00" * 16,
        "STOKER_PARENT_PID": str(os.getpid()),
        "ONLY": "this",
    }
    argv = ["--worker-id", "1", "--address", f"unix:{tmp_path}/s", "--label", "9000 m:1.0"]
    pid = template.spawn(argv, env, str(tmp_path), (writer, writer))
    os.close(writer)
    assert pid is not None

    template.stop()

    worker = psutil.Process(pid)
    assert worker.is_running()
    assert os.getpid() == worker.ppid()
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)


def test_a_dead_template_refuses_and_can_be_started_again(
    template: Template, tmp_path: Path
) -> None:
    """
    The launcher then starts an interpreter of its own; nothing waits.
    """
    [child] = [
        process
        for process in psutil.Process().children()
        if "stoker: template" in title_of(process)
    ]
    child.kill()
    child.wait(DEADLINE_S)

    read, write = os.pipe()
    started = time.monotonic()
    pid = template.spawn(["--worker-id", "1"], {}, str(tmp_path), (write, write))

    os.close(read)
    os.close(write)
    assert pid is None
    assert time.monotonic() - started < 1.0
    assert not template.is_ready
