"""How a worker is made to end: politely first, then harder, and never forgotten.

    leave     finish what is in hand and exit        LEAVE_GRACE_S once nothing is
    cancel    the handler's `context.cancelled`      CANCEL_GRACE_S
    abort     SIGABRT: its stacks reach the log      ABORT_GRACE_S
    kill      SIGKILL, repeated until it is gone     KILL_AGAIN_S

One whose supervisor died has RETURN_GRACE_S to find us, and as long as its
batch or its load may take; how often its supervisor dies makes no difference.

Source: design section 4.
"""

from __future__ import annotations

from typing import Final

from stoker.supervisor.actions import Abort, Action, Kill, SendLeave
from stoker.supervisor.deaths import RETIRED, SILENT, silence_of
from stoker.supervisor.pools import Pool
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.worker_notes import WorkerNotes
from stoker.supervisor.workers import Worker, WorkerEvent, WorkerState

#: For a handler that is told that its time is up.
CANCEL_GRACE_S: Final = 1.0
#: Between SIGABRT, which writes the stack, and SIGKILL.
ABORT_GRACE_S: Final = 2.0
#: For a worker that holds nothing and was told to leave.
LEAVE_GRACE_S: Final = 10.0
#: For a worker that is well, to find the successor of its supervisor.
RETURN_GRACE_S: Final = 2.0
#: A SIGKILL that brought no exit is sent again; a process in an uninterruptible
#: driver call dies only when the call returns.
KILL_AGAIN_S: Final = 5.0


class Ladder:
    """For the workers of one version."""

    def __init__(
        self, spec: VersionSpec, pool: Pool, actions: list[Action], notes: WorkerNotes
    ) -> None:
        self._spec = spec
        self._pool = pool
        self._actions = actions
        self._notes = notes

    def drain(self, worker: Worker, drain_s: float | None, now: float) -> None:
        """Let it finish what it holds and leave; first of all the sequences that live in it.

        Args:
            drain_s: How long that may take; None for ever, 0: kill it now.
        """
        if drain_s is not None and drain_s <= 0:
            self.kill(worker, RETIRED, now)
        elif self._pool.winds_down(worker):
            self._limit_drain(worker, drain_s, now)
        else:
            self._leave(worker, drain_s, now)

    def _limit_drain(self, worker: Worker, drain_s: float | None, now: float) -> None:
        """It gets no more time than the shortest that was said."""
        if drain_s is not None:
            known = worker.drain_until
            worker.drain_until = now + drain_s if known is None else min(known, now + drain_s)

    def _leave(self, worker: Worker, drain_s: float | None, now: float) -> None:
        self._pool.retire(worker)
        if worker.state is WorkerState.DRAINING:
            self._limit_drain(worker, drain_s, now)
        elif worker.can(WorkerEvent.RETIRE):
            worker.move(WorkerEvent.RETIRE)
            worker.quiet_since = now if not worker.in_hand else worker.quiet_since
            worker.drain_until = None if drain_s is None else now + drain_s
            worker.is_told_to_leave = True
            self._actions.append(SendLeave(worker.worker_id))
        else:
            # Nothing is lost with a worker that has not loaded.
            self.kill(worker, RETIRED, now)

    def kill(self, worker: Worker, reason: str, now: float) -> None:
        """SIGKILL at once."""
        self._pool.retire(worker)
        worker.move(WorkerEvent.KILL)
        worker.why_killed = worker.why_killed or reason
        worker.signalled_at = now
        self._actions.append(Kill(worker.worker_id, reason))

    def out_of_reach(self, worker: Worker, now: float) -> None:
        """It hung up: almost always it is dead and we are about to hear.

        It gets nothing more.  If it is not gone soon it is killed, unless it
        hung up because it leaves: that has a grace of its own.
        """
        if worker.state is WorkerState.DRAINING and not worker.in_hand:
            return
        self._pool.retire(worker)
        if worker.state is not WorkerState.DYING:
            worker.move(WorkerEvent.KILL)
            worker.was_aborted = True
            worker.signalled_at = now

    # -- time -----------------------------------------------------------------

    def sweep(self, worker: Worker, now: float) -> None:
        """The next step for a worker that should have done something by now."""
        is_limited = self._spec.has_time_limits
        if worker.state is WorkerState.DYING:
            self._press(worker, now)
        elif worker.state in (WorkerState.STARTING, WorkerState.LOADING):
            if is_limited and now - worker.started_at > self._spec.startup_timeout_s:
                self._abort(worker, "no answer within startup_timeout", now)
        elif worker.state is WorkerState.AWAITED:
            if is_limited and self._is_overdue(worker, now):
                self._abort(worker, "did not come back to the next supervisor", now)
        elif worker.stalled_at is not None:
            if now - worker.stalled_at >= CANCEL_GRACE_S:
                self._abort(worker, SILENT, now)
        elif is_limited and self._is_silent(worker, now):
            self._stall(worker, now)
        elif worker.state is WorkerState.DRAINING and self._has_drained_too_long(worker, now):
            self.kill(worker, RETIRED, now)
        elif self._pool.is_winding_down(worker):
            self._wind_down(worker, now)

    def _is_overdue(self, worker: Worker, now: float) -> bool:
        spec = self._spec
        within_s = spec.startup_timeout_s if worker.loaded_at is None else spec.response_timeout_s
        is_late = now - worker.alone_since > within_s
        return is_late and now - worker.started_at > RETURN_GRACE_S

    def _is_silent(self, worker: Worker, now: float) -> bool:
        return bool(worker.in_hand) and now - worker.quiet_since > self._spec.response_timeout_s

    def _has_drained_too_long(self, worker: Worker, now: float) -> bool:
        if not worker.in_hand:
            return now - worker.quiet_since > LEAVE_GRACE_S
        return worker.drain_until is not None and now >= worker.drain_until

    def _wind_down(self, worker: Worker, now: float) -> None:
        """It leaves when its sequences have ended, or when it may not wait for them any longer."""
        is_late = worker.drain_until is not None and now >= worker.drain_until
        if is_late and worker.in_hand:
            self.kill(worker, RETIRED, now)
        elif is_late or self._pool.has_wound_down(worker):
            left_s = None if is_late or worker.drain_until is None else worker.drain_until - now
            self._leave(worker, left_s, now)

    def _stall(self, worker: Worker, now: float) -> None:
        """First it is asked: a handler that looks at `context.cancelled` spares us a restart."""
        spec = self._spec
        failed = self._pool.stall(worker, lambda attempts: silence_of(spec, attempts), now)
        self._notes.add(
            "warning",
            "handler is silent and told to stop",
            worker,
            response_timeout_s=spec.response_timeout_s,
            jobs_failed=failed,
        )

    def _abort(self, worker: Worker, reason: str, now: float) -> None:
        """SIGABRT first, so that the log shows where it hangs; SIGKILL a little later."""
        self._pool.retire(worker)
        worker.move(WorkerEvent.KILL)
        worker.why_killed = reason
        worker.was_aborted = True
        worker.signalled_at = now
        self._actions.append(Abort(worker.worker_id, reason))
        self._notes.add("warning", "worker is aborted", worker, why=reason)

    def _press(self, worker: Worker, now: float) -> None:
        assert worker.signalled_at is not None
        grace_s = ABORT_GRACE_S if worker.was_aborted else KILL_AGAIN_S
        if now - worker.signalled_at >= grace_s:
            worker.was_aborted = False
            worker.signalled_at = now
            worker.why_killed = worker.why_killed or "out of reach"
            self._actions.append(Kill(worker.worker_id, worker.why_killed))
