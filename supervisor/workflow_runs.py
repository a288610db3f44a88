"""Runs of workflows: a request for a workflow becomes calls of its nodes.

A call is an ordinary job of the model it is for, with an id that says it is
ours (`CALL_MARK`); so batching, deadlines, cancelling and what happens when
workers die are what they are for every job.  What ends a call is `heard`: an
answer frame or an error.  Frames go on as they came: into the payload of the
next call, or under the client's job id to its frontend.

Pure, as the engine is: told the time, asked for nothing but actions.

Source: docs/workflows.md; contracts/torchserve.md 4.3, djl-serving.md 8.
"""

from __future__ import annotations

from typing import Final, Protocol

from stoker.errors import (
    BadHandlerResult,
    ProtocolError,
    QueueFull,
    ShuttingDown,
    StokerError,
    TooManyRequests,
)
from stoker.shares import Budget
from stoker.supervisor.actions import Action, Forward, Refuse
from stoker.supervisor.jobs import ALONE, ENDS_IN_HAND, Heard
from stoker.supervisor.node_failures import is_late, may_try_again, told_of
from stoker.supervisor.runs import Run, RunEvent, StepEvent
from stoker.supervisor.workflows import Workflow, Workflows
from stoker.wire.frames import (
    CALL_MARK,
    FRONTEND_ID_BYTES,
    JOB_ID_BYTES,
    AnswerKind,
    SubmittedJob,
)
from stoker.wire.node_calls import (
    answer_kind,
    answer_status,
    pack_parts,
    read_error,
    readdress,
    readdress_failure,
    split_request,
)

#: The first status of an answer that says what went wrong.
FAILED_STATUS: Final = 400


class Queues(Protocol):
    """The engine, as runs need it."""

    @property
    def is_stopping(self) -> bool: ...

    def submit(self, job: SubmittedJob, now: float) -> None:
        """What refuses a call is heard, not raised."""
        ...

    def cancel(self, job_id: bytes, now: float) -> None: ...

    def holds(self, job_id: bytes) -> bool: ...

    def places(self, model: str, version: str | None) -> int: ...


class WorkflowRuns:
    """All that have not ended.

    Args:
        heard: What ended calls since the last `advance`; the pools fill it.
        budget: What the payloads of all pools and runs may take.
    """

    def __init__(
        self,
        workflows: Workflows,
        queues: Queues,
        actions: list[Action],
        heard: list[Heard],
        budget: Budget,
    ) -> None:
        self.live: dict[bytes, Run] = {}
        self._workflows = workflows
        self._queues = queues
        self._actions = actions
        self._heard = heard
        self._budget = budget
        self._owners: dict[bytes, Workflow] = {}
        #: By the id of a call that is awaited: the run, and the index of the node.
        self._calls: dict[bytes, tuple[Run, int]] = {}
        self._count = 0

    # -- requests -------------------------------------------------------------

    def submit(self, job: SubmittedJob, now: float) -> None:
        """Begin a run, or refuse it; one that is here already goes on."""
        job_id, _, _, deadline, flags, payload = job
        if job_id in self.live:
            return
        try:
            if self._queues.is_stopping:
                raise ShuttingDown("The server is stopping; try another one.")
            workflow = self._workflows.asked(job)
            request = split_request(payload)
            workflow.requests += 1
            self._check_room(workflow, len(payload))
        except StokerError as error:
            self._actions.append(Refuse(job_id, error))
            return
        run = Run(job_id, workflow.graph, request, deadline, flags, now)
        self.live[job_id] = run
        self._owners[job_id] = workflow
        workflow.live += 1
        self._count_held(run, len(payload))
        for index in run.first:
            self._call(run, index, now)

    def _check_room(self, workflow: Workflow, size: int) -> None:
        """Refuse at the door what would find a queue full half-way, when work has been done.

        Raises:
            QueueFull, TooManyRequests: Nothing was taken.
        """
        name = workflow.key.model
        nodes = workflow.graph.nodes
        # A model that is not there says so itself.
        known = [self._queues.places(node.model, node.version) for node in nodes]
        if workflow.live >= min((most for most in known if most), default=1):
            raise QueueFull(
                f"The queues of workflow {name} are full; try again later.",
                model=name,
                version=None,
                capacity=workflow.live,
            )
        if not self._budget.take(size, workflow.held_bytes):
            raise _too_much(name)

    def cancel(self, job_id: bytes, now: float) -> bool:
        """The client left.  False: it is no run, or none that has not ended."""
        run = self.live.get(job_id)
        if run is None:
            return False
        self._end(run, RunEvent.CANCEL, now)
        return True

    def forget_frontend(self, frontend_id: bytes, now: float) -> None:
        """A frontend process is gone and its clients with it."""
        for job_id in [j for j in self.live if j[:FRONTEND_ID_BYTES] == frontend_id]:
            self.cancel(job_id, now)

    def advance(self, now: float) -> None:
        """Take in what was heard, until nothing new comes of it."""
        while self._heard:
            heard = self._heard[:]
            self._heard.clear()
            for call_id, what in heard:
                self._hear(call_id, what, now)

    def sweep(self, now: float) -> None:
        """A worker may say that a call has ended, and not how."""
        self.advance(now)
        for call_id in [c for c in self._calls if not self._queues.holds(c)]:
            entry = self._calls.get(call_id)
            if entry is not None:
                unanswered = BadHandlerResult("The worker left the request unanswered.")
                self._fail(*entry, unanswered, now)

    def models_in_use(self) -> set[str]:
        """Those that runs still have need of."""
        graphs = {id(run.graph): run.graph for run in self.live.values()}
        return {node.model for graph in graphs.values() for node in graph.nodes}

    # -- calls ----------------------------------------------------------------

    def _call(self, run: Run, index: int, now: float) -> None:
        node, step = run.node(index), run.steps[index]
        self._count += 1
        call_id = _call_id(self._count)
        deadline, flags = run.deadline, run.flags & (ALONE | ENDS_IN_HAND)
        if node.timeout_s is not None and now + node.timeout_s < deadline:
            deadline, flags = now + node.timeout_s, flags | ENDS_IN_HAND
        step.move(StepEvent.CALL)
        step.call_id = call_id
        step.tries += 1
        self._calls[call_id] = (run, index)
        payload = run.payload(index)
        job = SubmittedJob(call_id, node.model, node.version, deadline, flags, payload)
        self._queues.submit(job, now)

    def _hear(self, call_id: bytes, what: bytes | StokerError, now: float) -> None:
        entry = self._calls.get(call_id)
        if entry is None:
            return  # its run has ended, or it was tried again meanwhile
        run, index = entry
        if isinstance(what, StokerError):
            self._fail(run, index, what, now)
            return
        try:
            kind = answer_kind(what, call_id)
            if kind is AnswerKind.ERROR:
                self._fail(run, index, read_error(what), now)
                return
            if kind is AnswerKind.PARTS:
                raise ProtocolError("a node cannot answer in parts")
            if kind is AnswerKind.FINAL and run.node(index).fails_by_status:
                status = answer_status(what)
                if status >= FAILED_STATUS:
                    self._fail_by_status(run, index, what, status, now)
                    return
        except ProtocolError as error:
            self._fail(run, index, BadHandlerResult(error.message), now)
            return
        if kind is AnswerKind.CHUNK:
            self._take_piece(run, index, what, now)
        else:
            self._answer(run, index, what, now)

    def _take_piece(self, run: Run, index: int, frame: bytes, now: float) -> None:
        """Of a node that streams: the last one's go on to the client, others' are gathered."""
        if run.is_only_output(index):
            run.move(RunEvent.PIECE)
            self._forward(run, frame)
        elif self._hold(run, len(frame), now):
            run.steps[index].frames.append(frame)

    def _answer(self, run: Run, index: int, frame: bytes, now: float) -> None:
        del self._calls[run.steps[index].call_id]
        if run.is_only_output(index):
            run.answer(index, b"")
            self._forward(run, frame)
            self._end(run, RunEvent.COMPLETE, now)
            return
        if not self._hold(run, len(frame), now):
            return
        ready = run.answer(index, frame)
        self._give_back(run, run.let_go(index))
        if run.is_answered:
            named = [
                (run.node(out).name, each)
                for out in run.graph.outputs
                for each in run.steps[out].frames
            ]
            whole = pack_parts(run.job_id, named)
            self._actions.append(Forward(run.job_id[:FRONTEND_ID_BYTES], whole))
            self._end(run, RunEvent.COMPLETE, now)
            return
        for child in ready:
            self._call(run, child, now)

    def _fail(self, run: Run, index: int, error: StokerError, now: float) -> None:
        """A call has ended with an error: try again, or end the run."""
        step = run.steps[index]
        self._calls.pop(step.call_id, None)
        may_again = may_try_again(run, index, error, now)
        self._note_failure(run, index, error.message or error.code, again=may_again)
        if may_again:
            self._give_back(run, sum(map(len, step.frames)))
            step.frames.clear()
            self._call(run, index, now)
            return
        step.move(StepEvent.GIVE_UP)
        told = told_of(run, index, error, self._owners[run.job_id].key.model, now)
        event = RunEvent.EXPIRE if is_late(run, error, now) else RunEvent.FAIL
        self._end_with(run, event, told, now)

    def _fail_by_status(self, run: Run, index: int, frame: bytes, status: int, now: float) -> None:
        """The node's handler has told the client what went wrong; we tell where.

        Raises:
            ProtocolError: The frame is no answer.
        """
        node, step = run.node(index), run.steps[index]
        told = readdress_failure(frame, run.job_id, node.name)
        self._calls.pop(step.call_id, None)
        workflow = self._owners[run.job_id]
        self._note_failure(run, index, f"answered with status {status}", again=False)
        step.move(StepEvent.GIVE_UP)
        workflow.failures += 1
        self._end(run, RunEvent.FAIL, now)
        self._actions.append(Forward(run.job_id[:FRONTEND_ID_BYTES], told))

    def _note_failure(self, run: Run, index: int, reason: str, *, again: bool) -> None:
        self._actions.append(
            self._owners[run.job_id].note(
                "warning",
                "workflow node failed",
                node=run.node(index).name,
                request_id=run.request.request_id,
                tries=run.steps[index].tries,
                reason=reason,
                again=again,
            )
        )

    # -- ends -----------------------------------------------------------------

    def _end_with(self, run: Run, event: RunEvent, error: StokerError, now: float) -> None:
        self._owners[run.job_id].failures += 1
        self._end(run, event, now)
        self._actions.append(Refuse(run.job_id, error))

    def _end(self, run: Run, event: RunEvent, now: float) -> None:
        run.move(event)
        for step in run.called:
            step.move(StepEvent.GIVE_UP)
            if self._calls.pop(step.call_id, None) is not None:
                self._queues.cancel(step.call_id, now)
        del self.live[run.job_id]
        workflow = self._owners.pop(run.job_id)
        workflow.live -= 1
        workflow.held_bytes -= run.held_bytes
        self._budget.give_back(run.held_bytes)
        workflow.tell_waiters(self._actions)

    def _forward(self, run: Run, frame: bytes) -> None:
        frontend_id = run.job_id[:FRONTEND_ID_BYTES]
        self._actions.append(Forward(frontend_id, readdress(frame, run.job_id)))

    # -- memory ---------------------------------------------------------------

    def _hold(self, run: Run, size: int, now: float) -> bool:
        """Keep an answer for the nodes that need it; without room the run ends."""
        workflow = self._owners[run.job_id]
        if not self._budget.take(size, workflow.held_bytes):
            self._end_with(run, RunEvent.FAIL, _too_much(workflow.key.model), now)
            return False
        self._count_held(run, size)
        return True

    def _count_held(self, run: Run, size: int) -> None:
        run.held_bytes += size
        self._owners[run.job_id].held_bytes += size

    def _give_back(self, run: Run, size: int) -> None:
        if size:
            self._count_held(run, -size)
            self._budget.give_back(size)


def _call_id(number: int) -> bytes:
    """Its first half is what workers group answers by, so it is another one for each call."""
    unique = number.to_bytes(FRONTEND_ID_BYTES - 1, "big")
    return bytes([CALL_MARK]) + unique + bytes(JOB_ID_BYTES - FRONTEND_ID_BYTES)


def _too_much(name: str) -> TooManyRequests:
    return TooManyRequests("Too many requests are in memory; try again later.", model=name)
