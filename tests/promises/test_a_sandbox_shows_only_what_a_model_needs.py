"""Promise 11: `sandbox=bubblewrap` where it can be had, and an honest word where it cannot."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
import subprocess
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from facts import wait_until
from fates import pids, replace_supervisor
from live_server import HANDLERS, Server, has_ended
from refusals import refusal
from strangers import STRANGER, as_stranger, may_become_others, reachable

from stoker.archives.pack import Parts, pack

pytestmark = pytest.mark.slow

BUBBLEWRAP = ("--sandbox", "bubblewrap")


@functools.cache
def has_bubblewrap(*more: str) -> bool:
    """Can this machine have one?  Found out without a line of the product's."""
    program = shutil.which("bwrap")
    if program is None:
        return False
    line = [program, "--unshare-pid", "--unshare-ipc", "--ro-bind", "/", "/", "--proc", "/proc"]
    return any(
        subprocess.run([*line, *more, *own, "true"], capture_output=True, check=False).returncode
        == 0
        for own in ((), ("--unshare-user",))
    )


def packed(model: str, store: Path, **config: object) -> str:
    file = store / f"{model}.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
    return pack(Parts(model, f"{HANDLERS / 'fenced.py'}:handle", config_file=file), store).name


def register(server: Server, url: str) -> None:
    query = {"url": url, "initial_workers": 1, "synchronous": "true"}
    answer = server.manage("POST", "/models", **query)
    assert answer.status == 200, answer.text


def tell(server: Server, model: str, text: str):
    answer = server.predict(model, text)
    assert answer.status == 200, answer.text
    return answer.json


@pytest.fixture(scope="module")
def server_flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return BUBBLEWRAP


@pytest.fixture
def shut_in(request: pytest.FixtureRequest) -> Server:
    """The module's server, where one can be had; elsewhere it must not have started."""
    if not has_bubblewrap():
        said = refusal(*BUBBLEWRAP)
        assert said.startswith("sandbox=bubblewrap cannot be had here (")
        pytest.skip(f"no bubblewrap here, which the server says: {said}")
    found: Server = request.getfixturevalue("server")
    return found


@pytest.fixture
def own(shut_in, model, model_store) -> str:
    """A model of an archive."""
    register(shut_in, packed(model, model_store))
    return model


@pytest.fixture
def other(shut_in, own, model_store) -> str:
    """Another one, beside it."""
    register(shut_in, packed(f"{own}-other", model_store))
    return f"{own}-other"


def folder_of(server: Server, model: str) -> str:
    return str(tell(server, model, "who")["folder"])


def test_a_worker_sees_its_model_and_nothing_of_the_server(shut_in, own, other):
    """
    No other model, no key, no state, no configuration, no socket but its own.
    """
    home = shut_in.home
    (home / "key_file.json").write_text("secret")
    folder, others = folder_of(shut_in, own), folder_of(shut_in, other)
    hidden = [
        others,
        *(home / name for name in ("key_file.json", "state", "log", "server.log", "gates")),
        *(shut_in.runtime_dir / name for name in ("frontend.sock", "workers.ledger")),
        *(shut_in.runtime_dir / name for name in ("supervisor.lock", "addresses.json")),
        *(shut_in.cache_dir / "hashes.json", "/etc/shadow", "/root/.ssh", "/home"),
    ]

    seen = {str(path): tell(shut_in, own, f"see {path}") for path in hidden}

    assert seen == dict.fromkeys(map(str, hidden), "ENOENT")
    assert "fenced.py" in tell(shut_in, own, f"see {folder}")
    assert tell(shut_in, own, "see /etc/ssl/private") in ("ENOENT", [])
    assert len(tell(shut_in, own, f"see {shut_in.cache_dir / 'archives'}")) == 1
    assert tell(shut_in, own, f"see {shut_in.runtime_dir}") == ["workers"]
    assert tell(shut_in, own, f"see {shut_in.runtime_dir / 'workers'}") == ["worker.sock"]
    for name in ("frontend.sock", "answers.sock"):
        assert tell(shut_in, own, f"connect {shut_in.runtime_dir / name}") == "ENOENT"
    assert tell(shut_in, other, f"see {folder}") == "ENOENT"


def test_a_worker_writes_to_its_temporary_folder_alone(shut_in, own, other):
    """
    Which is nobody else's, and gone with it.
    """
    folder = folder_of(shut_in, own)

    written = {
        place: tell(shut_in, own, f"write {place}")
        for place in ("/tmp", "/dev/shm", folder, "/", "/usr/lib", "/etc", str(HANDLERS))
    }

    assert written == {
        **{"/tmp": 1, "/dev/shm": 1},
        **dict.fromkeys((folder, "/", "/usr/lib", "/etc", str(HANDLERS)), "EROFS"),
    }
    assert not Path("/tmp/written").exists()
    assert "written" not in tell(shut_in, other, "see /tmp")


def test_a_worker_is_alone_and_has_no_rights(shut_in, own):
    """
    The first process of a host of its own, with the bounds of `rlimits` as well.
    """
    found = tell(shut_in, own, "who")
    fence = tell(shut_in, own, "fence")
    (pid,) = pids(shut_in, own)

    assert (found["pid"], found["processes"], found["home"]) == (1, [1], "/tmp")
    assert found["capabilities"] == [0, 0, 0, 0]
    assert set(found["uids"]) == {os.geteuid()}
    assert (fence["no_new_privs"], fence["core"]) == ("1", 0)
    assert tell(shut_in, own, f"shoot {pid}") == "ESRCH"
    # Memory that runs out takes a worker before it takes the server.
    assert found["oom_score"] >= 300
    assert shut_in.describe(own)["sandbox"] == {"kind": "bubblewrap", "network": True}


def test_large_bodies_reach_it_through_shared_memory(shut_in, own):
    """
    The one folder there that it may read.
    """
    body = os.urandom(3 << 20)

    answer = shut_in.predict(own, body)

    assert answer.text == f"{len(body)} {zlib.crc32(body)}"
    (folder,) = tell(shut_in, own, "see /dev/shm")
    assert tell(shut_in, own, f"write /dev/shm/{folder}") == "EROFS"


def test_large_answers_leave_it_through_memory_that_it_lends(shut_in, own):
    """
    Without a folder that it may write to.
    """
    assert tell(shut_in, own, "repeat ab 1000000") == "ab" * 1_000_000

    assert tell(shut_in, own, "lent") == 1


@pytest.mark.parametrize(
    ("how", "exit"), [("segfault", "SIGSEGV"), ("exit", "exit 7"), ("abort", "SIGSEGV")]
)
def test_its_death_is_told_as_any_other(shut_in, own, how, exit):
    """
    The supervisor is its parent.  Its first process cannot be aborted, but it crashes in the try.
    """
    answer = shut_in.predict(own, f"crash {how}")

    assert answer.status == 500
    assert (answer.json["failure"]["exit"], answer.json["failure"]["attempts"]) == (exit, 2)
    assert tell(shut_in, own, "who")["pid"] == 1


def test_one_that_hangs_shows_where_and_is_killed(shut_in, model):
    """
    SIGABRT cannot end the first process of a namespace, but its stacks are in the log.
    """
    shut_in.register(model, "fenced:handle", response_timeout=1)
    (before,) = pids(shut_in, model)

    answer = shut_in.predict(model, "hang for ever")

    assert answer.status == 500
    wait_until(lambda: has_ended(before), "it is killed")
    log = shut_in.model_log(model)
    assert "Fatal Python error: Aborted" in log
    assert "in hang" in log
    wait_until(lambda: tell(shut_in, model, "who")["pid"] == 1, "there is another")


@pytest.mark.parametrize("how", ["executed", "forked"])
def test_nothing_that_it_started_outlives_it(shut_in, own, how):
    """
    Not for a moment, whatever session it is in.
    """
    (pid,) = pids(shut_in, own)
    tell(shut_in, own, f"escape {how}")
    inside = [process.pid for process in psutil.Process(pid).children(recursive=True)]

    os.kill(pid, signal.SIGKILL)

    assert len(inside) >= 1
    wait_until(lambda: all(map(has_ended, inside)), "they end with it")


def test_it_outlives_its_supervisor_and_is_adopted(start_server, model):
    """
    It finds the socket of the successor in the folder that it sees; twice, with its model loaded.
    """
    if not has_bubblewrap():
        pytest.skip("no bubblewrap here; test_a_worker_sees_its_model says what the server says")
    server = start_server(*BUBBLEWRAP)
    server.register(model, "fenced:handle")
    before = pids(server, model)
    assert tell(server, model, "write /tmp") == 1

    for _ in range(2):
        replace_supervisor(server)
        assert server.predict(model, "who").status == 200
        wait_until(lambda: pids(server, model) == before, "the worker is adopted")

    assert tell(server, model, "see /tmp/written") == "x"
    body = os.urandom(1 << 20)
    assert server.predict(model, body).text == f"{len(body)} {zlib.crc32(body)}"
    tell(server, model, "say still here")
    wait_until(lambda: "still here" in server.model_log(model), "its output is read on")
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: pids(server, model) not in ([], before), "it is replaced")
    assert tell(server, model, "who")["pid"] == 1


def test_an_ordinary_users_server_has_sandboxes_too(start_server, model):
    """
    Where user namespaces are to be had; adoption included.
    """
    if not may_become_others() or reachable() is None:
        pytest.skip("these tests are an ordinary user's themselves")
    prefix, owner = (*reachable(), *as_stranger()), pwd.getpwnam(STRANGER).pw_uid
    line = ["bwrap", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    if not shutil.which("bwrap") or subprocess.run([*prefix, *line], check=False).returncode:
        pytest.skip("an ordinary user has none here; what root is told is told him, too")
    flags = (*BUBBLEWRAP, "--model-store", "/usr/share")
    server = start_server(*flags, prefix=prefix, owner=owner)
    server.register(model, "fenced:handle")
    before = pids(server, model)

    replace_supervisor(server)
    found = tell(server, model, "who")

    assert (found["pid"], found["uids"], found["capabilities"]) == (1, [owner] * 3, [0] * 4)
    # Its models lie in what every sandbox shows.
    assert tell(server, model, "see /usr/share") == []
    assert pids(server, model) == before
    tell(server, model, "say still here")
    wait_until(lambda: "still here" in server.model_log(model), "its output is read on")


def test_without_a_network_there_is_none(start_server, model):
    """
    Neither the server's own ports nor anybody else's.
    """
    if not has_bubblewrap("--unshare-net"):
        assert "cannot be had here" in refusal(*BUBBLEWRAP, "--sandbox-network", "false")
        return
    server = start_server(*BUBBLEWRAP, "--sandbox-network", "false")
    server.register(model, "fenced:handle")
    port = urlsplit(server.addresses["management"]).port

    assert tell(server, model, f"reach 127.0.0.1 {port}") == "ECONNREFUSED"
    assert tell(server, model, "reach 192.0.2.1 80") == "ENETUNREACH"
    assert server.describe(model)["sandbox"] == {"kind": "bubblewrap", "network": False}


def test_an_archive_may_ask_for_more_and_never_for_less(start_server, tmp_path, model):
    """
    By the server's word or the archive's; `sandbox: off` takes nothing away.
    """
    more = packed(model, tmp_path, sandbox="bubblewrap", sandbox_network="false")
    less = packed(f"{model}-less", tmp_path, sandbox="off", sandbox_network="true")
    plain = start_server("--model-store", str(tmp_path))
    query = {"url": more, "initial_workers": 1, "synchronous": "true"}
    if not has_bubblewrap("--unshare-net"):
        answer = plain.manage("POST", "/models", **query)
        assert (answer.status, answer.json["type"]) == (400, "InvalidModelException")
        assert "sandbox=bubblewrap cannot be had here" in answer.json["message"]
        assert "sandbox=bubblewrap cannot be had here" in refusal(*BUBBLEWRAP)
        return
    strict = start_server("--model-store", str(tmp_path), *BUBBLEWRAP, "--sandbox-network", "false")

    for server in (plain, strict):
        register(server, more)
        register(server, less)

    shut = {"kind": "bubblewrap", "network": False}
    assert plain.describe(model)["sandbox"] == shut
    assert "sandbox" not in plain.describe(f"{model}-less")
    assert strict.describe(model)["sandbox"] == strict.describe(f"{model}-less")["sandbox"] == shut


BROKEN = """#!/bin/sh
echo 'bwrap: No permissions to create a new namespace' >&2
exit 1
"""


@pytest.fixture(params=["not installed", "not allowed"])
def without(request, tmp_path) -> tuple[dict[str, str], str]:
    """An environment in which there is no bubblewrap, and what the server must say of it."""
    if request.param == "not installed":
        return {"PATH": str(tmp_path)}, "bwrap is not installed"
    program = tmp_path / "bwrap"
    program.write_text(BROKEN)
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, "bwrap: No permissions to create"


def test_without_bubblewrap_and_without_a_user_there_is_no_start(without):
    """
    Going on with less than was asked for would not be noticed.
    """
    env, why = without

    said = refusal(*BUBBLEWRAP, **env)

    assert said.startswith(f"sandbox=bubblewrap cannot be had here ({why}")
    assert "without worker_user there is no user to run workers as instead" in said


def test_without_bubblewrap_an_archive_that_asks_for_it_is_refused(
    without, start_server, tmp_path, model
):
    """
    When it is registered, with the reason; the server goes on.
    """
    env, why = without
    server = start_server("--model-store", str(tmp_path), **env)
    url = packed(model, tmp_path, sandbox="bubblewrap")

    answer = server.manage("POST", "/models", url=url, initial_workers=1, synchronous="true")

    assert (answer.status, answer.json["type"]) == (400, "InvalidModelException")
    assert why in answer.json["message"]
    assert server.manage("GET", f"/models/{model}").status == 404


def test_a_model_that_is_restored_without_its_sandbox_is_failed_and_not_served(
    start_server, tmp_path, model
):
    """
    What was fenced yesterday does not run without a fence today; the reason is there to read.
    """
    if not has_bubblewrap():
        pytest.skip("nothing can be registered that asks for one, which another test shows")
    server = start_server("--model-store", str(tmp_path))
    register(server, packed(model, tmp_path, sandbox="bubblewrap"))

    server.start_anew(PATH=str(tmp_path))
    found = server.describe(model)

    assert (found["status"], found["workers"]) == ("Failed", [])
    assert "bwrap is not installed" in found["failure"]["message"]
    assert server.predict(model, "who").status == 503
    server.expect_error("model cannot be loaded")


def test_without_bubblewrap_workers_are_fenced_as_another_user(without, start_server, model):
    """
    rlimits, no new privileges and a separate user, as the log and describe say.
    """
    env, why = without
    flags = (*BUBBLEWRAP, "--worker-user", STRANGER)
    if not may_become_others() or reachable() is None:
        assert f"worker_user {STRANGER}" in refusal(*flags, **env)
        return
    server = start_server(*flags, prefix=reachable(), mode=0o711, **env)
    server.register(model, "fenced:handle")

    sandbox = server.describe(model)["sandbox"]
    found, fence = tell(server, model, "who"), tell(server, model, "fence")

    assert why in sandbox.pop("noBubblewrap")
    assert sandbox == {"kind": "rlimits", "network": True, "user": STRANGER}
    assert 0 not in found["uids"]
    assert found["capabilities"] == [0, 0, 0, 0]
    assert (fence["no_new_privs"], fence["core"], fence["files"] <= 4096) == ("1", 0, True)
    (line,) = server.logged("no bubblewrap here; workers are fenced by other means")
    assert line["kind"] == "rlimits"


def test_without_bubblewrap_nothing_takes_the_network_away(without):
    """
    So who wants that gets no server that only seems to do it.
    """
    env, why = without
    flags = (*BUBBLEWRAP, "--worker-user", STRANGER, "--sandbox-network", "false")
    if not may_become_others() or reachable() is None:
        assert f"worker_user {STRANGER}" in refusal(*flags, **env)
        return

    said = refusal(*flags, **env)

    assert why in said
    assert "nothing else takes the network away" in said
