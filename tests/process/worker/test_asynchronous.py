"""An asynchronous worker process: many requests in progress at once (8.8)."""

from __future__ import annotations

import json
import signal
import time

import pytest
from batches_of_one import BatchesOfOne

from stoker.exit_codes import ExitCode
from stoker.wire import frames as f
from stoker.wire import payloads
from stoker.wire.loading import ASYNC

#: A request waits until a file with the name that it sends is there.
GATED = """
import asyncio, os, sys

class Handler:
    async def initialize(self, context):
        self.loop = asyncio.get_running_loop()
        context.seen = []

    async def handle(self, data, context):
        assert asyncio.get_running_loop() is self.loop
        name = bytes(data[0]["body"]).decode()
        context.seen.append(name)
        print("began", name, *context.request_ids.values(), file=sys.stderr)
        try:
            while not os.path.exists(name):
                await asyncio.sleep(0.002)
        except asyncio.CancelledError:
            print("cancelled", name, context.cancelled, file=sys.stderr)
            raise
        return [f"{name} of {len(context.seen)}"]
"""

#: As the peer's engines stream: pieces by the helper, the last one returned.
STREAMS = """
import asyncio
from ts.handler_utils.utils import send_intermediate_predict_response

class Handler:
    async def handle(self, data, context):
        name = bytes(data[0]["body"]).decode()
        for i in range(3):
            send_intermediate_predict_response(
                [f"{name}{i} "], context.request_ids, "Result", 200, context
            )
            await asyncio.sleep(0)
        return [f"{name}end"]
"""


class Gates(BatchesOfOne):
    """For requests that wait until a file is there."""

    def __init__(self, peer, make_request, make_job_id, folder):
        super().__init__(peer, make_request, make_job_id)
        self._folder = folder

    def open_gate(self, name):
        (self._folder / name).touch()


@pytest.fixture
def start(serve, make_request, make_job_id, tmp_path):
    def make(source, most=8, **spec):
        peer = serve(source, mode=ASYNC, jobs_at_once=most, **spec)
        return Gates(peer, make_request, make_job_id, tmp_path)

    return make


def test_requests_are_taken_up_while_others_are_in_progress_and_end_in_any_order(start):
    """
    Each is a call of its own, with one row; what the handler keeps on the context is shared.
    """
    worker = start(GATED)
    for number, name in enumerate((b"a", b"b", b"c")):
        worker.give(number, name)
        worker.peer.wait_output(f"began {name.decode()} r{number}")

    for number, name in ((2, "c"), (0, "a"), (1, "b")):
        worker.open_gate(name)
        worker.hear_end(number)
        assert worker.text(number) == f"{name} of 3"


def test_no_more_are_in_progress_than_the_worker_may_have(start):
    worker = start(GATED, most=1)
    worker.give(1, b"a")
    worker.give(2, b"b")
    worker.peer.wait_output("began a")
    worker.open_gate("b")
    worker.open_gate("a")

    worker.hear_end(1, 2)

    assert worker.peer.output()[1].index("began a") < worker.peer.output()[1].index("began b")


def test_streams_are_told_apart(start):
    worker = start(STREAMS)
    worker.give(1, b"x")
    worker.give(2, b"y")

    worker.hear_end(1, 2)

    assert worker.text(1) == "x0 x1 x2 xend"
    assert worker.text(2) == "y0 y1 y2 yend"
    kinds = [answer.kind for answer in worker.answers(1)]
    assert kinds == [payloads.AnswerKind.CHUNK] * 3 + [payloads.AnswerKind.FINAL]
    assert ("ts_stream_next", "true") in worker.answers(1)[0].headers
    assert ("ts_stream_next", "false") in worker.answers(1)[-1].headers


def test_an_asynchronous_generator_streams_without_a_helper(start):
    worker = start("""
import asyncio
async def handle(data, context):
    if data is None:
        return
    for i in range(3):
        yield [str(i)]
        await asyncio.sleep(0)
""")

    worker.give(1, b"")
    worker.hear_end(1)

    assert [answer.body for answer in worker.answers(1)] == [b"0", b"1", b"2", b""]


def test_pieces_from_a_thread_of_the_handler_arrive(start):
    """
    Engines compute in threads.
    """
    worker = start("""
import asyncio
from ts.handler_utils.utils import send_intermediate_predict_response

def compute(context):
    for i in range(20):
        send_intermediate_predict_response([f"{i},"], context.request_ids, "ok", 200, context)

async def handle(data, context):
    if data is not None:
        await asyncio.to_thread(compute, context)
        return ["end"]
""")
    for number in range(4):
        worker.give(number, b"")

    worker.hear_end(*range(4))

    for number in range(4):
        assert worker.text(number) == "".join(f"{i}," for i in range(20)) + "end"


def test_a_client_that_leaves_cancels_its_coroutine_alone(start):
    worker = start(GATED)
    worker.give(1, b"gone")
    worker.give(2, b"stays")
    worker.peer.wait_output("began stays")

    worker.drop(1)
    worker.hear_end(1)
    worker.open_gate("stays")
    worker.hear_end(2)

    assert "cancelled gone True" in worker.peer.output()[1]
    assert worker.answers(1)[-1].error.code == "cancelled"
    assert worker.text(2) == "stays of 2"


def test_what_was_cancelled_may_take_its_time_to_clear_up(start):
    """
    It is cancelled once, not at every turn; and its place is taken until it is done.
    """
    worker = start("""
import asyncio, os, sys
async def handle(data, context):
    if data is None:
        return None
    print("began", file=sys.stderr)
    try:
        await asyncio.sleep(60)
    finally:
        print("clears up", file=sys.stderr)
        while not os.path.exists("cleared"):
            await asyncio.sleep(0.002)
        print("cleared up", file=sys.stderr)
""")
    worker.give(1, b"")
    worker.peer.wait_output("began")
    worker.drop(1)
    worker.peer.wait_output("clears up")
    worker.give(2, b"")
    worker.peer.wait_output("clears up\nbegan")
    worker.drop(2)
    worker.peer.wait_output("clears up\nbegan\nclears up")
    worker.open_gate("cleared")

    worker.hear_end(1, 2)

    assert worker.peer.output()[1].count("cleared up") == 2


def test_who_gave_up_before_is_not_begun(start):
    worker = start(GATED)

    worker.give(1, b"late", deadline=time.monotonic() - 1)
    worker.hear_end(1)

    assert worker.answers(1)[-1].error.code == "deadline_exceeded"
    assert "began" not in worker.peer.output()[1]


def test_a_request_knows_its_own_deadline_and_id(start):
    worker = start("""
import json, time
async def handle(data, context):
    if data is None:
        return None
    left = None if context.deadline is None else context.deadline - time.monotonic()
    return [{"left": left, "id": context.get_request_id(0)}]
""")
    worker.give(1, b"", deadline=time.monotonic() + 50)
    worker.give(2, b"")

    worker.hear_end(1, 2)

    assert 0 < json.loads(worker.text(1))["left"] <= 50
    assert json.loads(worker.text(2)) == {"left": None, "id": "r2"}


def test_two_in_progress_never_have_one_id(start):
    """
    Engines know requests by it, and clients may choose it.
    """
    worker = start(GATED)
    worker.give(1, b"a", request_id="same")
    worker.give(2, b"b", request_id="same")
    worker.peer.wait_output("began b same.1")
    worker.open_gate("a")
    worker.hear_end(1)
    worker.give(3, b"a", request_id="same")
    worker.open_gate("b")

    worker.hear_end(2, 3)

    assert "began a same\n" in worker.peer.output()[1]


@pytest.mark.parametrize(
    ("does", "code"),
    [
        ("raise ValueError('no')", "handler_failed"),
        ("return 'no list'", "bad_handler_result"),
        ("return [1, 2]", "bad_handler_result"),
        ("return [object()]", "bad_handler_result"),
        ("raise MemoryError", "handler_out_of_memory"),
        ("raise asyncio.CancelledError", "handler_failed"),
        ("return [ValueError('as a result')]", "handler_failed"),
    ],
)
def test_a_fault_is_its_own_requests_alone(start, does, code):
    worker = start(
        GATED.replace(
            "        context.seen.append(name)",
            f"""
        if name == "bad":
            {does}
        context.seen.append(name)""",
        )
    )
    worker.give(1, b"good")
    worker.peer.wait_output("began good")
    worker.give(2, b"bad")
    worker.hear_end(2)
    worker.open_gate("good")
    worker.hear_end(1)

    assert worker.answers(2)[-1].error.code == code
    assert worker.text(1) == "good of 1"


def test_a_handler_that_wants_to_exit_is_let(start):
    worker = start("""
async def handle(data, context):
    if data is not None:
        raise SystemExit(3)
""")

    worker.give(1, b"")
    worker.hear_end(1)

    assert worker.answers(1)[-1].error.code == "handler_failed"
    assert worker.peer.wait_exit() == ExitCode.FAILURE


def test_a_silent_request_is_no_silent_worker(start):
    """
    The loop turns, and says so: `response_timeout` is for one that does not.
    """
    worker = start(GATED)
    worker.give(1, b"a")

    while not worker.signs_of_life:
        worker.hear()
    worker.open_gate("a")
    worker.hear_end(1)

    assert worker.replies[1][-1].is_last


def test_a_worker_that_leaves_finishes_what_is_in_progress(start):
    worker = start(GATED)
    worker.give(1, b"a")
    worker.peer.wait_output("began a")
    worker.peer.send(f.Leave())
    worker.give(2, b"a")
    worker.peer.wait_output("began a r2")
    worker.open_gate("a")

    worker.hear_end(1, 2)

    assert worker.peer.wait_exit() == ExitCode.OK


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_signal_to_end_lets_what_is_in_progress_finish(start, is_busy):
    worker = start(GATED)
    if is_busy:
        worker.give(1, b"a")
        worker.peer.wait_output("began a")
    worker.peer.process.send_signal(signal.SIGTERM)
    worker.open_gate("a")

    worker.hear_end(1)

    assert worker.peer.wait_exit() == ExitCode.OK


def test_after_its_supervisors_death_it_comes_back_empty(start):
    """
    What the handler runs beside its requests goes on meanwhile.
    """
    worker = start(GATED, orphan_grace_s=30.0)
    worker.give(1, b"a")
    worker.peer.wait_output("began a")

    worker.peer.end.close()
    worker.peer._end = None
    back, kept = worker.peer.receive(), worker.peer.receive()

    assert isinstance(back, f.WorkerBack)
    assert [(reply.ended, reply.groups) for reply in kept.replies] == [
        ([worker._make_job_id(1)], [])
    ]
    assert "cancelled a True" in worker.peer.output()[1]
    worker._batch_ids.clear()
    worker.give(2, b"b")
    worker.open_gate("b")
    worker.hear_end(2)
    assert worker.text(2) == "b of 2"


def test_without_a_successor_it_ends(start):
    worker = start(GATED, orphan_grace_s=0.1)
    worker.give(1, b"a")
    worker.peer.wait_output("began a")

    worker.peer.end.close()
    worker.peer._listener.close()

    assert worker.peer.wait_exit() == ExitCode.UNAVAILABLE


def test_an_envelope_is_one_requests_alone(start):
    """
    Those in progress together must not mix up their rows.
    """
    worker = start(
        """
import asyncio, os
async def handle(data, context):
    if data is None:
        return None
    while not os.path.exists("go"):
        await asyncio.sleep(0.002)
    return [row * 2 for row in data]
""",
        envelope="json",
    )
    worker.give(1, b'{"instances": [1, 2, 3]}')
    worker.give(2, b'{"instances": [7]}')
    worker.open_gate("go")

    worker.hear_end(1, 2)

    assert json.loads(worker.text(1)) == {"predictions": [2, 4, 6]}
    assert json.loads(worker.text(2)) == {"predictions": [14]}


def test_a_handler_that_is_not_asynchronous_is_refused(spawn_worker, write_handler):
    """
    It would hold up everybody else.
    """
    from stoker.wire.loading import LoadSpec

    folder = write_handler("def handle(data, context): pass")
    peer = spawn_worker()
    outcome = peer.load(LoadSpec("m", "1.0", "handler", folder, mode=ASYNC, jobs_at_once=2))

    assert isinstance(outcome, f.LoadFailed)
    assert "asyncCommunication needs an `async def` handler" in outcome.last_line


@pytest.mark.parametrize(
    "source",
    [
        """
import asyncio
async def handle(data, context):
    await asyncio.sleep(0)
    if data is not None:
        return [bytes(row["body"]) for row in data]
""",
        """
import asyncio
class Handler:
    async def initialize(self, context):
        await asyncio.sleep(0)
    async def handle(self, data, context):
        yield [bytes(row["body"])[:1] for row in data]
        await asyncio.sleep(0)
        yield [bytes(row["body"])[1:] for row in data]
""",
    ],
)
def test_without_asynchronous_communication_a_coroutine_answers_batches(
    serve, make_request, source
):
    """
    Then it is an ordinary handler, one batch after the other.
    """
    peer = serve(source)

    answered = peer.ask(make_request(b"one"), make_request(b"two"))

    for number, text in enumerate((b"one", b"two")):
        assert b"".join(answer.body for answer in answered.of(number)) == text
