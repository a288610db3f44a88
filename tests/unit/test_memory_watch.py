"""Who is measured, and how often."""

from __future__ import annotations

import os
from types import SimpleNamespace

from stoker.supervisor.memory_watch import LOOK_S, MemoryWatch


class Engine:
    def __init__(self, *workers):
        self.workers = list(workers)
        self.measured = []

    is_autoscaling = False

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
    told = []
    engine.memory_available = told.append

    MemoryWatch(engine).look(10.0)
    engine.is_autoscaling = True
    MemoryWatch(engine).look(10.0)

    assert len(told) == 1
    assert told[0] > 0
