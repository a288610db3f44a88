"""Runs of workflows against the real engine: what clients are promised, whatever nodes do."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.archives.graph import CLIENT, Graph, GraphNode, NodeInput
from stoker.errors import HandlerFailed, StokerError
from stoker.supervisor import actions as a
from stoker.supervisor.runs import RUN_MOVES, STEP_MOVES, Run, RunEvent, RunState
from stoker.supervisor.versions import VersionKey
from stoker.wire import packing
from stoker.wire.frames import Group, JobFlag, Reply
from stoker.wire.node_calls import WorkflowRequest
from stoker.wire.payloads import (
    Answer,
    AnswerKind,
    Parameter,
    pack_answers,
    pack_request,
    unpack_answers,
    unpack_parts,
)
from stoker.worker.request import Request

WORKFLOW = int(JobFlag.WORKFLOW)
KEY = VersionKey("flow", "1.0")


def graph_of(edges: Sequence[Sequence[int]], outputs: Sequence[int] = (), **about: Any) -> Graph:
    """Node i takes the answers of `edges[i]`; each is a model of its own, `m<i>`."""
    nodes = []
    for index, parents in enumerate(edges):
        inputs = [NodeInput(f"m{parent}", parent) for parent in parents]
        nodes.append(
            GraphNode(
                f"n{index}",
                f"m{index}",
                None,
                tuple(inputs) or (NodeInput("", CLIENT),),
                **about,
            )
        )
    leaves = set(range(len(edges))) - {parent for parents in edges for parent in parents}
    return Graph(tuple(nodes), tuple(outputs or sorted(leaves)))


DIAMOND = graph_of([[], [0], [0], [1, 2]])
CHAIN = graph_of([[], [0]])


class Rig:
    """A stage with one workflow and a worker for each of its models."""

    def __init__(self, stage: Any, graph: Graph, **spec: Any) -> None:
        self.stage = stage
        self.graph = graph
        self.keys = {node.model: stage.serve(node.model, **spec) for node in graph.nodes}
        stage.engine.workflows.register(KEY, graph, {})
        stage.forget()
        self._payload = pack_request("rid", b"a\nb", [Parameter("body", "", b"in")])

    def submit(self, **options: Any) -> bytes:
        options = {"flags": WORKFLOW, "body": self._payload, **options}
        return self.stage.submit("flow", "", **options)

    def worker_of(self, model: str) -> Any:
        (worker_id,) = self.stage.alive(self.keys[model])
        return self.stage.worker(worker_id)

    def waits(self, model: str) -> list[Any]:
        """Jobs that the model's worker has in hand."""
        worker = self.worker_of(model)
        return [job for batch in worker.in_hand for job in batch.jobs]

    def called(self) -> list[str]:
        return [model for model in self.keys if self.waits(model)]

    def answer(
        self,
        model: str,
        body: bytes = b"out",
        kind: AnswerKind = AnswerKind.FINAL,
        error: StokerError | None = None,
    ) -> Request:
        """The model's worker answers the batch in hand; returns what its handler saw."""
        worker = self.worker_of(model)
        batch = worker.in_hand[0]
        seen = Request(batch.jobs[0].payload)
        groups = []
        for job in batch.jobs:
            made = Answer(
                job.job_id,
                AnswerKind.ERROR if error else kind,
                200,
                "",
                "text/x",
                [],
                body,
                error,
            )
            groups.append(Group(job.job_id[:8], pack_answers([made])))
        is_last = kind is not AnswerKind.CHUNK
        ended = [job.job_id for job in batch.jobs] if is_last else []
        self.stage.reply(worker.worker_id, Reply(batch.batch_id, is_last, ended, groups))
        return seen

    def outcome(self, job_id: bytes) -> list[Answer]:
        """What the client was sent, in order."""
        frames = [x.frame for x in self.stage.took(a.Forward) if x.frontend_id == job_id[:8]]
        answers = [answer for frame in frames for answer in unpack_answers(frame)]
        return [answer for answer in answers if answer.job_id == job_id]


@pytest.fixture
def rig(stage):
    def make(graph: Graph = DIAMOND, **spec: Any) -> Rig:
        return Rig(stage, graph, **spec)

    return make


# -- the usual way ------------------------------------------------------------------


def test_a_diamond_calls_both_branches_at_once_and_joins_them(rig):
    """
    Branches that know nothing of each other must not wait for each other.
    """
    flow = rig()
    job_id = flow.submit()
    assert flow.called() == ["m0"]

    first = flow.answer("m0", b"zero")
    assert flow.called() == ["m1", "m2"]
    flow.answer("m2", b"two")
    flow.answer("m1", b"one")
    seen = flow.answer("m3", b"three")

    assert first.parameters() == [("body", "", b"in")]
    assert seen.parameters() == [("m1", "", b"one"), ("m2", "", b"two")]
    assert (seen.request_id, seen.headers["a"]) == ("rid", "b")
    (answer,) = flow.outcome(job_id)
    assert (answer.kind, answer.body, answer.content_type) == (
        AnswerKind.FINAL,
        b"three",
        "text/x",
    )
    assert flow.stage.engine.job_count == 0
    assert flow.stage.engine.payload_bytes == 0


def test_several_outputs_come_together_under_their_names(rig):
    """
    The frontend makes one document of them; the supervisor reads none.
    """
    flow = rig(graph_of([[], [0], [0]]))
    job_id = flow.submit()
    flow.answer("m0")
    flow.answer("m1", b"1")

    assert not flow.outcome(job_id)
    flow.answer("m2", b"2")

    (answer,) = flow.outcome(job_id)
    assert answer.kind is AnswerKind.PARTS
    assert unpack_parts(answer.body) == [("n1", b"1"), ("n2", b"2")]


def test_pieces_of_the_last_node_reach_the_client_as_they_come(rig):
    """
    A text that is being written is worth more than one that is finished.
    """
    flow = rig(CHAIN)
    job_id = flow.submit()
    flow.answer("m0")

    flow.answer("m1", b"he", AnswerKind.CHUNK)
    flow.answer("m1", b"llo", AnswerKind.FINAL)

    kinds = [(answer.kind, answer.body) for answer in flow.outcome(job_id)]
    assert kinds == [(AnswerKind.CHUNK, b"he"), (AnswerKind.FINAL, b"llo")]


def test_pieces_of_a_node_in_the_middle_are_one_answer_for_the_next(rig):
    """
    A node's input is what its parent said, however it said it.
    """
    flow = rig(CHAIN)
    flow.submit()
    flow.answer("m0", b"he", AnswerKind.CHUNK)
    flow.answer("m0", b"llo", AnswerKind.FINAL)

    seen = flow.answer("m1")

    assert seen.parameters() == [("m0", "", b"hello")]


def test_calls_of_two_runs_share_a_batch(rig):
    """
    Nodes are models like all others: batching applies.
    """
    flow = rig(CHAIN, batch_size=2, delay_s=10.0)
    one, two = flow.submit(), flow.submit()
    assert len(flow.waits("m0")) == 2

    flow.answer("m0", b"x")
    assert len(flow.waits("m1")) == 2
    flow.answer("m1", b"y")

    assert [len(flow.outcome(job)) for job in (one, two)] == [1, 1]


# -- errors -------------------------------------------------------------------------


def test_a_failing_node_is_named_with_the_request(rig):
    """
    Who reads a log of a graph of ten models asks first which one it was.
    """
    flow = rig()
    job_id = flow.submit()
    flow.answer("m0")
    flow.answer("m1", error=HandlerFailed("Prediction failed", status=418))

    error = flow.stage.refusal(job_id)

    assert error.code == "workflow_node_failed"
    assert {**error.details, "reason": ""} == {
        "workflow": "flow",
        "node": "n1",
        "request_id": "rid",
        "tries": 1,
        "cause": "handler_failed",
        "reason": "",
        "status": 418,
    }
    assert flow.stage.took(a.SendDrop), "the other branch is called off"
    assert flow.stage.engine.job_count == 0


def test_a_node_is_tried_as_often_as_its_workflow_says(rig):
    """
    `retry-attempts` counts tries after the first (4.3).
    """
    flow = rig(graph_of([[], [0]], retries=2))
    job_id = flow.submit()
    flow.answer("m0")
    for _ in range(2):
        flow.answer("m1", error=HandlerFailed("no"))
        assert job_id not in flow.stage.refused

    flow.answer("m1", error=HandlerFailed("no"))

    assert flow.stage.refusal(job_id).details["tries"] == 3


def test_a_try_that_takes_too_long_is_given_up_and_another_made(rig):
    """
    `timeout-ms` is each try's; its worker is told, and what it still says is not heard.
    """
    flow = rig(graph_of([[]], retries=1, timeout_s=2.0), workers=1)
    job_id = flow.submit()
    first = flow.waits("m0")[0].job_id

    flow.stage.advance(2.5)
    assert [[first]] == [drop.job_ids for drop in flow.stage.took(a.SendDrop)]
    flow.answer("m0", b"late")
    assert not flow.outcome(job_id)
    flow.answer("m0", b"in time")

    assert [answer.body for answer in flow.outcome(job_id)] == [b"in time"]


def test_one_deadline_holds_for_the_whole_graph(rig):
    """
    Nobody waits three times as long because three models are asked.
    """
    flow = rig(graph_of([[], [0]], retries=5))
    job_id = flow.submit(deadline_s=1.0, flags=WORKFLOW | int(JobFlag.ENDS_IN_HAND))
    flow.stage.advance(0.8)
    flow.answer("m0")

    flow.stage.advance(0.6)

    error = flow.stage.refusal(job_id)
    assert (error.code, error.details["node"]) == ("deadline_exceeded", "n1")


def test_a_client_that_leaves_calls_off_every_branch(rig):
    """
    What nobody waits for costs nothing.
    """
    flow = rig()
    job_id = flow.submit()
    flow.answer("m0")
    waiting = {flow.waits(model)[0].job_id for model in ("m1", "m2")}

    flow.stage.cancel(job_id)

    dropped = {job for drop in flow.stage.took(a.SendDrop) for job in drop.job_ids}
    assert dropped == waiting
    flow.answer("m1")
    flow.answer("m2")
    assert not flow.called()
    assert not flow.outcome(job_id)
    assert not flow.stage.refused


def test_a_worker_that_dies_is_not_the_nodes_failure(rig):
    """
    What holds for a job of a model holds for a call: it is tried again by another worker.
    """
    flow = rig(CHAIN, max_attempts=2)
    job_id = flow.submit()
    worker_id = flow.worker_of("m0").worker_id

    flow.stage.exit(worker_id, "signal 9")
    (again,) = flow.stage.alive(flow.keys["m0"])
    flow.stage.load(again)
    flow.answer("m0")
    flow.answer("m1", b"done")

    assert [answer.body for answer in flow.outcome(job_id)] == [b"done"]
    assert not flow.stage.took(a.Retry), "there is no frontend of that id"


def test_a_worker_cannot_answer_for_another_ones_call(rig):
    """
    Handlers are user code; ids of calls are easy to guess.
    """
    flow = rig(graph_of([[], [0], [0], [1, 2]]))
    job_id = flow.submit()
    flow.answer("m0")
    victim = flow.waits("m2")[0].job_id
    worker = flow.worker_of("m1")
    forged = pack_answers([Answer(victim, AnswerKind.FINAL, 200, "", None, [], b"ha")])
    batch = worker.in_hand[0]

    flow.stage.reply(
        worker.worker_id, Reply(batch.batch_id, False, [], [Group(victim[:8], forged)])
    )
    flow.answer("m1")

    assert flow.called() == ["m2"]
    assert not flow.outcome(job_id)


@pytest.mark.parametrize("frame", [b"", b"\x97\xc4\x10", b"garbage that is long enough to look at"])
def test_a_frame_that_is_no_answer_fails_its_node(rig, frame):
    """
    A worker that lies must not stop the supervisor, nor leave a client waiting.
    """
    flow = rig(CHAIN)
    job_id = flow.submit()
    worker = flow.worker_of("m0")
    job = worker.in_hand[0].jobs[0]
    reply = Reply(worker.in_hand[0].batch_id, True, [job.job_id], [Group(job.job_id[:8], frame)])

    flow.stage.reply(worker.worker_id, reply)

    assert flow.stage.refusal(job_id).details["cause"] == "bad_handler_result"


def test_a_call_that_ended_without_an_answer_fails_its_node(rig):
    """
    The batch says that it is done; nobody would wait for ever.
    """
    flow = rig(CHAIN)
    job_id = flow.submit()
    worker = flow.worker_of("m0")
    batch = worker.in_hand[0]

    flow.stage.reply(worker.worker_id, Reply(batch.batch_id, True, [batch.jobs[0].job_id], []))
    flow.stage.advance(1.0)

    assert flow.stage.refusal(job_id).details["cause"] == "bad_handler_result"


def test_a_workflow_takes_no_more_runs_than_its_smallest_queue_has_room_for(rig):
    """
    Refused at the door, not half-way when work has been done for it.
    """
    flow = rig(CHAIN, queue_capacity=2)
    taken = [flow.submit() for _ in range(3)]

    refused = flow.submit()

    assert flow.stage.refused == {refused: "queue_full"}
    assert len(taken) == 3


@pytest.mark.parametrize(("name", "version"), [("other", ""), ("flow", "7")])
def test_an_unknown_workflow_is_said_to_be_unknown(rig, name, version):
    """
    A model of that name does not count.
    """
    flow = rig(CHAIN)
    flow.stage.serve("other")

    job_id = flow.stage.submit(name, version, flags=WORKFLOW)

    assert flow.stage.refused == {job_id: "workflow_not_found"}


def test_a_payload_that_is_none_of_a_workflow_is_refused(rig):
    """
    Frontends are not trusted.
    """
    flow = rig(CHAIN)

    job_id = flow.submit(body=packing.pack([1, 2]))

    assert flow.stage.refused == {job_id: "protocol"}


# -- coming and going ---------------------------------------------------------------


def test_a_stop_lets_runs_go_on_to_their_end(rig):
    """
    What was accepted is answered, also by nodes that had nothing to do when the stop came.
    """
    flow = rig(CHAIN)
    job_id = flow.submit()
    flow.stage.stop()
    refused = flow.submit()

    flow.answer("m0")
    flow.answer("m1", b"done")

    assert [answer.body for answer in flow.outcome(job_id)] == [b"done"]
    assert flow.stage.refused == {refused: "shutting_down"}


def test_a_workflow_that_leaves_finishes_its_runs(rig):
    """
    Whoever unregisters it hears when the last one has ended.
    """
    flow = rig(CHAIN)
    job_id = flow.submit()
    flow.stage.engine.workflows.unregister(KEY, "gone")
    flow.stage.end_turn()
    assert flow.stage.resolved == {}

    flow.answer("m0")
    flow.answer("m1", b"done")

    assert len(flow.outcome(job_id)) == 1
    assert flow.stage.resolved == {"gone": {}}


def test_a_run_that_is_sent_again_is_the_same_run(rig):
    """
    A frontend repeats what is unanswered when it has met a new supervisor.
    """
    flow = rig(CHAIN)
    job_id = flow.submit()

    flow.submit(job_id=job_id, flags=WORKFLOW | int(JobFlag.SENT_AGAIN))

    assert len(flow.waits("m0")) == 1


def test_a_dead_supervisors_run_is_begun_again_if_its_handlers_may_be_asked_twice(rig):
    """
    As for a plain request.
    """
    flow = rig(CHAIN, max_attempts=2)

    flow.submit(flags=WORKFLOW | int(JobFlag.SENT_AGAIN))

    assert flow.called() == ["m0"]


def test_a_dead_supervisors_run_is_refused_if_a_handler_must_not_be_asked_twice(rig):
    """
    As for a plain request.
    """
    flow = rig(CHAIN, max_attempts=1)

    job_id = flow.submit(flags=WORKFLOW | int(JobFlag.SENT_AGAIN))

    assert flow.stage.refused == {job_id: "worker_died"}


# -- the tables -----------------------------------------------------------------------


def test_an_ended_run_has_no_way_on():
    """
    A run ends exactly once.
    """
    run = Run(b"j" * 16, CHAIN, WorkflowRequest("r", b"", b""), 1.0, 0, 0.0)
    run.move(RunEvent.FAIL)

    assert run.has_ended
    for event in RunEvent:
        with pytest.raises(AssertionError):
            run.move(event)


def test_every_state_is_in_its_table():
    """
    A word that no table knows would be found on the worst of days.
    """
    assert set(RUN_MOVES) == set(RunState)
    for moves in (RUN_MOVES, STEP_MOVES):
        assert {state for row in moves.values() for state in row.values()} <= set(moves)


# -- whatever happens -------------------------------------------------------------------


@st.composite
def _graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(1, 6))
    edges: list[list[int]] = [[]]
    for index in range(1, size):
        parents = draw(st.sets(st.integers(0, index - 1), max_size=3))
        edges.append(sorted(parents))
    return graph_of(
        edges,
        retries=draw(st.integers(0, 2)),
        timeout_s=draw(st.sampled_from([None, None, 1.0])),
    )


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "submit",
                "submit",
                "answer",
                "answer",
                "answer",
                "error",
                "piece",
                "cancel",
                "kill",
                "wait",
                "twice",
                "mute",
            ]
        ),
        st.integers(0, 100),
    ),
    max_size=60,
)


@settings(
    max_examples=80,
    deadline=None,
    # The fixture is a class, not a stage.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(_graphs(), EVENTS)
def test_every_run_ends_exactly_once_and_leaves_nothing(make_stage, graph, events):
    """
    Workers die and lie, clients leave, deadlines pass: each client hears one end, and
    no job, run, call or byte is left.
    """
    stage = make_stage()
    flow = Rig(stage, graph, max_attempts=2)
    submitted: list[bytes] = []
    cancelled: set[bytes] = set()
    numbers = itertools.count()

    def pick(number: int) -> str | None:
        busy = [m for m in flow.keys if stage.alive(flow.keys[m]) and flow.waits(m)]
        return busy[number % len(busy)] if busy else None

    for event, number in events:
        model = pick(number)
        if event == "submit":
            flags = WORKFLOW | (int(JobFlag.ENDS_IN_HAND) if number % 2 else 0)
            submitted.append(flow.submit(deadline_s=float(1 + number % 5), flags=flags))
        elif event == "twice" and submitted:
            again = submitted[number % len(submitted)]
            if again in stage.engine.runs.live:
                flow.submit(job_id=again)
        elif event == "cancel" and submitted:
            victim = submitted[number % len(submitted)]
            if victim in stage.engine.runs.live:
                cancelled.add(victim)
            stage.cancel(victim)
        elif event == "wait":
            stage.advance(number / 50)
        elif model is None:
            continue
        elif event == "answer":
            flow.answer(model, b"%d" % next(numbers))
        elif event == "error":
            flow.answer(model, error=HandlerFailed("no"))
        elif event == "piece":
            flow.answer(model, b"piece", AnswerKind.CHUNK)
        elif event == "mute":
            worker = flow.worker_of(model)
            batch = worker.in_hand[0]
            ended = [job.job_id for job in batch.jobs]
            stage.reply(worker.worker_id, Reply(batch.batch_id, True, ended, []))
        elif event == "kill":
            stage.exit(flow.worker_of(model).worker_id, "signal 9")
            for worker_id in stage.alive(flow.keys[model]):
                if not stage.worker(worker_id).pid:
                    stage.load(worker_id)
        _revive(stage, flow)
    for _ in range(400):
        _revive(stage, flow)
        model = pick(0)
        if model is None and not stage.engine.runs.live:
            break
        if model is None:
            stage.advance(0.5)
        else:
            flow.answer(model)

    ends = Counter(stage_end for stage_end in _ends(stage, flow))
    assert set(ends) == set(submitted) - cancelled
    assert set(ends.values()) <= {1}
    assert not stage.engine.runs.live
    assert not stage.engine.runs._calls
    assert stage.engine.job_count == 0
    assert stage.engine.payload_bytes == 0


def _revive(stage: Any, flow: Rig) -> None:
    """Workers that were started anew load."""
    for key in flow.keys.values():
        for worker_id in stage.alive(key):
            if stage.worker(worker_id).state.value == "starting":
                stage.load(worker_id)


def _ends(stage: Any, flow: Rig) -> list[bytes]:
    """The job of every end that a client was told."""
    answered = [
        answer.job_id
        for action in stage.took(a.Forward)
        for answer in unpack_answers(action.frame)
        if answer.kind is not AnswerKind.CHUNK
    ]
    return [*answered, *(action.job_id for action in stage.took(a.Refuse))]
