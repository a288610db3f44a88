"""Promise 11: with `worker_user` a handler is not the server, and cannot become it again."""

from __future__ import annotations

import os
import pwd
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from facts import wait_until
from fates import pids, replace_supervisor
from live_server import HANDLERS, Server
from refusals import refusal
from strangers import (
    STRANGER,
    as_stranger,
    may_become_others,
    may_look_at_others,
    reachable,
)

from stoker.archives.pack import Parts, pack

pytestmark = pytest.mark.slow

FLAGS = ("--worker-user", STRANGER)
CAP_SETUID, CAP_SYS_PTRACE = 7, 19


def without(capability: int) -> tuple[str, ...]:
    """Runs what follows without that right, whoever it is."""
    drop = f"ctypes.CDLL(None).prctl(24, {capability}, 0, 0, 0)"
    line = f"import ctypes, os, sys; {drop}; os.execv(sys.argv[1], sys.argv[1:])"
    return (sys.executable, "-c", line)


def tell(server: Server, model: str, text: str):
    answer = server.predict(model, text)
    assert answer.status == 200, answer.text
    return answer.json


def test_who_lacks_the_right_is_told_at_the_start():
    """
    And which right that is.
    """
    said = refusal(*FLAGS, prefix=without(CAP_SETUID) if os.geteuid() == 0 else ())

    assert said.startswith(f"worker_user {STRANGER} needs a server that runs as root or has ")
    assert "CAP_SETUID" in said


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-such-user", "is not a user of this host"),
        ("root", "must be another user than root and the server's own"),
        (pwd.getpwuid(os.geteuid()).pw_name, "must be another user than root and the server's own"),
    ],
)
def test_a_user_who_cannot_be_meant_is_refused_at_the_start(name, why):
    """
    Before any model is loaded as somebody else.
    """
    assert why in refusal("--worker-user", name)


@pytest.fixture(scope="module")
def stranger_of_module(_orphans_come_to_us) -> tuple[str, ...]:
    """How to start a server whose workers a stranger can be; else what the server says is seen."""
    if not may_become_others():
        assert f"worker_user {STRANGER} needs a server" in refusal(*FLAGS)
        pytest.skip("not root here, which the server refuses")
    prefix = reachable()
    if prefix is None:
        assert f"worker_user {STRANGER} cannot" in refusal(*FLAGS)
        pytest.skip("a stranger cannot run this interpreter, which the server refuses")
    return prefix


WAYS = {
    "forked": ("--worker-template", "true"),
    "executed": ("--worker-template", "false"),
    "loaded once": ("--preload-model", "true"),
}


@pytest.fixture(scope="module", params=WAYS)
def server(request, stranger_of_module, tmp_path_factory) -> Iterator[Server]:
    """Its workers are forked from a template, executed, or forked from one with their model."""
    store = tmp_path_factory.mktemp("strangers")
    server = Server(
        *FLAGS,
        *WAYS[request.param],
        model_store=store,
        prefix=stranger_of_module,
        mode=0o711,
    )
    try:
        server.wait_started()
        yield server
        server.stop()
    finally:
        server.destroy()


@pytest.fixture
def own(server, model) -> str:
    """A model of an archive, beside another one."""
    for name in (model, f"{model}-other"):
        url = pack(Parts(name, f"{HANDLERS / 'fenced.py'}:handle"), server.model_store).name
        answer = server.manage("POST", "/models", url=url, initial_workers=1, synchronous="true")
        assert answer.status == 200, answer.text
    return model


def test_a_worker_is_that_user_for_good(server, own):
    """
    In all its numbers, without a capability, and with no way back.
    """
    entry = pwd.getpwnam(STRANGER)

    found = tell(server, own, "who")

    assert found["uids"] == [entry.pw_uid] * 3
    assert found["gids"] == [entry.pw_gid] * 3
    assert found["groups"] == sorted(os.getgrouplist(STRANGER, entry.pw_gid))
    assert found["capabilities"] == [0, 0, 0, 0]
    assert tell(server, own, "regain") == ["EPERM", "EPERM"]
    assert tell(server, own, "fence")["no_new_privs"] == "1"
    sandbox = {"kind": "off", "network": True, "user": STRANGER}
    assert server.describe(own)["sandbox"] == sandbox


def test_it_reads_its_model_and_nothing_of_the_server(server, own):
    """
    Not the keys, the state, other sockets; other models' folders only by a name that it is not
    told.  Nor can it signal the server.
    """
    home, folder = server.home, tell(server, own, "who")["folder"]
    (home / "key_file.json").write_text("secret")
    (home / "key_file.json").chmod(0o600)
    closed = [
        *(home / "key_file.json", home / "state", home / "state" / "state.db", home / "log"),
        *(
            server.runtime_dir,
            server.runtime_dir / "workers.ledger",
            server.runtime_dir / "workers",
        ),
        *(server.cache_dir, server.cache_dir / "archives"),
        f"/proc/{server.supervisor.pid}/environ",
    ]

    seen = {str(path): tell(server, own, f"see {path}") for path in closed}

    assert seen == dict.fromkeys(map(str, closed), "EACCES")
    assert "fenced.py" in tell(server, own, f"see {folder}")
    assert tell(server, own, f"write {folder}") == "EACCES"
    for name in ("frontend.sock", "answers.sock"):
        assert tell(server, own, f"connect {server.runtime_dir / name}") == "EACCES"
    assert tell(server, own, f"shoot {server.supervisor.pid}") == "EPERM"
    # Where another model's folder is could be learnt from its worker alone.
    (other,) = pids(server, f"{own}-other")
    for secret in ("environ", "cwd", "maps", "fd"):
        assert tell(server, own, f"see /proc/{other}/{secret}") in ("EACCES", "EPERM", [])


def test_it_may_open_its_own_output(server, own):
    """
    It holds it open while there is no supervisor, or a print would kill it.
    """
    (pid,) = pids(server, own)
    ends = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]

    for fd in (1, 2):
        pipe = os.readlink(f"/proc/{pid}/fd/{fd}")
        assert pipe.startswith("pipe:")
        assert ends.count(pipe) >= 2


def test_large_bodies_reach_it_and_deaths_are_told(server, own):
    """
    Shared memory is the frontend's, and the end of a worker its supervisor's to see.
    """
    body = os.urandom(3 << 20)

    assert server.predict(own, body).text == f"{len(body)} {zlib.crc32(body)}"

    assert server.predict(own, "crash abort").json["failure"]["exit"] == "SIGABRT"
    assert server.predict(own, body).text == f"{len(body)} {zlib.crc32(body)}"


def test_large_answers_leave_it_through_memory_that_it_lends(server, own):
    """
    The frontend may read what another user lends, and give it back.
    """
    for _ in range(3):
        assert tell(server, own, "repeat ab 1000000") == "ab" * 1_000_000

    assert tell(server, own, "lent") == 1


def test_it_is_adopted_with_its_model_loaded(server, own):
    """
    It reaches the socket of the successor, which lets it in, and reads what it prints.
    """
    if not may_look_at_others():
        pytest.skip("not here; test_where_workers_cannot_be_adopted sees what happens then")
    before = pids(server, own)

    for _ in range(2):
        replace_supervisor(server)
        assert tell(server, own, "who")["pid"] == before[0]
        wait_until(lambda: pids(server, own) == before, "the worker is adopted")

    tell(server, own, "say still here")
    wait_until(lambda: "still here" in server.model_log(own), "its output is read on")
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: pids(server, own) not in ([], before), "it is replaced")
    assert tell(server, own, "who")["uids"][0] == pwd.getpwnam(STRANGER).pw_uid


def test_a_worker_that_has_nothing_to_lose_ends_with_its_supervisor(
    start_server, stranger_of_module, model
):
    """
    The kernel forgets that wish when a process becomes another user; it is made again.
    """
    flags = (*FLAGS, "--orphan-grace-s", "0")
    server = start_server(*flags, prefix=stranger_of_module, mode=0o711)
    server.register(model, "fenced:handle")
    (before,) = pids(server, model)

    replace_supervisor(server)

    wait_until(lambda: not Path(f"/proc/{before}").exists(), "it is gone")
    wait_until(lambda: server.predict(model, "who").status == 200, "there is another")


def test_a_server_with_just_the_rights_for_it_need_not_be_root(
    start_server, stranger_of_module, model
):
    """
    As under systemd; it adopts its workers too, and a worker has none of these rights.
    """
    if not may_look_at_others():
        pytest.skip("one of these rights is not ours to give")
    rights = ("chown", "kill", "setgid", "setuid", "sys_ptrace")
    stranger = pwd.getpwnam(STRANGER).pw_uid
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, stranger))
    server = start_server(
        *("--worker-user", other.pw_name, "--model-store", str(HANDLERS)),
        prefix=(*stranger_of_module, *as_stranger(*rights)),
        mode=0o711,
        owner=stranger,
    )
    server.register(model, "fenced:handle")
    before = pids(server, model)
    assert psutil.Process(server.process.pid).uids().real == stranger

    replace_supervisor(server)
    found = tell(server, model, "who")
    body = os.urandom(1 << 20)

    assert (found["pid"], found["uids"]) == (before[0], [other.pw_uid] * 3)
    assert found["capabilities"] == [0, 0, 0, 0]
    assert pids(server, model) == before
    assert server.predict(model, body).text == f"{len(body)} {zlib.crc32(body)}"
    tell(server, model, "say still here")
    wait_until(lambda: "still here" in server.model_log(model), "its output is read on")


def test_where_workers_cannot_be_adopted_they_load_anew_and_nobody_is_lost(
    start_server, stranger_of_module, model
):
    """
    Root of a usual container may not look at another user's process; the start says so.
    """
    prefix = (*stranger_of_module, *without(CAP_SYS_PTRACE))
    server = start_server(*FLAGS, prefix=prefix, mode=0o711)
    server.register(model, "fenced:handle")
    (before,) = pids(server, model)

    replace_supervisor(server)
    found = tell(server, model, "who")

    assert found["uids"][0] == pwd.getpwnam(STRANGER).pw_uid
    assert found["pid"] != before
    wait_until(lambda: not Path(f"/proc/{before}").exists(), "the one before is gone")
    lines = server.logged("workers load anew when the supervisor dies")
    assert {line["without"] for line in lines} == {"CAP_SYS_PTRACE"}
