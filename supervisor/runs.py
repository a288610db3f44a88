r"""One run of a workflow: what each node of its graph is at.

    RUNNING --piece--> STREAMING          (the answer's node has sent its first piece)
       |  \               |
       |   +--complete----+--> COMPLETED
       |   +--fail--------+--> FAILED     (a node failed, as often as it was tried)
       |   +--expire------+--> EXPIRED
       +------cancel------+--> CANCELLED

    a node:  WAITING --call--> CALLED --answer--> ANSWERED
                                | ^ \--give up--> GIVEN_UP
                                +-+ (again)

A run ends exactly once: its four ends have no way out.  It knows nothing of
queues and workers; `workflow_runs.py` makes jobs of its calls.
"""

from __future__ import annotations

import enum
from typing import Final

from stoker.archives.graph import CLIENT, Graph, GraphNode, NodeInput
from stoker.supervisor.jobs import ImpossibleMove
from stoker.wire.frames import FRONTEND_ID_BYTES
from stoker.wire.node_calls import NodePart, PartKind, WorkflowRequest, pack_node_request


class RunState(enum.Enum):
    RUNNING = "running"
    STREAMING = "streaming"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class RunEvent(enum.Enum):
    PIECE = "piece"
    COMPLETE = "complete"
    FAIL = "fail"
    EXPIRE = "expire"
    CANCEL = "cancel"


_ENDS: Final = {
    RunEvent.COMPLETE: RunState.COMPLETED,
    RunEvent.FAIL: RunState.FAILED,
    RunEvent.EXPIRE: RunState.EXPIRED,
    RunEvent.CANCEL: RunState.CANCELLED,
}
RUN_MOVES: Final[dict[RunState, dict[RunEvent, RunState]]] = {
    RunState.RUNNING: {RunEvent.PIECE: RunState.STREAMING, **_ENDS},
    RunState.STREAMING: {RunEvent.PIECE: RunState.STREAMING, **_ENDS},
    RunState.COMPLETED: {},
    RunState.FAILED: {},
    RunState.EXPIRED: {},
    RunState.CANCELLED: {},
}


class StepState(enum.Enum):
    WAITING = "waiting"
    CALLED = "called"
    ANSWERED = "answered"
    GIVEN_UP = "given up"


class StepEvent(enum.Enum):
    CALL = "call"
    ANSWER = "answer"
    GIVE_UP = "give up"


STEP_MOVES: Final[dict[StepState, dict[StepEvent, StepState]]] = {
    StepState.WAITING: {StepEvent.CALL: StepState.CALLED, StepEvent.GIVE_UP: StepState.GIVEN_UP},
    StepState.CALLED: {
        StepEvent.CALL: StepState.CALLED,
        StepEvent.ANSWER: StepState.ANSWERED,
        StepEvent.GIVE_UP: StepState.GIVEN_UP,
    },
    StepState.ANSWERED: {},
    StepState.GIVEN_UP: {},
}


class Step:
    """What one node of a run is at.

    Attributes:
        tries: Calls so far.
        call_id: Of the latest call.
        frames: Its answer, usually one frame; emptied when nobody needs it any more.
        waits_for: Parents that have not answered.
        readers: Children that have not answered.
    """

    __slots__ = ("call_id", "frames", "readers", "state", "tries", "waits_for")

    def __init__(self, waits_for: int, readers: int) -> None:
        self.state = StepState.WAITING
        self.tries = 0
        self.call_id = b""
        self.frames: list[bytes] = []
        self.waits_for = waits_for
        self.readers = readers

    def move(self, event: StepEvent) -> None:
        """Raises ImpossibleMove if the table knows no such move."""
        try:
            self.state = STEP_MOVES[self.state][event]
        except KeyError:
            raise ImpossibleMove(f"a {self.state.value} node cannot {event.value}") from None


class Run:
    """One request's way through a graph.

    Attributes:
        job_id: The client's.
        deadline: Of the whole run, and so of each of its calls.
        held_bytes: Of the request and of answers that are still needed.
    """

    __slots__ = (
        "deadline",
        "flags",
        "graph",
        "held_bytes",
        "job_id",
        "request",
        "started_at",
        "state",
        "steps",
    )

    def __init__(
        self,
        job_id: bytes,
        graph: Graph,
        request: WorkflowRequest,
        deadline: float,
        flags: int,
        now: float,
    ) -> None:
        self.job_id = job_id
        self.graph = graph
        self.request = request
        self.deadline = deadline
        self.flags = flags
        self.started_at = now
        self.held_bytes = 0
        self.state = RunState.RUNNING
        pairs = zip(graph.parents, graph.children, strict=True)
        self.steps = [Step(len(parents), len(children)) for parents, children in pairs]

    def move(self, event: RunEvent) -> None:
        """Raises ImpossibleMove if the table knows no such move."""
        try:
            self.state = RUN_MOVES[self.state][event]
        except KeyError:
            raise ImpossibleMove(f"a {self.state.value} run cannot {event.value}") from None

    @property
    def has_ended(self) -> bool:
        return not RUN_MOVES[self.state]

    @property
    def first(self) -> list[int]:
        """Nodes that wait for no other."""
        return [index for index, parents in enumerate(self.graph.parents) if not parents]

    @property
    def called(self) -> list[Step]:
        """Nodes whose answers are awaited."""
        return [step for step in self.steps if step.state is StepState.CALLED]

    @property
    def is_answered(self) -> bool:
        """Everything that the client is to get is here."""
        return all(self.steps[out].state is StepState.ANSWERED for out in self.graph.outputs)

    def is_only_output(self, index: int) -> bool:
        return self.graph.outputs == (index,)

    def node(self, index: int) -> GraphNode:
        return self.graph.nodes[index]

    def answer(self, index: int, frame: bytes) -> list[int]:
        """A node has had its last word.  Returns the nodes that have all they wait for now."""
        step = self.steps[index]
        step.move(StepEvent.ANSWER)
        step.frames.append(frame)
        ready = []
        for child in self.graph.children[index]:
            waiting = self.steps[child]
            waiting.waits_for -= 1
            if not waiting.waits_for:
                ready.append(child)
        return ready

    def let_go(self, index: int) -> int:
        """Forget what only this node has read, as it has answered.  Returns the bytes."""
        freed = 0
        for parent in self.graph.parents[index]:
            step = self.steps[parent]
            step.readers -= 1
            if not step.readers and parent not in self.graph.outputs:
                freed += sum(map(len, step.frames))
                step.frames.clear()
        return freed

    def payload(self, index: int) -> bytes:
        """What the worker of a node's call gets."""
        parts = [self._part(item) for item in self.graph.nodes[index].inputs]
        return pack_node_request(self.job_id[:FRONTEND_ID_BYTES], self.request, parts)

    def _part(self, item: NodeInput) -> NodePart:
        source = item.source
        if isinstance(source, str):
            return NodePart(item.name, PartKind.TEXT.value, source)
        if source == CLIENT:
            return NodePart(item.name, PartKind.INPUT.value, self.request.parameters)
        frames = self.steps[source].frames
        kind = PartKind.TYPED_ANSWER if item.keeps_type else PartKind.ANSWER
        return NodePart(item.name, kind.value, frames[0] if len(frames) == 1 else frames)
