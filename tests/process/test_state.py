"""What a supervisor restores, and what it says where two words disagree: the real process."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from facts import wait_until
from state_server import HANDLER, StateServer

from stoker.archives.pack import Parts, pack
from stoker.archives.snapshot import SnapshotEntry, write_snapshot
from stoker.errors import LoadFailed, ModelNotFound, StateNotWritten, StokerError
from stoker.exit_codes import ExitCode
from stoker.properties import write_properties
from stoker.supervisor.predecessor import read_ledger
from stoker.supervisor.worker_ledger import FILE

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[StateServer]:
    server = StateServer()
    yield server
    server.destroy()


@pytest.fixture
def stopped() -> Iterator[StateServer]:
    """Not started yet: the test says with which flags."""
    server = StateServer(starts=False)
    yield server
    server.destroy()


def put(server: StateServer, file: str, model: str, version: str = "1.0", text: str = "") -> None:
    """An archive in the model store; another text makes other content."""
    handler = server.home / "handlers" / "packed.py"
    handler.write_text(HANDLER + text)
    packed = pack(Parts(model, str(handler), version), server.home / "handlers")
    packed.rename(server.store / file)


def is_ready(server: StateServer, model: str) -> bool:
    workers = [worker for each in server.describe(model) for worker in each["workers"]]
    return bool(workers) and all(worker["state"] == "ready" for worker in workers)


# -- what comes back ---------------------------------------------------------------------


def test_everything_that_was_answered_is_there_after_sigkill(server: StateServer) -> None:
    """
    Models, versions, the default, worker counts and what the registrations stated.
    """
    put(server, "a.mar", "a")
    server.ask("register", url="a.mar", initial_workers=1, batch_size=4, max_batch_delay_s=0.25)
    server.register("a", version="2.0", response_timeout_s=33.0, startup_timeout_s=44.0)
    server.ask("scale", model="a", version="1.0", min_workers=2, max_workers=3)
    server.ask("set_default", model="a", version="2.0")
    server.register("gone")
    server.ask("unregister", model="gone")

    server.kill()
    (server.store / "a.mar").unlink()
    server.start()

    assert server.shown() == {
        "a": {"default": "2.0", "versions": {"1.0": [2, 3], "2.0": [0, 0]}},
    }
    first, second = server.describe("a")
    assert (first["url"], first["batch_size"], first["max_batch_delay_s"]) == ("a.mar", 4, 0.25)
    assert (second["response_timeout_s"], second["startup_timeout_s"]) == (33.0, 44.0)
    wait_until(lambda: len(server.describe("a")[0]["workers"]) == 2, "its workers are back")


def test_a_registration_that_fails_while_starting_workers_leaves_no_row(
    server: StateServer,
) -> None:
    """
    All or nothing: neither now nor after a restart.
    """
    (server.home / "handlers" / "broken").touch()
    with pytest.raises(LoadFailed):
        server.register("m", initial_workers=1, synchronous=True)
    with pytest.raises(ModelNotFound):
        server.describe("m")

    server.stop()

    assert not (server.home / "state" / "state.db").exists(), "nothing was ever registered"


def test_a_call_that_builds_on_a_starting_version_is_kept_and_taken_back_with_it(
    server: StateServer,
) -> None:
    """
    The set-default was answered, so it is durable; the version then failed, so both go.
    """
    server.register("m", version="1.0")
    os.mkfifo(server.home / "gate")
    (server.home / "handlers" / "waits.py").write_text(
        f"open({str(server.home / 'gate')!r}).read()\nraise ImportError('no')\n"
    )
    asking = server.begin_asking(
        "register",
        model="m",
        version="2.0",
        handler="waits:handle",
        initial_workers=1,
        synchronous=True,
    )
    gate = wait_until(lambda: _open(server.home / "gate"), "the worker loads")
    server.ask("set_default", model="m", version="2.0")

    os.close(gate)
    wait_until(lambda: len(server.describe("m")) == 1, "the registration is taken back")
    wait_until(
        lambda: server.shown() == {"m": {"default": "1.0", "versions": {"1.0": [0, 0]}}},
        "and with it the default",
    )
    assert not asking.was_answered()
    before = server.shown()
    server.kill()
    server.start()

    assert server.shown() == before


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_a_full_disk_fails_the_change_and_changes_nothing(server: StateServer) -> None:
    """
    A typed error, the same state, and work as before once there is room.
    """
    server.register("m", initial_workers=1, synchronous=True)
    process = psutil.Process(server.process.pid)
    log = server.home / "state" / "state.db-wal"
    # Whatever this process appends anywhere is refused from here on, but for its log.
    process.rlimit(psutil.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))
    before = server.shown()

    refused = []
    for verb, asked in [
        ("register", {"model": "n", "handler": "says:handle"}),
        ("scale", {"model": "m", "min_workers": 2, "max_workers": 2}),
        ("unregister", {"model": "m"}),
    ]:
        with pytest.raises(StateNotWritten) as caught:
            server.ask(verb, **asked)
        refused.append(caught.value.details["reason"])

    assert refused == ["disk I/O error"] * 3
    assert server.shown() == before
    process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    server.ask("scale", model="m", min_workers=2, max_workers=2)
    server.kill()
    server.start()
    assert server.shown() == {"m": {"default": "1.0", "versions": {"1.0": [2, 2]}}}


# -- archives that are gone --------------------------------------------------------------


def test_a_model_whose_archive_is_gone_is_failed_and_comes_back_by_a_scale_call(
    server: StateServer,
) -> None:
    """
    The others serve; and a person who puts the file back needs no restart.
    """
    put(server, "a.mar", "a")
    server.ask("register", url="a.mar", initial_workers=1)
    server.register("b", initial_workers=1)
    server.stop()
    aside = server.home / "a.mar"
    (server.store / "a.mar").rename(aside)
    for path in sorted((server.home / "cache").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    server.start()

    (a,) = server.describe("a")
    said = "Model archive file for model :a, version :1.0 not found in model store"
    assert (a["status"], a["failure"]["message"], a["min_workers"]) == ("Failed", said, 1)
    wait_until(lambda: is_ready(server, "b"), "b serves")
    with pytest.raises(StokerError, match=r"Model not found at: a\.mar"):
        server.ask("scale", model="a", min_workers=2, max_workers=2)
    aside.rename(server.store / "a.mar")
    server.ask("scale", model="a", min_workers=2, max_workers=2, synchronous=True)
    assert is_ready(server, "a")
    assert [each["model"] for each in server.ask("list", limit=9, offset=0)["models"]] == ["a", "b"]


class Origin:
    """A web server with one archive, which may be away."""

    def __init__(self, content: bytes) -> None:
        self.asked = 0
        self.is_away = False
        origin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                origin.asked += 1
                self.send_response(503 if origin.is_away else 200)
                self.end_headers()
                if not origin.is_away:
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/remote.mar"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_a_remote_archive_is_downloaded_again_only_if_the_cache_has_lost_it(
    stopped: StateServer,
) -> None:
    """
    A restart needs no network; and where it does, the others do not wait for it.
    """
    server = stopped
    put(server, "remote.mar", "remote")
    origin = Origin((server.store / "remote.mar").read_bytes())
    flags = ("--allowed-urls", r"http://127\.0\.0\.1:\d+/.*")
    try:
        server.start(*flags)
        server.ask("register", url=origin.url, initial_workers=1)
        origin.is_away = True
        server.stop()
        server.start(*flags)
        wait_until(lambda: is_ready(server, "remote"), "it serves from the cache")
        assert origin.asked == 1
        server.stop()
        shutil.rmtree(server.home / "cache")

        server.start(*flags)
        assert server.describe("remote")[0]["status"] == "Failed"
        wait_until(lambda: origin.asked >= 2, "it is asked for")
        origin.is_away = False
        wait_until(lambda: is_ready(server, "remote"), "it is back by itself")
    finally:
        origin.close()


# -- no place for state ------------------------------------------------------------------


def test_without_a_usable_state_dir_it_serves_and_says_what_that_means(
    stopped: StateServer,
) -> None:
    """
    As in a container with a read-only file system; a crash is repaired even so.
    """
    server = stopped
    (server.home / "state").rmdir()
    (server.home / "state").touch()
    server.start()

    assert server.logged("state is not kept: models registered by calls are gone after a stop")
    server.register("m", initial_workers=1, synchronous=True)
    server.kill()
    server.start()
    assert list(server.shown()) == ["m"]
    server.stop()
    assert [path.name for path in server.runtime_dir.iterdir()] == ["supervisor.lock"]
    server.start()
    assert server.shown() == {}


# -- the command line against stored state -----------------------------------------------


def test_load_models_and_calls_the_latest_word_wins(stopped: StateServer) -> None:
    """
    Every row of docs/operations.md, in one server's lives.
    """
    server = stopped
    put(server, "a.mar", "a")
    put(server, "b.mar", "b")
    load_a, load_b = ["--load-models", "a.mar"], ["--load-models", "b.mar"]

    # A scale call holds while the command line says the same as it did.
    server.start(*load_a, "--default-workers-per-model", "1")
    server.ask("scale", model="a", min_workers=2, max_workers=2)
    server.stop()
    server.start(*load_a, "--default-workers-per-model", "1")
    assert server.shown()["a"]["versions"] == {"1.0": [2, 2]}
    assert server.logged("worker counts were changed by a call; they stay")
    server.stop()

    # The command line says something else: it is the later word.
    server.start(*load_a, "--default-workers-per-model", "3")
    assert server.shown()["a"]["versions"] == {"1.0": [3, 3]}
    assert server.logged("worker counts of the configuration replace those of a call")
    server.ask("unregister", model="a")
    server.stop()

    # What a call unregistered stays away, and the command line is told.
    server.start(*load_a, "--default-workers-per-model", "0")
    assert server.shown() == {}
    assert server.logged("startup model was unregistered by a call; it stays away")
    server.stop()

    # Another command line: what came with the old one goes, what calls registered stays.
    server.start(*load_b, "--default-workers-per-model", "1")
    server.register("called")
    server.stop()
    server.start(*load_a, "--default-workers-per-model", "1")
    assert list(server.shown()) == ["a", "called"]
    assert server.logged("model came with load_models, which does not name it any more; it leaves")
    server.stop()

    # Starting clean.
    server.start("--restore-state", "clean")
    assert server.shown() == {}
    assert server.logged("stored state put aside")


def test_an_archive_that_was_replaced_is_taken_at_a_new_start_only(stopped: StateServer) -> None:
    """
    Operators deploy by replacing a file; a crash is no deployment.
    """
    server = stopped
    put(server, "a.mar", "a")
    server.start("--load-models", "a.mar", "--default-workers-per-model", "1")
    put(server, "a.mar", "a", "2.0", text="# another")

    server.kill()
    server.start("--load-models", "a.mar", "--default-workers-per-model", "1")
    assert list(server.shown()["a"]["versions"]) == ["1.0"], "the same server goes on"
    server.stop()

    server.start("--load-models", "a.mar", "--default-workers-per-model", "1")
    assert server.shown()["a"] == {"default": "2.0", "versions": {"2.0": [1, 1]}}
    (said,) = server.logged("archive of a startup model has changed; the new one is taken")
    assert (said["model"], said["becomes"]) == ("a", "2.0")


def test_a_new_item_replaces_what_a_call_had_registered_under_its_name(
    stopped: StateServer,
) -> None:
    """
    Somebody has just written the command line; its worker counts are still the call's.
    """
    server = stopped
    put(server, "old.mar", "a", text="# old")
    put(server, "new.mar", "a", text="# new")
    server.start()
    server.ask("register", url="old.mar", initial_workers=2, batch_size=4)
    server.register("a", version="2.0")
    server.ask("set_default", model="a", version="2.0")
    server.stop()

    server.start("--load-models", "new.mar")

    expected = {"a": {"default": "2.0", "versions": {"1.0": [2, 2], "2.0": [0, 0]}}}
    assert server.shown() == expected
    first = next(each for each in server.describe("a") if each["version"] == "1.0")
    assert (first["url"], first["batch_size"]) == ("new.mar", 1)
    (said,) = server.logged("stored model is replaced by the one that load_models names")
    assert (said["model"], said["url"]) == ("a", "new.mar")
    server.kill()
    server.start("--load-models", "new.mar")
    assert server.shown() == expected


def test_a_startup_archive_that_broke_is_served_from_the_cache(stopped: StateServer) -> None:
    """
    A half-copied file must not take a model away that worked yesterday.
    """
    server = stopped
    put(server, "a.mar", "a")
    flags = ("--load-models", "a.mar", "--default-workers-per-model", "1")
    server.start(*flags)
    server.stop()
    (server.store / "a.mar").write_bytes(b"half of it")

    server.start(*flags)

    wait_until(lambda: is_ready(server, "a"), "it serves")
    event = "archive of a startup model cannot be used any more; the cached copy is taken"
    (said,) = server.logged(event)
    assert said["reason"] == "Failed to save model: a.mar"


def test_a_stop_during_the_start_is_quiet(stopped: StateServer) -> None:
    """
    Told to stop while it restores, it stops; and the next start shows everything.
    """
    server = stopped
    server.start()
    for number in range(30):
        server.register(f"m{number}")
    server.kill()
    shown = [f"m{number}" for number in range(30)]

    server.begin_start()
    wait_until(lambda: server.logged("model registered"), "it restores")
    server.process.terminate()
    code = server.process.wait()

    assert code == 0
    assert server.complaints() == []
    server.start()
    assert sorted(server.shown()) == sorted(shown)


# -- snapshots ---------------------------------------------------------------------------


def test_a_snapshot_of_the_peer_is_restored_and_replaces_what_was_stored(
    stopped: StateServer,
) -> None:
    """
    Pointed at with the peer's own flag; what it replaces is kept aside and named.
    """
    server = stopped
    put(server, "a.mar", "from_the_archive")
    server.start()
    server.register("stored")
    server.stop()
    entry = SnapshotEntry("a", "7", "a.mar", True, 1, 2, batch_size=3, runtime="python")
    gone = SnapshotEntry("b", "1.0", "b.mar", True, 1, 1)
    file = server.home / "20240131120000123-snapshot.cfg"
    text = write_snapshot("x.cfg", 0, [entry, gone])
    file.write_text(
        write_properties([("model_snapshot", text), ("load_models", "all"), ("version", "0.12.0")])
    )

    server.start("--ts-config", str(file))

    assert server.shown() == {
        "a": {"default": "7", "versions": {"7": [1, 2]}},
        "b": {"default": "1.0", "versions": {"1.0": [1, 1]}},
    }
    assert server.describe("a")[0]["batch_size"] == 3
    assert server.describe("b")[0]["status"] == "Failed"
    (replaced,) = server.logged("stored model is replaced by model_snapshot")
    assert replaced["model"] == "stored"
    (aside,) = (server.home / "state").glob("aside-*")
    with closing(sqlite3.connect(aside / "state.db")) as copy:
        assert copy.execute("SELECT model FROM versions").fetchall() == [("stored",)]
    server.ask("unregister", model="b")
    server.stop()
    server.start("--ts-config", str(file))
    assert list(server.shown()) == ["a"], "once restored, later calls hold"


def test_snapshot_files_are_written_as_the_peer_does_and_start_the_same_server(
    stopped: StateServer,
) -> None:
    """
    After the start, after changes, at the stop; whichever is pointed at restores it.
    """
    server = stopped
    put(server, "a.mar", "a")
    folder = server.home / "log" / "config"
    server.start("--config-snapshots", "--job-queue-size", "7", "--keystore-pass", "hush")
    server.ask("register", url="a.mar", model="a", initial_workers=2, batch_size=5)
    server.register("bare")
    wait_until(lambda: list(folder.glob("*-snapshot.cfg")), "a change was written")
    asked = server.ask("snapshot", keep=True)
    server.stop()

    kinds = [path.stem.partition("-")[2] for path in sorted(folder.iterdir())]
    assert (kinds[0], kinds[-1]) == ("startup", "shutdown")
    assert set(kinds[1:-1]) == {"snapshot"}
    assert asked["left_out"] == ["bare 1.0"]
    last = max(folder.iterdir())
    assert last.stat().st_mode & 0o777 == 0o600
    assert "hush" not in last.read_text()
    assert last.read_text().count("job_queue_size=7") == 1
    assert "state_dir" not in last.read_text()

    server.start("--restore-state", "clean", "--config", str(last))

    assert server.shown() == {"a": {"default": "1.0", "versions": {"1.0": [2, 2]}}}
    (a,) = server.describe("a")
    assert (a["batch_size"], a["queue"]["capacity"]) == (5, 7)


def test_a_snapshot_from_an_impossible_place_is_a_bad_setting(tmp_path: Path) -> None:
    """
    No server can run there, so "none runs" would send somebody looking for one.
    """
    command = [sys.executable, "-P", "-m", "stoker.cli", "snapshot"]
    command += ["--runtime-dir", str(tmp_path / ("x" * 120))]

    said = subprocess.run(command, capture_output=True, text=True, check=False)

    assert said.returncode == ExitCode.CONFIG
    assert "runtime_dir is too long" in said.stderr


def test_the_command_prints_keeps_or_writes_a_snapshot(stopped: StateServer) -> None:
    """
    `stoker snapshot`, against a server that runs and one that does not.
    """
    server = stopped
    put(server, "a.mar", "a")
    server.start()
    server.ask("register", url="a.mar")
    server.register("bare")

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-P", "-m", "stoker.cli", "snapshot"),
                *("--runtime-dir", str(server.runtime_dir), *more),
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    kept, printed = run(), run("--output", "-")
    written = run("--output", str(server.home / "mine.cfg"))
    frontends = server.logged("frontend joined")
    server.stop()
    nobody = run("--output", "-")

    assert Path(kept.stdout.strip()).parent == server.home / "log" / "config"
    assert '"marName"\\: "a.mar"' in printed.stdout
    assert (server.home / "mine.cfg").read_text().count("a.mar") == 1
    assert written.stdout == ""
    assert kept.stderr == "left out, it has no archive: bare 1.0\n"
    assert frontends == []
    assert nobody.returncode == ExitCode.UNAVAILABLE
    assert nobody.stderr == "stoker: No server runs there.\n"


# -- who the workers are -----------------------------------------------------------------


def test_a_killed_supervisor_leaves_word_of_its_workers(server: StateServer) -> None:
    """
    What a successor needs to know them again; an orderly stop leaves nothing.
    """
    server.register("m", initial_workers=2, synchronous=True)
    (m,) = server.describe("m")
    server.kill()

    found = read_ledger(server.runtime_dir / FILE)

    assert {w.pid for w in found.workers} == {w["pid"] for w in m["workers"]}
    assert {w.slot for w in found.workers} == {w["id"] for w in m["workers"]} == {9000, 9001}
    assert {(w.model, w.version) for w in found.workers} == {("m", "1.0")}
    assert found.slot == 9001
    server.start()
    wait_until(lambda: is_ready(server, "m"), "it serves again")
    again = read_ledger(server.runtime_dir / FILE)
    assert again.life not in ("", found.life)
    assert all(worker.is_alive for worker in again.workers)
    server.stop()
    assert not (server.runtime_dir / FILE).exists()


def test_a_ledger_is_readable_by_its_owner_alone(server: StateServer) -> None:
    server.register("m", initial_workers=1, synchronous=True)

    for path in (server.runtime_dir / FILE, server.home / "state" / "state.db"):
        assert path.stat().st_mode & 0o077 == 0
    first = json.loads((server.runtime_dir / FILE).read_text().splitlines()[0])
    assert first["pid"] == server.process.pid
