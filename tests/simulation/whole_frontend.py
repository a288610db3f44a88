"""A frontend process around the real Link, whose socket and loop are simulated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zmq
from sim_sequences import random_label
from whole_judge import POISON
from whole_net import Pipe
from whole_time import AgendaClock, ProcessLoop

from stoker.errors import StokerError
from stoker.wire import codec
from stoker.wire.frames import FRONTEND_ID_BYTES, JobFlag
from stoker.wire.link import Link
from stoker.wire.payloads import Answer, AnswerKind
from stoker.wire.pending import Pending

if TYPE_CHECKING:
    from whole_world import World


class Socket:
    """Sends nothing before the connection stands, as the real one."""

    def __init__(self) -> None:
        self.to: Pipe | None = None

    def send(self, frame: bytes, flags: int, copy: bool = True) -> None:
        if self.to is None:
            raise zmq.Again
        self.to.send(frame)


class Reader:
    """Looks by itself."""

    def check(self) -> None:
        pass

    def check_soon(self) -> None:
        pass


class WatchedLink(Link):
    """The Link, its numbers from the seed, and what it hears told to the judge."""

    def __init__(self, world: World, loop: ProcessLoop) -> None:
        self._world = world
        identity = b"F" + world.agenda.rng.randbytes(FRONTEND_ID_BYTES - 1)
        super().__init__("ipc://nowhere", AgendaClock(world.agenda), frontend_id=identity)
        self.fake = Socket()
        self._loop, self._socket, self._reader = loop, self.fake, Reader()  # type: ignore
        self._new_job_id = lambda: identity + world.agenda.rng.randbytes(8)
        self._contact.seek(loop)  # type: ignore[arg-type]

    def _answer(self, answer: Answer) -> None:
        self._world.judge.answer(self.frontend_id, answer)
        super()._answer(answer)


class WholeFrontend:
    """One process with clients that ask, wait, and sometimes leave."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._agenda = world.agenda
        self._loop = ProcessLoop(world.agenda)
        self.link = WatchedLink(world, self._loop)
        self.is_dead = False
        self._to: Pipe | None = None
        self._from: Pipe | None = None
        self._connect_soon()
        self._loop.call_soon(self._arrive)

    # -- the connection ------------------------------------------------------------

    def _connect_soon(self) -> None:
        self._loop.call_later(0.02 + 0.08 * self._agenda.rng.random(), self._connect)

    def _connect(self) -> None:
        supervisor = self._world.supervisor
        if supervisor is None:
            self._connect_soon()
            return
        self._from = Pipe(self._agenda, self._take)
        self._to = supervisor.accept_frontend(self, self._from)
        self.link.fake.to = self._to

    def _take(self, frame: bytes) -> None:
        if not self.is_dead:
            self.link._take(codec.decode_to_frontend(frame))

    def lose_supervisor(self) -> None:
        self.link.fake.to = None
        if self._to is not None:
            self._world.counts["frames lost"] += self._to.discard()
            self._to = None
            self._connect_soon()

    def die(self) -> None:
        """SIGKILL: what it sent arrives, or not all of it."""
        self.is_dead = self._loop.is_dead = True
        for pipe in (self._to, self._from):
            if pipe is not None:
                self._world.counts["frames lost"] += pipe.cut()
        self._world.judge.forget(self.link.frontend_id)

    # -- clients -------------------------------------------------------------------

    def _arrive(self) -> None:
        world, rng = self._world, self._agenda.rng
        if not world.is_open:
            return
        for _ in range(rng.randint(20, 60) if rng.random() < 0.02 else rng.randint(1, 4)):
            self._submit()
        self._loop.call_later(rng.expovariate(world.arrivals_per_s), self._arrive)

    def _submit(self) -> None:
        world, rng, link = self._world, self._agenda.rng, self.link
        spec = rng.choice(world.specs)
        dice = rng.random()
        wait_s = 0.05 * rng.random() if dice < 0.05 else 1.0 if dice < 0.2 else 30.0
        is_poison = rng.random() < world.poisoned
        payload = POISON if is_poison else b"%d" % world.submitted + random_label(rng)
        flags = int(JobFlag.ALONE) if rng.random() < 0.02 else 0
        deadline = self._agenda.now + wait_s
        told: list[Answer | StokerError] = []
        try:
            pending = link.submit(
                spec.model,
                None,
                deadline,
                flags,
                payload,
                ends_in_hand=rng.random() < 0.5,
            )
        except StokerError as error:
            world.counts[f"refused: {error.code}"] += 1
            return
        world.submitted += 1
        judge = world.judge
        judge.ask(pending.job_id, spec, deadline, is_poison=is_poison)

        def hear(answer: Answer | StokerError) -> None:
            if isinstance(answer, Answer) and answer.kind is AnswerKind.CHUNK:
                return
            told.append(answer)
            judge.end(pending.job_id, answer)

        pending.on_answer(hear)
        if rng.random() < 0.03:
            self._loop.call_later(rng.expovariate(20), self._leave, pending)

    def _leave(self, pending: Pending | Any) -> None:
        if not pending.has_ended:
            self._world.counts["client left"] += 1
            pending.cancel()
