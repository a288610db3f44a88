"""Runs of workflows against the real engine: how they go, what ends them, what is refused."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workflow_rig import CHAIN, KEY, WORKFLOW, Rig, graph_of

from stoker.archives.graph import Graph
from stoker.errors import HandlerFailed
from stoker.supervisor import actions as a
from stoker.wire import packing
from stoker.wire.frames import JobFlag, Reply
from stoker.wire.payloads import (
    AnswerKind,
    unpack_answers,
    unpack_parts,
)


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
