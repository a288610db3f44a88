"""A model of one worker process: slow, mortal, sometimes lying."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sim_faults import GIB, POISONS, Handler
from sim_sequences import label_of

from stoker.supervisor.versions import Failure, VersionSpec
from stoker.wire.frames import FRONTEND_ID_BYTES, Group, Reply

if TYPE_CHECKING:
    from sim_world import World


class SimWorker:
    """Speaks when spoken to, works on one batch at a time, dies of signals and by itself."""

    def __init__(
        self, world: World, worker_id: int, slot: int, spec: VersionSpec, handler: Handler
    ) -> None:
        self.worker_id = worker_id
        self.slot = slot
        self.spec = spec
        self.lied = False
        self._world = world
        self._rng = world.rng
        self._handler = handler
        self._waiting: deque[tuple[int, list[bytes]]] = deque()
        self._current: tuple[int, list[bytes]] | None = None
        self._dropped: set[bytes] = set()
        self._unsent: list[Reply] = []
        self._is_leaving = False
        self._is_dead = False
        self._is_stuck = False
        self._has_sent_part = False
        self._begun: list[bytes] = []
        self.memory_bytes = GIB
        self.has_loaded = False

    def _happens(self, fault: str) -> bool:
        chance: float = getattr(self._world.faults, fault)
        return chance > 0 and self._rng.random() < chance

    def _later(self, delay_s: float, do: object, *args: object) -> None:
        """Do it then, unless the process is dead by then."""
        self._world.after(delay_s, self._if_alive, do, args)

    def _if_alive(self, do: object, args: tuple[object, ...]) -> None:
        if not self._is_dead:
            do(*args)  # type: ignore[operator]

    # -- starting ---------------------------------------------------------------

    def start(self) -> None:
        if self._happens("spawn_fails"):
            self._later(0.0, self.die, "could not be started")
        elif self._happens("dies_before_hello"):
            self._later(self._rng.random() * 0.2, self.die, "exit 1")
        elif not self._happens("never_says_hello"):
            self._later(self._rng.expovariate(50), self._world.hello, self)

    def load(self) -> None:
        rng, load_s = self._rng, self._handler.load_s
        is_broken = self._handler.cannot_load and not self._world.is_calm
        if self._handler.needs_room and not self._world.is_calm and self._has_company():
            self._later(load_s, self._fail_to_load, "MemoryError")
            return
        if is_broken or self._happens("fails_loading"):
            self._later(load_s, self._fail_to_load)
        elif self._happens("dies_loading"):
            self._later(load_s * rng.random(), self.die, "signal 11")
        elif not self._happens("hangs_loading"):
            self._later(load_s * rng.lognormvariate(0, 0.5), self._world.loaded, self)

    def _has_company(self) -> bool:
        return any(
            other.has_loaded and other.spec is self.spec for other in self._world.workers.values()
        )

    def _fail_to_load(self, line: str = "") -> None:
        line = line or self._rng.choice(("ImportError: x", "MemoryError", "ValueError: y"))
        self._world.load_failed(self, Failure("It cannot load.", line, line == "MemoryError"))
        if not self._happens("lingers_after_failed_load"):
            self._later(self._rng.random() * 0.1, self.die, "exit 4")

    # -- working ----------------------------------------------------------------

    def give(self, batch_id: int, job_ids: list[bytes]) -> None:
        self._waiting.append((batch_id, job_ids))
        if self._current is None and not self._is_stuck:
            self._begin()

    def drop(self, job_ids: list[bytes]) -> None:
        batches = [*self._waiting, *([self._current] if self._current else [])]
        held = {job_id for _, ids in batches for job_id in ids}
        self._dropped.update(held.intersection(job_ids))
        if self._current is not None and self._handler.heeds:
            self._later(self._rng.random() * 0.5, self._stop_short, self._current[0])

    def _stop_short(self, batch_id: int) -> None:
        """The handler has seen that nobody wants its answer any more."""
        if self._current is None or self._current[0] != batch_id:
            return
        if self._dropped.issuperset(self._current[1]):
            self._is_stuck = False
            self._finish()

    def _begin(self) -> None:
        self._current = self._waiting.popleft()
        self._begun = self._current[1][:]
        rng, world = self._rng, self._world
        service_s = self._handler.service_s(rng)
        if world.is_calm:
            service_s = min(service_s, self.spec.response_timeout_s / 2)
        if any(self._world.payloads[job_id] in POISONS for job_id in self._current[1]):
            self._later(service_s * rng.random(), self.die, "signal 11")
        elif self._happens("is_shot"):
            self._later(service_s * rng.random(), self.die, "shot")
        elif self._happens("dies_working"):
            self._later(service_s * rng.random(), self.die, "signal 11")
        elif self._happens("hangs_working"):
            self._is_stuck = True
        elif self._happens("lies"):
            self._later(service_s, self._lie)
        elif self._happens("overruns"):
            self._later(self.spec.response_timeout_s * (1 + rng.random()), self._finish)
        elif rng.random() < self._handler.streams:
            pieces = rng.randint(1, 4)
            for piece in range(1, pieces + 1):
                self._later(service_s * piece / (pieces + 1), self._send_piece, self._current[0])
            self._later(service_s, self._finish)
        else:
            self._later(service_s, self._finish)

    def _send_piece(self, batch_id: int) -> None:
        """An intermediate result; a job may end early."""
        if self._current is None or self._current[0] != batch_id:
            return
        self._has_sent_part = True
        job_ids = self._current[1]
        ended = [job_ids.pop()] if len(job_ids) > 1 and self._rng.random() < 0.5 else []
        self._send([Reply(batch_id, False, ended, groups_of(ended) or [Group(b"frontend", b"")])])

    def _finish(self) -> None:
        if self._current is None:
            return
        batch_id, job_ids = self._current
        self._current = None
        if self._happens("grows"):
            self.memory_bytes += GIB
            self._world.measured(self)
        if self._happens("leaves_some_unanswered"):
            job_ids = job_ids[1:]
        if self.spec.sequences is not None and self._rng.random() < 0.1:
            labels = [label_of(job_id, self._world.payloads[job_id]) for job_id in job_ids]
            self._world.end_sequences(self, [label.name for label in labels if label.name])
        # A dropped job is not computed, but its id is still said to have ended.
        answered = [job_id for job_id in job_ids if job_id not in self._dropped]
        self._dropped.difference_update(self._begun)
        self._unsent.append(Reply(batch_id, True, job_ids, groups_of(answered)))
        if not self._waiting or self._has_sent_part or self._rng.random() < 0.7:
            self._send([])
        self._has_sent_part = False
        if self._is_dead or self._current is not None:
            return  # the answer brought new work at once
        if self._waiting:
            self._begin()
        elif self._is_leaving:
            self._go()

    def _send(self, replies: list[Reply]) -> None:
        """Several replies may share a message; their order stays."""
        replies, self._unsent = [*self._unsent, *replies], []
        self._world.replied(self, replies)

    def _lie(self) -> None:
        """One of the ways in which a worker can break the protocol."""
        if self._current is None:
            return
        self.lied = True
        batch_id, job_ids = self._current
        others = list(self._world.jobs)[:3]
        lie = self._rng.randrange(7)
        if lie == 0:
            self._send([Reply(batch_id + 1_000_000, True, job_ids, [])])
        elif lie == 1:
            self._send([Reply(batch_id, False, others, [])] if not self._holds(others) else [])
            self._finish()
        elif lie == 2:
            last = Reply(batch_id, True, job_ids, groups_of(job_ids))
            self._current = None
            self._send([last, last])
        elif lie == 3:
            self._world.hello(self)
        elif lie == 4:
            self._world.loaded(self)
        elif lie == 5:
            self._world.load_failed(self, Failure("no", "no"))
        else:
            self._send([Reply(batch_id, False, [b"?" * 16], [])])
            self._finish()

    def _holds(self, job_ids: list[bytes]) -> bool:
        batches = [*self._waiting, *([self._current] if self._current else [])]
        return any(job_id in ids for _, ids in batches for job_id in job_ids)

    # -- leaving ----------------------------------------------------------------

    def leave(self) -> None:
        if self._happens("ignores_leave"):
            return
        if self._happens("dies_leaving"):
            self._later(self._rng.random() * 0.2, self.die, "signal 11")
        self._is_leaving = True
        if self._current is None and not self._is_stuck:
            self._go()

    def _go(self) -> None:
        self._later(self._rng.random() * 0.02, self.die, "exit 0")

    def abort(self) -> None:
        if self._happens("ignores_abort"):
            return
        if self._current is not None and self._happens("answers_when_aborted"):
            self._finish()
        self._is_stuck = True
        self._later(self._rng.random() * 0.5, self.die, "signal 6")

    def kill(self) -> None:
        if self._happens("survives_a_kill"):
            return
        delay_s = 8 * self._rng.random() if self._happens("dies_slowly") else 0.01
        self._later(delay_s, self.die, "signal 9")

    def die(self, words: str) -> None:
        if not self._is_dead:
            self._is_dead = True
            self._world.exited(self, words)
            if self._current is not None and self._happens("speaks_after_death"):
                batch_id, job_ids = self._current
                self._send([Reply(batch_id, True, job_ids, groups_of(job_ids))])


def groups_of(job_ids: list[bytes]) -> list[Group]:
    """Answer frames as the simulated frontends read them: the ids of the answered jobs."""
    groups: dict[bytes, list[bytes]] = {}
    for job_id in job_ids:
        groups.setdefault(job_id[:FRONTEND_ID_BYTES], []).append(job_id)
    return [Group(frontend_id, b"".join(ids)) for frontend_id, ids in groups.items()]
