"""Workers whose supervisor has died: who they are, and which of them have come back.

The ledger says who lives; a worker that comes back proves that it is one of
them by its token, its pid in the kernel's word, and the start of its process.
What it says may come before anybody wants it, or after.

Source: design section 4; issue "Nothing is lost", promise 4.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from math import isfinite

from stoker.errors import ProtocolError
from stoker.process_start import start_ticks
from stoker.supervisor.orphans import Orphan, Orphans
from stoker.supervisor.predecessor import Predecessor
from stoker.supervisor.sequences import KnownSequence
from stoker.supervisor.worker_port import speaks_for
from stoker.supervisor.worker_record import WorkerRecord, spec_hash
from stoker.wire.connections import Connection
from stoker.wire.frames import Reply, WorkerBack
from stoker.wire.sequence_labels import MAX_KNOWN, MAX_NAME_BYTES


@dataclass(slots=True)
class Returned:
    """One that has proved itself; what it answered lately it says a little later."""

    connection: Connection
    heavy: object
    replies: list[Reply] = field(default_factory=list)
    has_said_all: bool = False
    sequences: tuple[KnownSequence, ...] = ()


class Returning:
    """Those of one predecessor, until each of them is adopted or let go."""

    def __init__(self, before: Predecessor) -> None:
        self.living: dict[int, WorkerRecord] = {
            w.worker_id: w for w in before.workers if w.is_alive
        }
        self.returned: dict[int, Returned] = {}
        self.orphans = Orphans(
            spec_hash,
            [(w.spec, _orphan(w)) for w in self.living.values()],
            [
                *(w.spec for w in before.workers if w.worker_id not in self.living),
                *(spec for spec, _ in before.lately),
            ],
        )

    def greet(self, connection: Connection, back: WorkerBack) -> bool:
        """False for anybody else than who it claims to be."""
        record = self.living.get(back.worker_id)
        known = self.returned.get(back.worker_id)
        if (
            record is None
            or (known is not None and known.connection.is_open)
            or not speaks_for(record.pid, back, connection)
            or not record.is_proved_by(back.token)
            or start_ticks(record.pid) != record.start_ticks
        ):
            return False
        try:
            sequences = read_sequences(back.info.get("sequences"))
        except ProtocolError:
            return False
        self.returned[back.worker_id] = Returned(
            connection, back.info.get("heavy"), sequences=sequences
        )
        return True

    def hear_kept(self, worker_id: int, replies: list[Reply]) -> None:
        """What it has answered lately; now it has said everything.  Raises ProtocolError."""
        returned = self.returned.get(worker_id)
        if returned is None:
            raise ProtocolError("it has not come back")
        returned.replies, returned.has_said_all = replies, True

    def take(self, worker_id: int) -> Returned | None:
        """One that somebody has adopted, once it has said everything; it is ours from now on."""
        returned = self.returned.get(worker_id)
        if returned is None or not returned.has_said_all:
            return None
        self.forget(worker_id)
        return returned

    def lose(self, worker_id: int) -> bool:
        """Its connection is gone: did it come without having said everything, and will again?"""
        self.returned.pop(worker_id, None)
        return worker_id in self.living

    def take_unwanted(self, adopted: Container[int]) -> list[WorkerRecord]:
        """Those that nobody has adopted; nobody will any more."""
        self.orphans.forget()
        unwanted = [w for w in self.living.values() if w.worker_id not in adopted]
        for record in unwanted:
            self.forget(record.worker_id)
        return unwanted

    def forget(self, worker_id: int) -> None:
        self.living.pop(worker_id, None)
        self.returned.pop(worker_id, None)


def _orphan(w: WorkerRecord) -> Orphan:
    return Orphan(w.worker_id, w.slot, w.pid, w.devices, w.has_loaded, w.alone_since)


def read_sequences(rows: object) -> tuple[KnownSequence, ...]:
    """What a worker says of the sequences that live in it.

    Raises:
        ProtocolError: It says something else, or far too much.
    """
    if rows is None:
        return ()
    if type(rows) is not list or len(rows) > MAX_KNOWN:
        raise ProtocolError("sequences that cannot be")
    known = []
    for row in rows:
        if type(row) is not list or [type(field) for field in row] != [str, float, float]:
            raise ProtocolError("a sequence has a wrong field")
        if len(row[0].encode()) > MAX_NAME_BYTES or not all(map(isfinite, row[1:])):
            raise ProtocolError("a sequence has a wrong field")
        known.append(KnownSequence(*row))
    return tuple(known)
