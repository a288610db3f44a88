"""A supervisor process around the real engine; follows `loop.py` and `fleet.py`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

from sim_sequences import headers_in
from whole_net import Pipe

from stoker.errors import ProtocolError, StokerError
from stoker.supervisor import actions as a
from stoker.supervisor.deaths import Exit
from stoker.supervisor.engine import Engine
from stoker.supervisor.jobs import deadlines_in_hand
from stoker.supervisor.orphans import Orphan, Orphans
from stoker.supervisor.predecessor import LATELY_S
from stoker.supervisor.quarantine import Content
from stoker.supervisor.returning import read_sequences
from stoker.supervisor.sequences import KnownSequence
from stoker.supervisor.versions import VersionSpec
from stoker.wire import codec
from stoker.wire import frames as f

if TYPE_CHECKING:
    from whole_worker import WholeWorker
    from whole_world import World

#: What is kept for who has not found us yet.
UNDELIVERED_S = 60.0


class Contents:
    """What a request says is its payload."""

    def size(self, job_id: bytes, payload: bytes) -> int:
        return len(payload)

    def read(self, job_id: bytes, payload: bytes) -> Content:
        return Content(len(payload), payload)

    def headers(self, payload: bytes) -> list[str]:
        return headers_in(payload)


class WholeSupervisor:
    """One life of it: restores, adopts, serves, and dies at any moment."""

    def __init__(self, world: World, life: int) -> None:
        self.life = life
        self.incarnation = life.to_bytes(8, "big")
        self.placed: set[int] = set()
        self.engine = Engine(self, contents=Contents())
        self.is_dead = False
        self._world = world
        self._agenda = world.agenda
        self._is_serving = False
        self._serving_since = 0.0
        self._greeted: set[bytes] = set()
        self._undelivered: dict[bytes, list[bytes]] = {}
        self._frontends: set[bytes] = set()
        self._to_frontend: dict[bytes, Pipe] = {}
        self._to_worker: dict[int, Pipe] = {}
        #: Of workers that nobody listens to for a moment, what they said meanwhile.
        self._gathered: dict[int, list[f.FromWorker]] = {}
        self._returning = {
            worker_id: worker for worker_id, worker in world.ledger.items() if not worker.is_dead
        }
        for worker_id in [x for x, worker in world.ledger.items() if worker.is_dead]:
            world.strike(worker_id)
        since = self._agenda.now - LATELY_S
        dead = [model for model, at in world.lately.items() if at > since]
        self._kept: dict[int, list[f.Reply]] = {}
        self._sequences: dict[int, tuple[KnownSequence, ...]] = {}
        self._adopted: set[int] = set()
        self._tick_at = float("inf")
        living = [(w.spec.model, self._orphan(w)) for w in self._returning.values()]
        orphans = Orphans(lambda spec: spec.model, living, dead)
        self.engine.numbers.inherit(orphans, world.last_worker_id, world.last_slot)
        self._orphans = orphans

    def _orphan(self, worker: WholeWorker) -> Orphan:
        worker_id = worker.worker_id
        has_loaded = worker_id in self._world.loaded
        alone_since = self._world.missed_since.get(worker_id)
        self._world.missed_since.setdefault(worker_id, self._agenda.now)
        return Orphan(worker_id, worker.slot, worker_id, (), has_loaded, alone_since)

    # -- devices ------------------------------------------------------------------

    def place(self, worker_id: int, spec: VersionSpec) -> int | None:
        self.placed.add(worker_id)
        return None

    def keep(self, worker_id: int, spec: VersionSpec, uuids: tuple[str, ...]) -> int | None:
        self.placed.add(worker_id)
        return None

    def release(self, worker_id: int) -> None:
        self.placed.remove(worker_id)

    # -- life -----------------------------------------------------------------------

    def restore(self, specs: list[VersionSpec], sizes: dict[str, tuple[int, int]]) -> None:
        """What the journal says, one after the other; workers may come back meanwhile."""
        when = 0.0
        for spec in specs:
            when += self._agenda.rng.expovariate(50)
            self.later(when, self._restore_one, spec, sizes[spec.model])
        self.later(when + 0.001, self._serve)

    def _restore_one(self, spec: VersionSpec, size: tuple[int, int]) -> None:
        self.engine.versions.register(spec)
        self.engine.versions.scale(spec.key, *size, self._agenda.now)
        self._end_turn()

    def _serve(self) -> None:
        self._is_serving = True
        self._serving_since = self._agenda.now
        self._orphans.forget()
        for worker_id, worker in list(self._returning.items()):
            if worker_id not in self._adopted:
                del self._returning[worker_id]
                self._world.strike(worker_id)
                worker.kill()
                self._world.counts["orphan not wanted"] += 1
        self._tick()

    def later(self, delay_s: float, do: Callable[..., None], *args: Any) -> None:
        self._agenda.after(delay_s, self._if_alive, do, args)

    def _if_alive(self, do: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.is_dead:
            self._agenda.events += 1
            do(*args)

    def die(self) -> None:
        """SIGKILL: nothing more is said, and of what was said some never comes."""
        self.is_dead = True
        for pipe in self._to_frontend.values():
            pipe.hang_up()

    # -- turns ------------------------------------------------------------------------

    def _tick(self) -> None:
        self._tick_at = float("inf")
        now = self._agenda.now
        self.engine.tick(now)
        if now - self._serving_since > UNDELIVERED_S:
            self._undelivered.clear()
        self._end_turn()

    def _end_turn(self) -> None:
        self.engine.dispatch(self._agenda.now)
        while actions := self.engine.take_actions():
            for action in actions:
                self._perform(action)
        due_at = self.engine.next_due()
        if due_at < self._tick_at:
            self._tick_at = due_at
            self.later(max(0.0, due_at - self._agenda.now), self._tick_if, due_at)

    def _tick_if(self, meant_for: float) -> None:
        if meant_for == self._tick_at:
            self._tick()

    def _perform(self, action: Any) -> None:
        kind = type(action)
        if kind is a.SendBatch:
            worker_id, batch_id, jobs = action
            work = [f.WorkJob(job.job_id, job.payload) for job in jobs]
            spec = self.engine.spec_of(worker_id)
            if spec is not None and spec.sequences is not None:
                self._world.judge.sequences.note_sent(spec.model, worker_id, jobs)
            self._tell(worker_id, f.Work([f.WorkBatch(batch_id, work, deadlines_in_hand(jobs))]))
        elif kind is a.Forward:
            self._forward(*action)
        elif kind is a.Refuse:
            job_id, error = action
            refused = f.RefusedJob(job_id, error.code, error.message, error.details)
            self._answer(job_id[: f.FRONTEND_ID_BYTES], f.Refused([refused]))
        elif kind is a.Retry:
            retried = f.Retried([f.RetriedJob(*action)])
            self._answer(action.job_id[: f.FRONTEND_ID_BYTES], retried)
        elif kind is a.Announce:
            for identity in list(self._frontends):
                self._answer(identity, f.Full([action.queue]))
        elif kind is a.Spawn:
            self._spawn(action)
        elif kind is a.Adopt:
            self._adopt(action)
        elif kind is a.SendLoad:
            self._tell(action.worker_id, f.Load({}))
        elif kind is a.LetGather:
            if action.worker_id not in self._gathered:
                self._gathered[action.worker_id] = []
                self._world.counts["answers gather"] += 1
                self.later(action.for_s, self._hear, action.worker_id)
        elif kind is a.SendDrop:
            self._tell(action.worker_id, f.Drop(action.job_ids))
        elif kind is a.SendLeave:
            self._tell(action.worker_id, f.Leave())
        elif kind in (a.Abort, a.Kill):
            worker = self._world.workers.get(action.worker_id)
            if worker is not None:
                worker.abort() if kind is a.Abort else worker.kill()
        elif kind is a.Note:
            self._world.counts[action.event] += 1

    # -- workers ------------------------------------------------------------------------

    def _spawn(self, action: a.Spawn) -> None:
        self._world.spawn(action.worker_id, action.slot, action.spec)
        self.engine.worker_spawned(action.worker_id, action.worker_id)

    def _adopt(self, action: a.Adopt) -> None:
        worker = self._returning[action.worker_id]
        self._adopted.add(action.worker_id)
        self._world.counts["adopted"] += 1
        if worker.is_dead:
            self.later(0.0, self.worker_gone, action.worker_id, "unknown")
        else:
            self.later(0.0, self._take_back, action.worker_id)

    def accept_worker(self, worker: WholeWorker, to_worker: Pipe) -> Pipe:
        self._to_worker[worker.worker_id] = to_worker
        return Pipe(self._agenda, lambda message: self._take_worker(worker.worker_id, message))

    def _tell(self, worker_id: int, message: f.ToWorker) -> None:
        pipe = self._to_worker.get(worker_id)
        if pipe is not None:
            pipe.send(message)

    def _take_worker(self, worker_id: int, message: f.FromWorker) -> None:
        if self.is_dead:
            return
        if worker_id in self._gathered:
            self._gathered[worker_id].append(message)
            return
        self._listen(worker_id, message)
        self._end_turn()

    def _hear(self, worker_id: int) -> None:
        """What one look at it brings."""
        said = self._gathered.pop(worker_id, [])
        replies = [each.replies for each in said if isinstance(each, f.Replies)]
        if len(replies) == len(said) > 0:
            said = [f.Replies(list(chain(*replies)))]
        for message in said:
            self._listen(worker_id, message)
        self._end_turn()

    def _listen(self, worker_id: int, message: f.FromWorker) -> None:
        now = self._agenda.now
        engine = self.engine
        try:
            if isinstance(message, f.Replies):
                engine.worker_replied(worker_id, message.replies, now)
            elif isinstance(message, f.WorkerHello):
                engine.worker_said_hello(worker_id, now)
            elif isinstance(message, f.WorkerBack):
                if worker_id not in self._returning:
                    self._tell(worker_id, f.Leave())
                self._sequences[worker_id] = read_sequences(message.info.get("sequences"))
            elif isinstance(message, f.SequencesEnded):
                engine.worker_ended_sequences(worker_id, message.names, now)
            elif isinstance(message, f.Kept):
                if worker_id in self._returning:
                    self._kept[worker_id] = message.replies
                    self._take_back(worker_id)
            elif isinstance(message, f.Loaded):
                self._world.note_loaded(worker_id)
                engine.worker_loaded(worker_id, now)
        except ProtocolError as error:
            raise AssertionError(f"an honest worker is called a liar: {error}") from error

    def _take_back(self, worker_id: int) -> None:
        if worker_id not in self._adopted or worker_id not in self._kept:
            return
        if self._returning.pop(worker_id, None) is None:
            return
        self._world.note_loaded(worker_id)
        self._tell(worker_id, f.Drop([]))
        self._world.counts["came back"] += 1
        known = self._sequences.pop(worker_id)
        kept = self._kept.pop(worker_id)
        self.engine.worker_came_back(worker_id, kept, self._agenda.now, known)
        self._end_turn()

    def worker_gone(self, worker_id: int, words: str) -> None:
        """The process was reaped, and its connection read to the end before."""
        if worker_id in self._gathered:
            self._hear(worker_id)
        if worker_id in self._returning and worker_id not in self._adopted:
            return  # nobody looks before somebody adopts it
        self._returning.pop(worker_id, None)
        self._to_worker.pop(worker_id, None)
        self._kept.pop(worker_id, None)
        self._world.strike(worker_id)
        if self.engine.worker(worker_id) is not None:
            self.engine.worker_exited(worker_id, Exit(words), self._agenda.now)
        self._end_turn()

    # -- frontends ------------------------------------------------------------------------

    def accept_frontend(self, identity: bytes) -> Pipe:
        return Pipe(self._agenda, lambda frame: self._take_frontend(identity, frame))

    def listen(self, identity: bytes, way_back: Pipe) -> None:
        """From now on this one can be answered."""
        self._to_frontend[identity] = way_back

    def hear_of_end(self, identity: bytes, way_back: Pipe) -> None:
        """The other end of a way back is gone."""
        if not self.is_dead and self._to_frontend.get(identity) is way_back:
            self._lose_frontend(identity)
            self._end_turn()

    def let_go(self, identity: bytes) -> None:
        """Of one that does not read, say; it lives on."""
        way_back = self._to_frontend.get(identity)
        if way_back is not None:
            way_back.hang_up()
            self.hear_of_end(identity, way_back)

    def _take_frontend(self, identity: bytes, frame: bytes) -> None:
        if self.is_dead:
            return
        now = self._agenda.now
        message = codec.decode_from_frontend(frame)
        if identity not in self._greeted and isinstance(message, f.Submit | f.Cancel):
            self._world.counts["meant for the predecessor"] += 1
            return
        if isinstance(message, f.Submit):
            for job in message.jobs:
                self.engine.submit(job, now)
        elif isinstance(message, f.Cancel):
            for job_id in message.job_ids:
                self.engine.cancel(job_id, now)
        elif isinstance(message, f.FrontendHello) and identity in self._to_frontend:
            self._frontends.add(identity)
            if self._is_serving:
                if message.incarnation in (b"", self.incarnation):
                    self._greet(identity)
                self._answer(identity, f.Welcome(f.PROTOCOL, self.incarnation))
        self._end_turn()

    def _greet(self, identity: bytes) -> None:
        if identity not in self._greeted:
            self._greeted.add(identity)
            for frame in self._undelivered.pop(identity, ()):
                self._answer(identity, f.Answers([frame]))

    def _forward(self, frontend_id: bytes, frame: bytes) -> None:
        if frontend_id in self._greeted:
            self._answer(frontend_id, f.Answers([frame]))
        else:
            self._undelivered.setdefault(frontend_id, []).append(frame)

    def _answer(self, identity: bytes, message: f.ToFrontend) -> None:
        pipe = self._to_frontend.get(identity)
        if pipe is None:
            return
        if pipe.is_cut:
            self._lose_frontend(identity)
        else:
            pipe.send(codec.encode(message))

    def _lose_frontend(self, identity: bytes) -> None:
        self._to_frontend.pop(identity, None)
        self._frontends.discard(identity)
        self.engine.forget_frontend(identity, self._agenda.now)

    # -- operators ------------------------------------------------------------------------

    def unregister(self, model: str) -> None:
        try:
            self.engine.versions.unregister(model, None, self._agenda.now, None, 5.0)
        except StokerError as error:
            self._world.counts[f"unregister: {error.code}"] += 1
        self._end_turn()

    @property
    def is_serving(self) -> bool:
        return self._is_serving
