"""Who is measured, and how often."""

from __future__ import annotations

import os
from types import SimpleNamespace

from stoker.supervisor.memory_room import MemoryRoom, Tenant
from stoker.supervisor.memory_watch import LOOK_S, MemoryWatch


class Autoscaled:
    tenant = Tenant(0)


class Engine:
    def __init__(self, *workers):
        self.workers = list(workers)
        self.measured = []
        self.memory = MemoryRoom()

    def measured_workers(self):
        return self.workers

    def worker_measured(self, worker_id, memory_bytes, now):
        self.measured.append((worker_id, memory_bytes > 1 << 20, now))


def test_workers_with_a_limit_are_measured_once_a_second():
    """
    The loop asks at every tick; a look has a cost.
    """
    engine = Engine(SimpleNamespace(worker_id=7, pid=os.getpid()))
    watch = MemoryWatch(engine)

    for now in (10.0, 10.0 + LOOK_S / 2, 10.0 + LOOK_S):
        watch.look(now)

    assert engine.measured == [(7, True, 10.0), (7, True, 10.0 + LOOK_S)]


def test_a_worker_that_is_gone_measures_nothing():
    engine = Engine(SimpleNamespace(worker_id=7, pid=2**22 + 1))

    MemoryWatch(engine).look(10.0)

    assert engine.measured == [(7, False, 10.0)]


def test_what_is_left_of_the_hosts_memory_is_told_where_workers_come_with_the_load():
    """
    Nobody else asks, and the look has a cost.
    """
    engine = Engine()

    MemoryWatch(engine).look(10.0)
    assert engine.memory.available_bytes is None

    engine.memory.add(Autoscaled())
    MemoryWatch(engine).look(10.0)
    assert engine.memory.available_bytes > 0
