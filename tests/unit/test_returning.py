"""Which of those who claim to be a dead supervisor's workers are believed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.errors import ProtocolError
from stoker.process_start import start_ticks
from stoker.supervisor.predecessor import Predecessor
from stoker.supervisor.returning import Returning
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.worker_record import WorkerRecord, spec_hash, token_hash
from stoker.wire.frames import PROTOCOL, Reply, WorkerBack

TOKEN = b"0123456789abcdef"
SPEC = VersionSpec(model="m", version="1.0")


@dataclass(eq=False)
class Connection:
    """As far as it matters here: who connected, and is it still there."""

    peer_pid: int | None
    is_open: bool = True


def record(worker_id: int = 7, **fields: object) -> WorkerRecord:
    """One that lives as long as this test does."""
    usual = {
        "worker_id": worker_id,
        "slot": 9000 + worker_id,
        "pid": os.getpid(),
        "start_ticks": start_ticks(os.getpid()),
        "token": token_hash(TOKEN),
        "model": "m",
        "version": "1.0",
        "spec": spec_hash(SPEC),
    }
    return WorkerRecord(**(usual | fields))


def returning(*workers: WorkerRecord) -> Returning:
    return Returning(Predecessor("life", 99, 9099, workers or (record(),)))


def back(**fields: object) -> WorkerBack:
    usual = {
        "protocol": PROTOCOL,
        "worker_id": 7,
        "token": TOKEN,
        "pid": os.getpid(),
        "info": {"heavy": ["torch"]},
    }
    return WorkerBack(**(usual | fields))


def ours() -> Connection:
    return Connection(os.getpid())


def test_who_proves_itself_is_known_by_its_connection():
    """
    Token, pid and the start of its process are what the ledger says.
    """
    those = returning()
    connection = ours()

    assert those.greet(connection, back())

    assert those.returned[7].connection is connection
    assert those.returned[7].heavy == ["torch"]
    assert those.take(7) is None


@pytest.mark.parametrize(
    "lie",
    [
        {"worker_id": 8},
        {"worker_id": -1},
        {"token": b""},
        {"token": TOKEN[:-1] + b"x"},
        # What the ledger holds is not what proves: who has read it knows no token.
        {"token": bytes.fromhex(token_hash(TOKEN))},
        {"token": token_hash(TOKEN).encode()},
        {"pid": os.getpid() + 1},
        {"pid": 0},
        {"protocol": PROTOCOL + 1},
    ],
)
def test_a_forged_word_is_not_believed(lie):
    """
    Whatever one of them says wrong; all the rest is right.
    """
    those = returning()

    assert not those.greet(ours(), back(**lie))

    assert those.returned == {}


def test_the_kernel_says_who_connected():
    """
    A process that has learnt another's token is still not that process.
    """
    those = returning()

    assert not those.greet(Connection(os.getppid()), back())
    assert those.returned == {}


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process


def test_a_number_that_came_round_again_is_somebody_else(process):
    """
    The pid lives, but it is another life.
    """
    living = record(pid=process.pid, start_ticks=start_ticks(process.pid))
    those = returning(living)
    others = returning()
    others.living[7] = replace(living, start_ticks=living.start_ticks - 1)
    claim = back(pid=process.pid)

    assert those.greet(Connection(process.pid), claim)
    assert not others.greet(Connection(process.pid), claim)


def test_one_that_has_died_since_cannot_be_spoken_for(process):
    """
    Its connection may still be in our queue.
    """
    those = returning(record(pid=process.pid, start_ticks=start_ticks(process.pid)))
    process.kill()
    process.wait()

    assert not those.greet(Connection(process.pid), back(pid=process.pid))


def test_nobody_can_be_two():
    """
    While the first is there; when its connection has broken it may come again.
    """
    those = returning()
    first, second = ours(), ours()
    assert those.greet(first, back())

    assert not those.greet(second, back())
    first.is_open = False
    assert those.greet(second, back())

    assert those.returned[7].connection is second


def test_who_was_let_go_does_not_come_back():
    """
    Adopted once, or not wanted any more.
    """
    those = returning()
    those.forget(7)

    assert not those.greet(ours(), back())
    assert (those.living, those.returned) == ({}, {})


def test_the_dead_leave_their_versions_word_that_something_may_be_lost():
    """
    Those that died with their supervisor, and those that had died shortly before.
    """
    other, third = replace(SPEC, model="n"), replace(SPEC, model="o")
    died = record(8, pid=1 << 22, start_ticks=1, spec=spec_hash(other))
    before = Predecessor("life", 9, 9, (record(), died), ((spec_hash(third), 1.0),))

    those = Returning(before)

    assert set(those.living) == {7}
    assert [those.orphans.has_dead(spec) for spec in (SPEC, other, third)] == [False, True, True]
    taken = those.orphans.take(SPEC)
    assert taken is not None
    assert (taken.worker_id, taken.pid) == (7, os.getpid())
    assert those.orphans.take(other) is None


wrong = st.fixed_dictionaries(
    {},
    optional={
        "worker_id": st.integers(-5, 100).filter(lambda number: number != 7),
        "token": st.binary(max_size=40).filter(lambda token: token != TOKEN),
        "pid": st.integers(-5, 1 << 23).filter(lambda pid: pid != os.getpid()),
        "protocol": st.integers(-5, 100).filter(lambda number: number != PROTOCOL),
    },
).filter(bool)


@given(wrong)
def test_no_mixture_of_right_and_wrong_is_believed(lies):
    """
    All of it must be right.
    """
    those = returning()

    assert not those.greet(ours(), back(**lies))
    assert those.greet(ours(), back())


def test_who_has_said_everything_is_taken_once():
    """
    From then on it is a worker like any other, and nobody waits for it any more.
    """
    those = returning()
    answered = Reply(3, True, [b"frontend" + bytes(8)], [])
    with pytest.raises(ProtocolError):
        those.hear_kept(7, [answered])
    assert those.greet(ours(), back())
    those.hear_kept(7, [answered])

    taken = those.take(7)

    assert taken is not None
    assert taken.replies == [answered]
    assert those.take(7) is None
    assert not those.lose(7)


def test_who_is_lost_half_way_is_still_missed():
    """
    It looks for us again by itself.
    """
    those = returning()
    assert those.greet(ours(), back())

    assert those.lose(7)

    assert those.returned == {}
    assert those.greet(ours(), back())


def test_whoever_nobody_has_adopted_is_named_and_forgotten():
    """
    Somebody has to end them.
    """
    those, others = returning(), returning()

    assert [record.worker_id for record in those.take_unwanted({})] == [7]
    assert others.take_unwanted({7: None}) == []

    assert those.living == {}
    assert set(others.living) == {7}
