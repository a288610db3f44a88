"""Workers that work on many requests at once: how they behave, and what must hold of them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sim_faults import POISONS, Handler
from sim_records import check
from sim_workers import SimWorker, groups_of

from stoker.supervisor import actions as a
from stoker.supervisor.concurrent_pools import (
    PATIENCE_S,
    ConcurrentPool,
    choose_empty,
    choose_roomiest,
)
from stoker.supervisor.served import Served
from stoker.supervisor.versions import VersionSpec
from stoker.wire.frames import Group, Reply

if TYPE_CHECKING:
    from sim_world import World

#: How often a step is the last one of a request, and how often it only shows life.
ENDS = 0.4
SILENT = 0.3


class SimManyWorker(SimWorker):
    """Steps a running batch: a piece, a sign of life or an end for each request."""

    def __init__(
        self, world: World, worker_id: int, slot: int, spec: VersionSpec, handler: Handler
    ) -> None:
        super().__init__(world, worker_id, slot, spec, handler)
        self._running: dict[int, bytes] = {}
        self._is_stepping = False

    def give(self, batch_id: int, job_ids: list[bytes]) -> None:
        (self._running[batch_id],) = job_ids
        self._step_on()

    def drop(self, job_ids: list[bytes]) -> None:
        self._dropped.update(set(self._running.values()).intersection(job_ids))
        if self._is_stuck and self._handler.heeds:
            self._later(self._rng.random() * 0.5, self._give_up)

    def _give_up(self) -> None:
        """The handler has seen that nobody wants anything of this step any more."""
        if self._is_stuck and self._dropped.issuperset(self._running.values()):
            self._is_stuck = False
            self._end_step(list(self._running))

    def _step_on(self) -> None:
        if self._is_stepping or self._is_stuck or not self._running:
            return
        self._is_stepping = True
        rng, world = self._rng, self._world
        step = list(self._running)
        service_s = self._handler.service_s(rng)
        if world.is_calm:
            service_s = min(service_s, self.spec.response_timeout_s / 2)
        if any(world.payloads[self._running[batch_id]] in POISONS for batch_id in step):
            self._later(service_s * rng.random(), self.die, "signal 11")
        elif self._happens("is_shot"):
            self._later(service_s * rng.random(), self.die, "shot")
        elif self._happens("dies_working"):
            self._later(service_s * rng.random(), self.die, "signal 11")
        elif self._happens("hangs_working"):
            self._is_stuck = True
        elif self._happens("lies"):
            self.lied = True
            self._send([Reply(step[0] + 1_000_000, True, [], [])])
        else:
            self._later(service_s, self._end_step, step)

    def _end_step(self, step: list[int]) -> None:
        self._is_stepping = False
        replies = []
        for batch_id in step:
            job_id = self._running[batch_id]
            dice = self._rng.random()
            if job_id in self._dropped:
                self._dropped.remove(job_id)
                replies.append(Reply(batch_id, True, [job_id], []))
            elif dice < ENDS:
                is_whole = not self._happens("leaves_some_unanswered")
                ended = [job_id] if is_whole else []
                replies.append(Reply(batch_id, True, ended, groups_of(ended)))
            else:
                piece = [Group(job_id[:8], b"")] if dice > ENDS + SILENT else []
                replies.append(Reply(batch_id, False, [], piece))
                self._world.counts["a piece among many" if piece else "a sign of life"] += 1
                continue
            del self._running[batch_id]
        self._send(replies)
        if self._is_dead:
            return
        if self._running:
            self._step_on()
        elif self._is_leaving:
            self._go()

    def leave(self) -> None:
        if self._happens("ignores_leave"):
            return
        if self._happens("dies_leaving"):
            self._later(self._rng.random() * 0.2, self.die, "signal 11")
        self._is_leaving = True
        if not self._running and not self._is_stuck:
            self._go()


def judge_give(world: World, spec: VersionSpec, action: a.SendBatch, held: int) -> None:
    """One job more in a hand."""
    check(len(action.jobs) == 1, "one job at a time", action)
    check(held < spec.jobs_at_once, "no more at once than there may be", held)
    worker = world.engine.worker(action.worker_id)
    assert worker is not None
    # Decided already: the worker's hand has it.
    check(not (action.jobs[0].is_loner and held), "who travels alone is alone", action)
    others = [run for run in worker.in_hand if run.batch_id != action.batch_id]
    has_loner = any(run.jobs[0].is_loner for run in others)
    check(not has_loner, "nobody joins who travels alone", action)
    if held:
        world.counts["many at once"] += 1


def look_at_dispatch(world: World, served: Served) -> None:
    """At the end of a turn nobody waits while there is room, but for a while behind a loner."""
    pool = served.pool
    assert isinstance(pool, ConcurrentPool)
    oldest = pool.queue.oldest()
    if oldest is None:
        return
    workers = pool.workers.values()
    check(choose_empty(workers) is None, "an empty worker gets the next job", served.spec.key)
    if oldest.is_loner or oldest.is_suspect:
        if pool.due_at is not None:
            check(pool.due_at <= world.now + PATIENCE_S, "nobody is held up for ever", pool.due_at)
            check(world.engine.next_due() <= pool.due_at, "and is let go in time", pool.due_at)
            return
        if oldest.is_loner and all(job.is_loner or job.is_suspect for job in pool.queue):
            return
    full = choose_roomiest(workers, served.spec.jobs_at_once) is None
    check(full, "room is used", served.spec.key)


def take_done(held: deque[tuple[int, list[bytes]]], reply: Reply) -> None:
    """Of what a worker holds, in any order."""
    for entry in held:
        if entry[0] == reply.batch_id:
            held.remove(entry)
            return
