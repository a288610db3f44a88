"""The simulated server as a whole: processes that die at any moment, and who restarts them."""

from __future__ import annotations

import random
from collections import Counter

from sim_sequences import random_policy
from whole_frontend import WholeFrontend
from whole_judge import Judge
from whole_net import Pipe
from whole_supervisor import WholeSupervisor
from whole_time import Agenda
from whole_worker import WholeWorker

from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.versions import VersionSpec

MODELS = ("bert", "echo", "resnet")


def random_size(rng: random.Random) -> tuple[int, int]:
    low = rng.randint(0, 3)
    return low, max(1, low + rng.choice((0, 0, 1, 3)))


class World:
    """One machine.

    Attributes:
        ledger: Workers that no supervisor has reaped, as the ledger has them.
        loaded: Those of them that the ledger says have loaded.
        missed_since: When the first supervisor came that misses one of them.
        lately: When the last worker of each model ended.
        counts: What happened how often, so that a test can see that the
            simulation reaches what it is there for.
    """

    def __init__(self, seed: int) -> None:
        self.agenda = Agenda(seed)
        rng = self.agenda.rng
        self.counts: Counter[str] = Counter()
        self.judge = Judge(self)
        self.is_open, self.is_calm = True, False
        self.submitted = 0
        self.ledger: dict[int, WholeWorker] = {}
        self.workers: dict[int, WholeWorker] = {}
        self.loaded: set[int] = set()
        self.missed_since: dict[int, float] = {}
        self.lately: dict[str, float] = {}
        self.last_worker_id = self.last_slot = 0
        self.specs = [
            VersionSpec(
                model,
                "1",
                batch=BatchPolicy(rng.choice((1, 2, 8)), rng.choice((0.0, 0.002, 0.05))),
                queue_capacity=rng.choice((20, 100)),
                response_timeout_s=rng.choice((1.0, 3.0)),
                startup_timeout_s=3.0,
                max_attempts=attempts,
                quarantine_s=rng.choice((0.0, 20.0)),
                max_idle_s=rng.choice((0.0, 1.0, 10.0)),
                queue_wait_target_s=rng.choice((0.001, 0.05)),
                sequences=random_policy(rng) if attempts == 1 and rng.random() < 0.6 else None,
            )
            for model, attempts in zip(MODELS, (1, 2, rng.choice((1, 2, 3))), strict=True)
        ]
        #: Least and most workers; one that may sleep, and one that grows, among others.
        self.sizes = {model: random_size(rng) for model in MODELS}
        self.service_s = {model: rng.choice((0.0002, 0.0006, 0.002, 0.02)) for model in MODELS}
        self.poisoned = rng.choice((0.0, 0.0005, 0.003))
        self.arrivals_per_s = rng.choice((20.0, 60.0, 150.0))
        self.fault_every_s = rng.choice((0.3, 1.0, 4.0))
        self._life = 0
        self.supervisor: WholeSupervisor | None = None
        self._start_supervisor()
        self.frontends = [WholeFrontend(self) for _ in range(2)]
        self.agenda.after(1.0, self._fault)
        self.agenda.after(1.0, self._look)

    def _look(self) -> None:
        self.judge.look()
        self.agenda.after(1.0, self._look)

    # -- processes ------------------------------------------------------------------

    def _start_supervisor(self) -> None:
        self._life += 1
        if self._life > 1:
            self.judge.note_succession()
        self.agenda.note("supervisor starts", self._life)
        self.supervisor = WholeSupervisor(self, self._life)
        self.supervisor.restore(self.specs, self.sizes)

    def spawn(self, worker_id: int, slot: int, spec: VersionSpec) -> None:
        self.last_worker_id = max(self.last_worker_id, worker_id)
        self.last_slot = max(self.last_slot, slot)
        worker = WholeWorker(self, worker_id, slot, spec)
        self.workers[worker_id] = self.ledger[worker_id] = worker
        self.counts["spawned"] += 1
        worker.start()

    def worker_died(self, worker: WholeWorker, words: str, life: int, to: Pipe | None) -> None:
        """Whoever watches over it reads what it said to the end, and then hears."""
        del self.workers[worker.worker_id]
        self.judge.sequences.note_death(worker)
        self.counts[f"worker: {words}"] += 1
        supervisor = self.supervisor
        if supervisor is not None:
            if to is not None and life == supervisor.life:
                supervisor.later(0.0, to.deliver_all)
            supervisor.later(0.0, supervisor.worker_gone, worker.worker_id, words)

    def note_loaded(self, worker_id: int) -> None:
        """It has loaded and is a supervisor's."""
        self.loaded.add(worker_id)
        self.missed_since.pop(worker_id, None)

    def strike(self, worker_id: int) -> None:
        """Its ledger line."""
        worker = self.ledger.pop(worker_id, None)
        self.loaded.discard(worker_id)
        self.missed_since.pop(worker_id, None)
        if worker is not None:
            self.lately[worker.spec.model] = self.agenda.now

    # -- faults ---------------------------------------------------------------------

    def _fault(self) -> None:
        if self.is_calm:
            return
        rng = self.agenda.rng
        dice = rng.random()
        self.agenda.events += 1
        if dice < 0.35:
            self.kill_supervisor()
        elif dice < 0.5:
            self._kill_frontend()
        elif dice < 0.53:
            self._let_go_of_frontend()
        elif self.workers:
            self.workers[rng.choice(sorted(self.workers))].die("signal 9")
        self.agenda.after(rng.expovariate(1 / self.fault_every_s), self._fault)

    def kill_supervisor(self) -> None:
        if self.supervisor is None:
            return
        self.counts["supervisor killed"] += 1
        self.agenda.note("supervisor killed", self._life)
        self.supervisor.die()
        self.supervisor = None
        for frontend in self.frontends:
            frontend.lose_supervisor()
        for worker in list(self.workers.values()):
            worker.lose_supervisor()
        rng = self.agenda.rng
        pause_s = 12.0 * rng.random() if rng.random() < 0.1 else 0.05 + 0.5 * rng.random()
        self.agenda.after(pause_s, self._start_supervisor)

    def _kill_frontend(self) -> None:
        self.counts["frontend killed"] += 1
        at = self.agenda.rng.randrange(len(self.frontends))
        self.agenda.note("frontend killed", self.frontends[at].link.frontend_id)
        self.frontends[at].die()
        self.frontends[at] = WholeFrontend(self)

    def _let_go_of_frontend(self) -> None:
        if self.supervisor is not None:
            self.counts["frontend let go"] += 1
            identity = self.agenda.rng.choice(self.frontends).link.frontend_id
            self.agenda.note("frontend let go", identity)
            self.supervisor.let_go(identity)

    # -- the end --------------------------------------------------------------------

    def live(self, events: int) -> None:
        while self.agenda.events < events:
            self.agenda.step()

    def end(self) -> None:
        """No more faults and requests: everything comes right, and then goes."""
        self.is_open, self.is_calm = False, True
        self._rest(150.0)
        assert self.supervisor is not None
        for model in MODELS:
            self.supervisor.unregister(model)
        self._rest(30.0)
        self.judge.check_empty()

    def _rest(self, for_s: float) -> None:
        until = self.agenda.now + for_s
        while self.agenda.now < until:
            self.agenda.step()
