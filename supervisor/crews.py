"""The worker processes of one version: started, watched, replaced, retired.

A crew has slots.  A slot is a place for one worker with a number that clients
see (9000, 9001, ...); when its process dies the slot waits out its back-off
and gets another.  The crew decides; processes are started and signalled by
whoever carries out the actions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from stoker.supervisor.actions import Action, SendLoad
from stoker.supervisor.deaths import RETIRED, Exit, cause_of, error_of, loss_of
from stoker.supervisor.device_groups import Group, even_groups, share_out
from stoker.supervisor.ladder import Ladder
from stoker.supervisor.loads import Loads
from stoker.supervisor.losses import Losses
from stoker.supervisor.pools import Pool
from stoker.supervisor.restarts import RestartRecord
from stoker.supervisor.slots import Slot, Slots, least_needed, youngest_first
from stoker.supervisor.succession import Succession
from stoker.supervisor.supply import Devices, Numbers, Supply
from stoker.supervisor.versions import Failure, VersionSpec
from stoker.supervisor.worker_notes import WorkerNotes
from stoker.supervisor.workers import Worker, WorkerEvent, WorkerState

LOAD_FAILED: Final = "load failed"
TOO_LARGE: Final = "its memory passed worker_memory_limit_mb"


class Crew:
    """Slots of one version, and what is wanted of them."""

    def __init__(
        self,
        spec: VersionSpec,
        pool: Pool,
        actions: list[Action],
        numbers: Numbers,
        devices: Devices,
    ) -> None:
        self.spec = spec
        self.slots = Slots()
        self.min_workers = 0
        self.max_workers = 0
        self._groups: tuple[Group, ...] = ()
        #: The largest of its workers, as far as they were measured.
        self.worker_bytes = 0
        #: Workers of a predecessor that died on their way to us.
        self.lost_orphans = 0
        self._pool = pool
        self._actions = actions
        self._notes = WorkerNotes(spec, actions)
        self._supply = Supply(spec, self.slots, pool, actions, numbers, devices)
        self.loads = Loads()
        self.losses = Losses(spec, self.slots, self._supply, self.loads, self._notes)
        self.ladder = Ladder(spec, pool, actions, self._notes)
        self.succession = Succession(spec, self.slots, pool, self._supply, self.ladder, self._notes)

    # -- what there is --------------------------------------------------------

    @property
    def groups(self) -> tuple[Group, ...]:
        """Its workers by device, with the bounds of each."""
        return self._groups or (Group(None, self.min_workers, self.max_workers),)

    def bound(self, min_workers: int, max_workers: int, groups: tuple[Group, ...] = ()) -> None:
        """Have so many workers, in all and on each device."""
        self.min_workers, self.max_workers = min_workers, max_workers
        if not groups and max_workers and self.spec.group_devices:
            groups = even_groups(self.spec.group_devices, min_workers, max_workers)
        self._groups = groups

    @property
    def has_hope(self) -> bool:
        """Whether a queued job may still find a worker."""
        # Asked for every job, and nearly always answered by the first slot.
        for slot in self.slots:
            if not slot.is_retiring and not slot.is_given_up:
                return True
        return self._pool.serves_on

    @property
    def is_asleep(self) -> bool:
        """It has no worker because none was needed; a request may have one."""
        return (
            self.max_workers > 0
            and self.loads.failure is None
            and all(slot.is_retiring for slot in self.slots)
        )

    @property
    def is_loading(self) -> bool:
        """Workers are wanted, and none has ever loaded or failed to."""
        loads = self.loads
        return self.min_workers > 0 and not loads.has_ever_loaded and loads.failure is None

    @property
    def awaits_return(self) -> bool:
        """Whether a worker that our predecessor may have given jobs has not come back yet."""
        return any(worker.may_hold_unknown_jobs for worker in self.slots.workers())

    @property
    def is_settled(self) -> bool:
        """Every wanted worker is ready and every surplus one is gone."""
        if any(slot.is_retiring and not slot.is_replaced for slot in self.slots):
            return False
        return self.slots.ready_count >= self.min_workers

    def is_healthy(self, now: float) -> bool:
        """The peer's rule: enough workers that are not, or not too long, in recovery."""
        healthy = 0
        for slot in self.slots.staying:
            since = slot.record.recovery_since
            is_recovering = since is not None and not slot.is_ready
            if slot.is_given_up:
                continue
            if not is_recovering or (since is not None and now - since < self.spec.max_retry_s):
                healthy += 1
        return healthy >= self.min_workers

    # -- how many -------------------------------------------------------------

    def set_size(self, wanted: int, drain_s: float | None, now: float) -> None:
        """Have `wanted` slots: start what is missing, retire surplus from the end.

        Args:
            drain_s: How long a retired worker may take to finish what it
                holds; None for ever, 0 to kill it now.
        """
        for slot in self.slots:
            if slot.is_given_up or slot.restart_at is not None:
                # Somebody looks after it: what was learnt from deaths is old news.
                slot.is_given_up, slot.record, slot.restart_at = False, RestartRecord(), now
            elif slot.is_retiring and drain_s is not None and slot.worker is not None:
                # One that drains already gets no more time than the latest call allows.
                self._hurry(slot.worker, drain_s, now)
        # The same of why the last load failed.
        self.loads.failure = None
        self.succession.allow(now)
        self.inherit_more(wanted, now)
        self._have(wanted, youngest_first, drain_s, now)
        self._move_between_devices(now)

    def resize(self, wanted: int, now: float) -> None:
        """Have `wanted` slots because of the load, which forgives and hurries nobody."""
        # With `number_gpu` the first ones are those on GPUs.
        is_counted = self.spec.number_gpu is not None
        self._have(wanted, youngest_first if is_counted else least_needed, None, now)
        if not wanted:
            # What failed has been left behind; the next request is a new try.
            self.loads.failure = None

    def _have(
        self,
        wanted: int,
        in_order: Callable[[list[Slot]], list[Slot]],
        drain_s: float | None,
        now: float,
    ) -> None:
        """Add slots to the groups that are to have more, retire from those that are not."""
        staying = self.slots.staying
        counts = Counter(slot.device for slot in staying)
        shares = share_out(self.groups, counts, wanted)
        for device in {**dict.fromkeys(counts), **shares}:
            surplus = counts[device] - shares.get(device, 0)
            here = [slot for slot in staying if slot.device == device]
            for slot in in_order(here)[: max(0, surplus)]:
                self._retire(slot, drain_s, now)
            for _ in range(-surplus):
                fresh = self._supply.new_slot(now, device)
                fresh.restart_at = now
                self.slots.append(fresh)
        self._supply.start_due(now)

    def inherit_more(self, most: int, now: float) -> None:
        """Keep a predecessor's workers beyond those that are wanted at once, up to `most`."""
        while len(self.slots.staying) < most:
            inherited = self._supply.inherit(now, is_grouped=bool(self._groups))
            if inherited is None:
                return
            self.slots.append(inherited)

    def _move_between_devices(self, now: float) -> None:
        """Let a worker go that computes where `number_gpu` does not want it; another comes."""
        if self.spec.number_gpu is None:
            return
        for place, slot in enumerate(self.slots.staying):
            worker = slot.worker
            if worker is None or slot.is_renewing or slot.replaces is not None:
                continue
            is_on_gpu = worker.device is not None
            if is_on_gpu != self._supply.is_for_gpu(place):
                slot.is_renewing = True
                self._notes.add("info", "worker changes device", worker)
                self.ladder.drain(worker, None, now)

    def _retire(self, slot: Slot, drain_s: float | None, now: float) -> None:
        slot.is_retiring = True
        slot.restart_at = None
        successor = self.slots.successor_of(slot)
        if successor is not None and not successor.is_retiring:
            self._retire(successor, 0.0, now)
        if slot.worker is None:
            self.slots.remove(slot)
        else:
            self.ladder.drain(slot.worker, drain_s, now)

    def _hurry(self, worker: Worker, drain_s: float, now: float) -> None:
        if worker.state is WorkerState.DRAINING or self._pool.is_winding_down(worker):
            self.ladder.drain(worker, drain_s, now)

    # -- what workers say -----------------------------------------------------

    def came_back(self, worker: Worker, now: float) -> None:
        """It has lost its supervisor and found us; its model is as it was."""
        worker.is_awaited = False
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.BACK)
        worker.quiet_since = worker.loaded_at = now
        self.loads.adopted()
        took_s = round(now - worker.started_at, 3)
        self._notes.add("info", "worker adopted", worker, back_after_s=took_s)
        self._pool.join(worker)

    def hello(self, worker: Worker, now: float) -> None:
        """It runs; tell it what to load."""
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.HELLO)
        worker.quiet_since = now
        self._actions.append(SendLoad(worker.worker_id, self.spec, worker.device))

    def loaded(self, worker: Worker, now: float, flaw: str = "") -> None:
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.LOADED)
        worker.quiet_since = now
        worker.loaded_at = now
        took_s = now - worker.started_at
        self.loads.succeeded(took_s, flaw)
        if flaw:
            self._notes.add("error", "initialize failed", worker, last_line=flaw)
        self._notes.add("info", "worker ready", worker, load_s=round(took_s, 3))
        self._pool.join(worker)
        slot = self.slots.of(worker)
        if slot.replaces is not None:
            old, slot.replaces = slot.replaces, None
            old.is_replaced = True
            self._retire(old, None, now)

    def refuse(self, worker: Worker, failure: Failure) -> None:
        """It cannot be started, and no other could be; its end follows."""
        slot = self.slots.of(worker)
        slot.load_failure = failure
        worker.why_killed = worker.why_killed or LOAD_FAILED
        if slot.replaces is None:
            self._fail_to_load(worker, failure)

    def load_failed(self, worker: Worker, failure: Failure, now: float) -> None:
        """It says that it cannot load, and exits by itself."""
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.LOAD_FAILED)
        worker.signalled_at = now
        worker.why_killed = LOAD_FAILED
        slot = self.slots.of(worker)
        slot.load_failure = failure
        if slot.replaces is None:
            self._fail_to_load(worker, failure)
        # Else the old worker serves on; told when this one is gone.

    def _fail_to_load(self, worker: Worker, failure: Failure) -> None:
        if self.loads.is_news(failure):
            # Once per reason, however many workers find it out.
            self._notes.add("error", "load failed", worker, last_line=failure.last_line)
        self.loads.failed(failure)

    def measured(self, worker: Worker, memory_bytes: int, now: float) -> None:
        """How much memory it holds just now."""
        worker.memory_bytes = memory_bytes
        if worker.loaded_at is not None:
            self.worker_bytes = max(self.worker_bytes, memory_bytes)
        kill_bytes = self.spec.limits.kill_bytes
        if 0 < kill_bytes <= memory_bytes and worker.state is not WorkerState.DYING:
            mib = memory_bytes >> 20
            self._notes.add("error", "worker is too large and is killed", worker, memory_mib=mib)
            self.ladder.kill(worker, TOO_LARGE, now)

    # -- ends ------------------------------------------------------------------

    def exited(self, worker: Worker, how: Exit, now: float) -> None:
        """The process is gone, whatever the reason."""
        slot, why_killed = self.slots.of(worker), worker.why_killed
        self.lost_orphans += worker.may_hold_unknown_jobs
        worker.move(WorkerEvent.EXITED)
        slot.worker = None
        self._supply.release(worker)
        lost = self._pool.lose(
            worker,
            loss_of(why_killed, how),
            lambda attempts: error_of(self.spec, why_killed, how, attempts),
            f"{how.words}: {cause_of(why_killed, how)}",
            now,
        )
        if slot.is_retiring:
            self.slots.remove(slot)
            self._notes.add("info", "worker left", worker, exit=how.words)
        elif slot.is_renewing and why_killed in ("", RETIRED):
            slot.is_renewing, slot.restart_at = False, now
            self._notes.add("info", "worker left", worker, exit=how.words)
            self._supply.start_due(now)
        else:
            if why_killed != LOAD_FAILED:
                self.losses.note(worker, how, lost, now)
            if slot.replaces is not None:
                self.succession.lose_successor(slot, worker, how, now)
            else:
                self.losses.replace(slot, worker, how, now, is_explained=lost.is_explained)

    # -- time -----------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Everything that is due: restarts, silence, drains, signals that brought nothing."""
        self._supply.start_due(now)
        if self.spec.limits:
            self.succession.sweep(now)
        for worker in list(self.slots.workers()):
            self.ladder.sweep(worker, now)
