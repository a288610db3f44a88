"""What a supervisor leaves behind for the one that comes after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.process_start import start_ticks
from stoker.supervisor import worker_ledger
from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.predecessor import LATELY_S, Predecessor, read_ledger
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.worker_ledger import FILE, WorkerLedger
from stoker.supervisor.worker_record import WorkerRecord, spec_hash, token_hash

TOKEN = b"0123456789abcdef"


def worker(worker_id: int, pid: int | None = None, slot: int | None = None) -> WorkerRecord:
    """One that lives as long as this test does, unless another pid is named."""
    pid = os.getpid() if pid is None else pid
    return WorkerRecord(
        worker_id=worker_id,
        slot=9000 + worker_id if slot is None else slot,
        pid=pid,
        start_ticks=start_ticks(pid) or 0,
        token=token_hash(TOKEN),
        model="m",
        version="1.0",
        spec="s",
        devices=("GPU-1",),
    )


def test_a_successor_finds_the_workers_that_were_not_seen_to_end(tmp_path: Path) -> None:
    """
    Written as it happens: a supervisor that is killed says nothing any more.
    """
    ledger = WorkerLedger(tmp_path, "one")
    for worker_id in (1, 2, 3):
        ledger.started(worker(worker_id))
    ledger.ended(2)
    ledger.ended(99)

    found = WorkerLedger(tmp_path, "two").take_over()

    assert found == Predecessor("one", 3, 9003, (worker(1), worker(3)), found.lately)


def test_it_says_who_has_loaded_and_since_when_somebody_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What never loaded was never given a job; who is missed is not waited for anew
    by every successor.
    """
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first = WorkerLedger(tmp_path, "one")
    first.started(worker(1))
    first.started(worker(2))
    first.loaded(1)
    first.loaded(99)

    second = WorkerLedger(tmp_path, "two")
    before = second.take_over()
    now = 107.0
    second.loaded(2)
    third = WorkerLedger(tmp_path, "three").take_over()

    assert [(w.has_loaded, w.alone_since) for w in before.workers] == [(True, None), (False, None)]
    assert [(w.has_loaded, w.alone_since) for w in third.workers] == [(True, 100.0), (True, None)]


def test_who_ended_lately_is_remembered_over_two_supervisors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What a worker had begun may be sent again to the supervisor after the next;
    not every handler must get it twice.  After a while nobody asks any more.
    """
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first = WorkerLedger(tmp_path, "one")
    first.started(worker(1))
    first.ended(1)
    first.started(replace(worker(2, pid=1 << 22), spec="t", start_ticks=1))

    WorkerLedger(tmp_path, "two").take_over()
    third = WorkerLedger(tmp_path, "three").take_over()
    now += LATELY_S + 1
    fourth = WorkerLedger(tmp_path, "four").take_over()

    assert (dict(third.lately).keys(), third.workers) == ({"s", "t"}, ())
    assert fourth.lately == ()


def test_numbers_go_on_where_they_were_also_when_no_worker_is_left(tmp_path: Path) -> None:
    """
    None is ever used twice: clients and logs tell workers apart by them.
    """
    first = WorkerLedger(tmp_path, "one")
    first.started(worker(7, slot=9011))
    first.ended(7)
    second = WorkerLedger(tmp_path, "two")
    second.take_over()
    second.started(worker(1, slot=9000))

    found = read_ledger(tmp_path / FILE)

    assert (found.life, found.worker_id, found.slot) == ("two", 7, 9011)


def test_a_process_proves_itself_by_start_and_by_token(tmp_path: Path) -> None:
    """
    A pid comes round again, and anybody can say a number.
    """
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = worker(1, process.pid)
    was_alive = known.is_alive

    process.kill()
    process.wait()

    assert was_alive
    assert not known.is_alive
    assert not replace(worker(1), start_ticks=1).is_alive
    assert known.is_proved_by(TOKEN)
    assert not known.is_proved_by(b"")
    ledger = WorkerLedger(tmp_path, "one")
    ledger.started(known)
    assert TOKEN not in (tmp_path / FILE).read_bytes()


def test_a_line_that_was_cut_off_costs_that_worker_alone(tmp_path: Path) -> None:
    """
    SIGKILL may come while the line is written.
    """
    ledger = WorkerLedger(tmp_path, "one")
    ledger.started(worker(1))
    ledger.started(worker(2))
    path = tmp_path / FILE
    whole = path.read_bytes()

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = read_ledger(path)

        assert set(found.workers) <= {worker(1), worker(2)}
        lines = whole[:length].count(b"\n")
        assert len(found.workers) >= lines - 1


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"{}\n", b"[1]\n", b'{"life": 1}\n', b"\xff" * 50, b'{"started": {}}\n'],
)
def test_what_is_no_ledger_says_nothing(tmp_path: Path, content: bytes) -> None:
    """
    The folder is ours alone; a half-broken file system is not.
    """
    path = tmp_path / FILE
    path.write_bytes(content)

    assert read_ledger(path) == Predecessor()
    assert read_ledger(tmp_path / "nothing") == Predecessor()


def test_another_boot_leaves_nothing_to_adopt(tmp_path: Path) -> None:
    """
    A runtime directory in /tmp may outlive the host's processes.
    """
    ledger = WorkerLedger(tmp_path, "one")
    ledger.started(worker(1))
    path = tmp_path / FILE
    first, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps({**json.loads(first), "boot_id": "another"}) + "\n" + rest)

    assert read_ledger(path) == Predecessor()


def test_the_ledger_does_not_grow_with_every_worker_there_ever_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A crash loop writes two lines per crash.
    """
    monkeypatch.setattr(worker_ledger, "MAX_DEAD_LINES", 10)
    ledger = WorkerLedger(tmp_path, "one")
    ledger.started(worker(1))

    for worker_id in range(2, 200):
        ledger.started(worker(worker_id))
        ledger.ended(worker_id)

    assert (tmp_path / FILE).read_bytes().count(b"\n") < 15
    found = read_ledger(tmp_path / FILE)
    assert found == Predecessor("one", 199, 9199, (worker(1),), found.lately)


def test_an_orderly_end_leaves_nothing(tmp_path: Path) -> None:
    """
    There is nobody left to adopt.
    """
    ledger = WorkerLedger(tmp_path, "one")
    ledger.started(worker(1))

    ledger.close()

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_once_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Without the ledger a worker cannot be adopted later; it works all the same.
    """
    said = []

    class Log:
        def warning(self, event: str, **facts: object) -> None:
            said.append(facts)

    monkeypatch.setattr(worker_ledger, "log", Log())
    ledger = WorkerLedger(tmp_path / "gone", "one")

    ledger.started(worker(1))
    ledger.ended(1)
    ledger.started(worker(2))

    assert said == [{"reason": "No such file or directory"}]


def test_the_hash_of_a_specification_says_whether_a_worker_must_load_anew() -> None:
    """
    A longer queue is no reason to load a model again; another file is.
    """
    spec = VersionSpec("m", "1.0", loading={"handler": "h", "model_dir": "/cache/1"})
    same = replace(spec, queue_capacity=7, response_timeout_s=3, shown={"url": "x"})
    others = [
        replace(spec, loading={"handler": "h", "model_dir": "/cache/2"}),
        replace(spec, batch=BatchPolicy(8, 0.1)),
        replace(spec, version="2.0"),
        replace(spec, device_type="gpu"),
    ]

    assert spec_hash(same) == spec_hash(spec)
    assert len({spec_hash(each) for each in [spec, *others]}) == 5


def test_a_killed_writer_leaves_a_ledger_that_can_be_read(tmp_path: Path) -> None:
    """
    With a real process and SIGKILL in the middle of its writing.
    """
    script = (
        "import sys, pathlib\n"
        "from stoker.supervisor.worker_ledger import WorkerLedger\n"
        "from stoker.supervisor.worker_record import WorkerRecord\n"
        "ledger = WorkerLedger(pathlib.Path(sys.argv[1]), 'one')\n"
        "record = lambda n: WorkerRecord(n, 9000 + n, 1, 1, 't', 'm', '1.0', 's')\n"
        "for n in range(1, 10**9):\n"
        "    ledger.started(record(n))\n"
        "    if n > 3: ledger.ended(n - 3)\n"
        "    if n == 50: print('going', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"

    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    found = read_ledger(tmp_path / FILE)
    assert found.life == "one"
    assert found.worker_id >= 50
    assert 3 <= len(found.workers) <= 4
    assert {record.worker_id for record in found.workers} <= set(
        range(found.worker_id - 3, found.worker_id + 1)
    )
