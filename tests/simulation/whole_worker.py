"""A worker process that outlives its supervisor; follows `worker/channel.py`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim_sequences import label_of
from whole_judge import check
from whole_net import Pipe

from stoker.supervisor.dispatch import MAX_CREDIT
from stoker.supervisor.versions import VersionSpec
from stoker.wire import frames as f
from stoker.wire.payloads import Answer, AnswerKind, pack_answers
from stoker.wire.sequence_labels import SequenceLabel
from stoker.worker.kept_replies import KeptReplies
from stoker.worker.sequences import LivingSequences
from stoker.worker.successor import FIRST_PAUSE_S, LONGEST_PAUSE_S

if TYPE_CHECKING:
    from whole_world import World

#: Short, so that some find nobody in time.
ORPHAN_GRACE_S = 6.0


class WholeWorker:
    """One process: loads once, works on one batch at a time, looks for a successor."""

    def __init__(self, world: World, worker_id: int, slot: int, spec: VersionSpec) -> None:
        self.worker_id = worker_id
        self.slot = slot
        self.spec = spec
        self.is_dead = False
        self._world = world
        self._agenda = world.agenda
        self._rng = world.agenda.rng
        self._life = -1
        self._to: Pipe | None = None
        self._from: Pipe | None = None
        self._waiting: deque[f.WorkBatch] = deque()
        self._running: f.WorkBatch | None = None
        self._dropped: set[bytes] = set()
        self._held: list[f.Reply] = []
        self._kept = KeptReplies()
        self._living: LivingSequences | None = None
        if spec.sequences is not None:
            limits = spec.sequences
            self._living = LivingSequences(limits.headers, limits.max_idle_s, limits.timeout_s)
        #: How often it came back to a supervisor.
        self.adoptions = 0
        self._is_told_to_load = False
        self._has_loaded = False
        self._is_leaving = False
        self._is_orphan = False
        self._is_searching = False
        self._alone_since: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def start(self) -> None:
        self._later(self._rng.expovariate(30), self._join)

    def _join(self) -> None:
        if self._connect():
            self._send(f.WorkerHello(f.PROTOCOL, self.worker_id, b"", self.worker_id))
        else:
            self.die("exit 5")

    def _connect(self) -> bool:
        supervisor = self._world.supervisor
        if supervisor is None:
            return False
        self._life = supervisor.life
        self._from = Pipe(self._agenda, self._take)
        self._to = supervisor.accept_worker(self, self._from)
        self._is_orphan = False
        return True

    def _later(self, delay_s: float, do: Callable[..., None], *args: Any) -> None:
        self._agenda.after(delay_s, self._if_alive, do, args)

    def _if_alive(self, do: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.is_dead:
            self._agenda.events += 1
            do(*args)

    def _send(self, message: f.FromWorker) -> None:
        if self._to is not None and not self._is_orphan:
            self._to.send(message)

    # -- what the supervisor says -----------------------------------------------

    def _take(self, message: f.ToWorker | None) -> None:
        if self.is_dead:
            return
        if message is None:
            self._hang_up()
            return
        self._alone_since = None
        if isinstance(message, f.Load):
            check(not self._is_told_to_load, "a worker loads once in its life", self.worker_id)
            self._is_told_to_load = True
            self._later(self._rng.lognormvariate(0, 0.5) * 0.2, self._loaded)
        elif isinstance(message, f.Work):
            check(self._has_loaded, "work is for who has loaded", self.worker_id)
            self._waiting += message.batches
            held = len(self._waiting) + (self._running is not None)
            # What it has answered in the meantime is not known there yet.
            check(held <= MAX_CREDIT, "a worker holds no more than its credit", held)
            self._next()
        elif isinstance(message, f.Drop):
            in_hand = {job.job_id for batch in self._waiting for job in batch.jobs}
            if self._running is not None:
                in_hand.update(job.job_id for job in self._running.jobs)
            self._dropped.update(in_hand.intersection(message.job_ids))
        else:
            self._is_leaving = True
            self._next()

    def lose_supervisor(self) -> None:
        """The other end is gone; what it had said may have come before."""
        if self._from is not None:
            self._from.hang_up()
        if self._to is not None:
            self._to.discard()
        if not self._is_told_to_load:
            self.die("signal 9")  # until then it dies with who started it

    def _hang_up(self) -> None:
        self._is_orphan = True
        if self._has_loaded and self._running is None:
            self._come_back()

    def _come_back(self) -> None:
        if self._is_searching:
            return
        self._is_searching = True
        if self._alone_since is None:
            self._alone_since = self._agenda.now
        self._waiting.clear()
        self._dropped.clear()
        self._kept.add(self._held)
        self._held.clear()
        self._pause_s = FIRST_PAUSE_S
        self._later(self._pause_s, self._knock)

    def _knock(self) -> None:
        assert self._alone_since is not None
        if self._is_leaving:
            self.die("exit 0")
        elif self._agenda.now - self._alone_since >= ORPHAN_GRACE_S:
            self._world.counts["orphan found nobody"] += 1
            self.die("exit 5")
        elif self._connect():
            self._is_searching = False
            self.adoptions += 1
            info: dict[str, Any] = {}
            if self._living is not None:
                info = {"sequences": self._living.rows(self._agenda.now)}
            self._send(f.WorkerBack(f.PROTOCOL, self.worker_id, b"", self.worker_id, info))
            self._send(f.Kept(list(self._kept)))
        else:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._later(self._pause_s, self._knock)

    # -- working ------------------------------------------------------------------

    def _loaded(self) -> None:
        self._has_loaded = True
        self._send(f.Loaded({}))
        if self._is_orphan:
            self._come_back()

    def _next(self) -> None:
        if self._running is not None or not self._has_loaded:
            return
        if self._is_orphan:
            self._come_back()
            return
        if not self._waiting:
            self._flush()
            if self._is_leaving:
                self._later(self._rng.random() * 0.02, self.die, "exit 0")
            return
        batch = self._running = self._waiting.popleft()
        begun = [job for job in batch.jobs if job.job_id not in self._dropped]
        kills = [self._world.judge.begin(self, job) for job in begun]
        if self._living is not None:
            self._living.begin(labels_of(begun), self._agenda.now)
        service_s = self._world.service_s[self.spec.model] * self._rng.lognormvariate(0, 0.5)
        if any(kills):
            self._later(service_s * self._rng.random(), self.die, "signal 11")
            return
        dice = self._rng.random()
        if self._world.is_calm:
            self._later(service_s, self._finish)
        elif dice < 0.0003:
            self._world.counts["handler hangs"] += 1
        elif dice < 0.02:
            self._later(service_s / 2, self._send_piece, batch)
            self._later(service_s, self._finish)
        else:
            self._later(service_s, self._finish)

    def _send_piece(self, batch: f.WorkBatch) -> None:
        groups = group(batch.jobs[:1], AnswerKind.CHUNK, self._dropped)
        if groups:
            self._kept.tear(batch.batch_id)
            self._held.append(f.Reply(batch.batch_id, False, [], groups))
            self._flush()

    def _finish(self) -> None:
        batch, self._running = self._running, None
        assert batch is not None
        ended = [job.job_id for job in batch.jobs]
        if self._living is not None:
            self._end_sequences(self._living, batch.jobs)
        groups = group(batch.jobs, AnswerKind.FINAL, self._dropped)
        self._dropped.difference_update(ended)
        self._held.append(f.Reply(batch.batch_id, True, ended, groups))
        if not self._waiting or self.spec.max_attempts == 1 or self._rng.random() < 0.7:
            self._flush()
        self._next()

    def _end_sequences(self, living: LivingSequences, jobs: list[f.WorkJob]) -> None:
        """Now and then a handler has had enough."""
        labels = labels_of(jobs)
        ended = [x.name for x in labels if x.name is not None and self._rng.random() < 0.03]
        told = living.finish(labels, ended, self._agenda.now)
        self._world.judge.sequences.finish(self, jobs, told)
        if told:
            self._send(f.SequencesEnded(told))

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self._kept.add(held)
            self._send(f.Replies(held))

    # -- dying --------------------------------------------------------------------

    def die(self, words: str) -> None:
        if not self.is_dead:
            self.is_dead = True
            self._agenda.note("worker dies", self.worker_id, words)
            self._world.worker_died(self, words, self._life, self._to)

    def abort(self) -> None:
        self._later(self._rng.random() * 0.2, self.die, "signal 6")

    def kill(self) -> None:
        self._later(self._rng.random() * 0.02, self.die, "signal 9")


def labels_of(jobs: list[f.WorkJob]) -> list[SequenceLabel]:
    return [label_of(job.job_id, job.payload) for job in jobs]


def group(jobs: list[f.WorkJob], kind: AnswerKind, dropped: set[bytes]) -> list[f.Group]:
    """Every answer says whose question it is."""
    answers: dict[bytes, list[Answer]] = {}
    for job in jobs:
        if job.job_id not in dropped:
            answer = Answer(job.job_id, kind, 200, "", None, [], job.job_id)
            answers.setdefault(job.job_id[: f.FRONTEND_ID_BYTES], []).append(answer)
    return [f.Group(frontend, pack_answers(rows)) for frontend, rows in answers.items()]
