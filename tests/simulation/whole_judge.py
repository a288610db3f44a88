"""What must hold of the simulated server, seen by its clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim_records import check
from whole_sequences import SequenceJudge

from stoker.supervisor.versions import VersionSpec
from stoker.wire.frames import FRONTEND_ID_BYTES, WorkJob
from stoker.wire.link import KEEP_S, SWEEP_S
from stoker.wire.payloads import Answer, AnswerKind

if TYPE_CHECKING:
    from whole_worker import WholeWorker
    from whole_world import World

#: Beyond its deadline a job may take this long for each attempt, beside the
#: handler's own time: cancel, abort, kill, another process, loading.
ATTEMPT_S = 15.0
POISON = b"kills whoever begins it"


@dataclass(slots=True)
class Asked:
    """A job whose client waits.

    Attributes:
        until: When the client must have heard at the latest, whoever dies.
        begun: How many workers began it.
        lives: Supervisors that knew it beside the first.
    """

    spec: VersionSpec
    at: float
    until: float
    is_poison: bool
    begun: int = 0
    lives: int = 0


class Judge:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.asked: dict[bytes, Asked] = {}
        #: Those that ended lately may still be begun once: they were on their way.
        self._ended: dict[bytes, Asked] = {}
        self.sequences = SequenceJudge(world)

    def ask(self, job_id: bytes, spec: VersionSpec, deadline: float, *, is_poison: bool) -> None:
        check(job_id not in self.asked, "an id is new", job_id)
        each_s = spec.response_timeout_s + ATTEMPT_S
        until = deadline + KEEP_S + each_s * (1 + spec.max_attempts)
        self.asked[job_id] = Asked(spec, self._world.agenda.now, until, is_poison)

    def answer(self, frontend_id: bytes, answer: Answer) -> None:
        """Every answer that reaches a frontend, before it is looked at."""
        mine = answer.job_id[:FRONTEND_ID_BYTES]
        check(mine == frontend_id, "an answer goes to the one who asked", answer.job_id)

    def end(self, job_id: bytes, outcome: Answer | Exception) -> None:
        """What the client hears."""
        asked = self.asked.pop(job_id, None)
        check(asked is not None, "a client hears one end", job_id, outcome)
        assert asked is not None
        self._ended[job_id] = asked
        if isinstance(outcome, Answer):
            check(outcome.body == job_id, "an answer is to its question", job_id)
            check(asked.begun, "nobody answers what nobody began", job_id)
            check(not asked.is_poison, "what kills is not answered", job_id)
            check(outcome.kind is AnswerKind.FINAL, "a piece is no end", job_id)
            self._world.counts["answered"] += 1
        else:
            code = getattr(outcome, "code", type(outcome).__name__)
            self._world.counts[f"told: {code}"] += 1

    def begin(self, worker: WholeWorker, job: WorkJob) -> bool:
        """A worker begins a job.  Returns whether that kills it."""
        asked = self.asked.get(job.job_id) or self._ended.get(job.job_id)
        check(asked is not None, "only what was asked is worked on", job.job_id)
        assert asked is not None
        asked.begun += 1
        # Of a worker that dies with the end of one batch unsaid, the next is not
        # known to be begun; and a successor does not know of earlier attempts.
        allowed = asked.spec.max_attempts
        allowed = 1 if allowed == 1 else (allowed + 1) * (1 + asked.lives)
        check(asked.begun <= allowed, "no job is begun too often", job.job_id, asked)
        check(asked.spec.key == worker.spec.key, "a job goes to its version", job.job_id)
        self.sequences.begin(worker, job)
        if asked.begun > 1:
            self._world.counts["begun again"] += 1
        return job.payload == POISON

    def note_succession(self) -> None:
        self._ended.clear()
        for asked in self.asked.values():
            asked.lives += 1

    def forget(self, frontend_id: bytes) -> None:
        """Its clients are gone with it."""
        for job_id in [j for j in self.asked if j.startswith(frontend_id)]:
            self._ended[job_id] = self.asked.pop(job_id)

    def look(self) -> None:
        """Now and then: is anybody kept waiting?"""
        now = self._world.agenda.now
        for job_id, asked in self.asked.items():
            check(now < asked.until + SWEEP_S, "every job ends in time", job_id, asked)
        supervisor = self._world.supervisor
        if supervisor is not None:
            known = supervisor.engine.job_count
            check(known <= self._world.submitted, "no more jobs than were asked", known)
            for served in supervisor.engine.registry:
                crew, count = served.crew, len(served.crew.slots.staying)
                is_right = crew.min_workers <= count <= crew.max_workers
                check(is_right, "as many workers as may be", served.spec.key, count)
                if served.autoscaler is not None and served.autoscaler.change is not None:
                    self._world.counts["scaled with the load"] += 1
        if len(self._ended) > 100_000:
            for job_id in list(self._ended)[:50_000]:
                del self._ended[job_id]

    def check_empty(self) -> None:
        """When everything was unregistered, nobody holds anything."""
        world = self._world
        check(not self.asked, "at rest no client waits", len(self.asked))
        for frontend in world.frontends:
            check(not frontend.link._pending, "a frontend keeps nothing")
            check(not frontend.link._retried, "a frontend keeps nothing of attempts")
        check(not world.workers, "no process is left", list(world.workers))
        check(not world.ledger, "the ledger names nobody", list(world.ledger))
        supervisor = world.supervisor
        assert supervisor is not None
        engine = supervisor.engine
        leaving = engine.versions.leaving
        left = (engine._jobs, engine._workers, leaving, engine._due, engine._touched)
        check(not any(left), "nothing is kept", left)
        check(not engine._inheritance.parked, "no job is parked", engine._inheritance.parked)
        check(not engine.payload_bytes, "no payload is counted", engine.payload_bytes)
        check(not supervisor.placed, "every place is free again", supervisor.placed)
