"""A frontend process around the real Link, whose two ways and loop are simulated."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq
from sim_sequences import random_label
from whole_judge import POISON
from whole_net import Pipe
from whole_time import AgendaClock, ProcessLoop

from stoker.errors import StokerError
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


class WayBack:
    """Opened anew to every supervisor; its end is heard behind all that came before."""

    def __init__(self, frontend: WholeFrontend) -> None:
        self._frontend = frontend
        self.pipe: Pipe | None = None

    @property
    def is_open(self) -> bool:
        return self.pipe is not None

    def open(self) -> bool:
        supervisor = self._frontend.world.supervisor
        if self.pipe is None and supervisor is not None:
            self.pipe = Pipe(self._frontend.world.agenda, self._take)
            supervisor.listen(self._frontend.link.frontend_id, self.pipe)
        return self.is_open

    def _take(self, frame: bytes | None) -> None:
        if self._frontend.is_dead:
            return
        if frame is None:
            self.pipe = None
            self._frontend.link._lose()
        else:
            self._frontend.link._receive(memoryview(frame), deque())


class WatchedLink(Link):
    """The Link, its numbers from the seed, and what it hears told to the judge."""

    def __init__(self, world: World, frontend: WholeFrontend, loop: ProcessLoop) -> None:
        self._world = world
        identity = b"F" + world.agenda.rng.randbytes(FRONTEND_ID_BYTES - 1)
        super().__init__(Path("nowhere"), AgendaClock(world.agenda), frontend_id=identity)
        self.fake, self.way_back = Socket(), WayBack(frontend)
        self._loop, self._socket, self._downlink = loop, self.fake, self.way_back  # type: ignore
        self._new_job_id = lambda: identity + world.agenda.rng.randbytes(8)

    def seek(self, loop: ProcessLoop) -> None:
        self._contact.seek(loop)  # type: ignore[arg-type]

    def _answer(self, answer: Answer) -> None:
        self._world.judge.answer(self.frontend_id, answer)
        super()._answer(answer)


class WholeFrontend:
    """One process with clients that ask, wait, and sometimes leave."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._agenda = world.agenda
        self._loop = ProcessLoop(world.agenda)
        self.is_dead = False
        self._to: Pipe | None = None
        self.link = WatchedLink(world, self, self._loop)
        self.link.seek(self._loop)
        self._connect_soon()
        self._loop.call_soon(self._arrive)

    # -- the connection ------------------------------------------------------------

    def _connect_soon(self) -> None:
        self._loop.call_later(0.02 + 0.08 * self._agenda.rng.random(), self._connect)

    def _connect(self) -> None:
        supervisor = self.world.supervisor
        if supervisor is None:
            self._connect_soon()
            return
        self._to = supervisor.accept_frontend(self.link.frontend_id)
        self.link.fake.to = self._to

    def lose_supervisor(self) -> None:
        self.link.fake.to = None
        if self._to is not None:
            self.world.counts["frames lost"] += self._to.discard()
            self._to = None
            self._connect_soon()

    def die(self) -> None:
        """SIGKILL: what it sent arrives, or not all of it."""
        self.is_dead = self._loop.is_dead = True
        if self._to is not None:
            self.world.counts["frames lost"] += self._to.cut()
        way_back = self.link.way_back.pipe
        if way_back is not None:
            way_back.cut()
            self._agenda.after(self._agenda.delay_s(), self._tell_of_end, way_back)
        self.world.judge.forget(self.link.frontend_id)

    def _tell_of_end(self, way_back: Pipe) -> None:
        if self.world.supervisor is not None:
            self.world.supervisor.hear_of_end(self.link.frontend_id, way_back)

    # -- clients -------------------------------------------------------------------

    def _arrive(self) -> None:
        world, rng = self.world, self._agenda.rng
        if not world.is_open:
            return
        for _ in range(rng.randint(20, 60) if rng.random() < 0.02 else rng.randint(1, 4)):
            self._submit()
        self._loop.call_later(rng.expovariate(world.arrivals_per_s), self._arrive)

    def _submit(self) -> None:
        world, rng, link = self.world, self._agenda.rng, self.link
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
            self.world.counts["client left"] += 1
            pending.cancel()
