"""What clients are promised whatever the nodes of a workflow do."""

from __future__ import annotations

import pytest
from workflow_rig import CHAIN, WORKFLOW, graph_of

from stoker.errors import HandlerFailed
from stoker.supervisor import actions as a
from stoker.wire.frames import Group, JobFlag, Reply
from stoker.wire.payloads import (
    Answer,
    AnswerKind,
    pack_answers,
)


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
