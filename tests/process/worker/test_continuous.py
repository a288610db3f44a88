"""Continuous batching in a worker process: requests join and leave while it runs (8.7)."""

from __future__ import annotations

import json
import signal
import time

import pytest
from batches_of_one import BatchesOfOne

from stoker.exit_codes import ExitCode
from stoker.wire import frames as f
from stoker.wire import payloads
from stoker.wire.loading import CONTINUOUS, LoadSpec

#: As handlers for the peer are written: what is needed for a request is kept
#: under its id, forgotten when the id is gone, and stopping criteria say how long.
COUNTS = """
import sys

class Counter:
    def initialize(self, context):
        self.context = context
        context.cache = {}

    def handle(self, data, context):
        ids = list(context.request_ids.values())
        for known in [known for known in context.cache if known not in ids]:
            print("forgot", known, file=sys.stderr)
            del context.cache[known]
        for request_id, row in zip(ids, data):
            if request_id not in context.cache:
                wanted = int(bytes(row["body"]))
                context.cache[request_id] = {"said": 0, "wanted": wanted}
            else:
                assert row == {}, row
        pieces = []
        for request_id in ids:
            state = context.cache[request_id]
            state["said"] += 1
            pieces.append(f"{request_id}:{state['said']} ")
        context.stopping_criteria = [self.criterion(request_id) for request_id in ids]
        print("step", *ids, file=sys.stderr)
        return pieces

    def criterion(self, request_id):
        def is_last(piece):
            state = self.context.cache[request_id]
            if state["said"] < state["wanted"]:
                return False
            del self.context.cache[request_id]
            return True
        return is_last
"""

#: As COUNTS, and every step waits until a file named after its number is there.
GATED = COUNTS.replace(
    "        pieces = []\n",
    """        self.steps = getattr(self, "steps", 0) + 1
        print("at gate", self.steps, file=sys.stderr)
        import pathlib, time
        while not pathlib.Path(f"gate{self.steps}").exists():
            time.sleep(0.002)
        pieces = []
""",
)


class Steps(BatchesOfOne):
    """For a running batch whose handler says its steps, and may wait for files before each."""

    def __init__(self, peer, make_request, make_job_id, folder=None):
        super().__init__(peer, make_request, make_job_id)
        self._folder = folder

    def open_gates(self, *numbers):
        for number in numbers:
            (self._folder / f"gate{number}").touch()

    def steps(self):
        """Which requests each step was called with."""
        lines = self.peer.output()[1].splitlines()
        return [line.split()[1:] for line in lines if line.startswith("step")]


@pytest.fixture
def start(serve, make_request, make_job_id, tmp_path):
    def make(source, most=4, **spec):
        peer = serve(source, mode=CONTINUOUS, jobs_at_once=most, **spec)
        return Steps(peer, make_request, make_job_id, tmp_path)

    return make


def test_a_request_is_called_until_its_criterion_says_so(start):
    """
    Parameters come at the first step only; headers and id at every one.
    """
    worker = start(COUNTS)

    worker.give(1, b"3")
    worker.hear_end(1)

    answers = worker.answers(1)
    assert worker.text(1) == "r1:1 r1:2 r1:3 "
    kinds = [answer.kind for answer in answers]
    assert kinds == [payloads.AnswerKind.CHUNK] * 2 + [payloads.AnswerKind.FINAL]
    assert ("ts_stream_next", "true") in answers[0].headers
    assert ("ts_stream_next", "false") in answers[-1].headers


def test_requests_join_and_leave_a_batch_that_runs(start):
    worker = start(GATED)
    worker.give(1, b"4")
    worker.peer.wait_output("at gate 1")
    worker.give(2, b"2")
    worker.open_gates(1)
    worker.peer.wait_output("at gate 2")
    worker.give(3, b"1")
    worker.open_gates(2, 3, 4)

    worker.hear_end(1, 2, 3)

    assert worker.steps() == [["r1"], ["r1", "r2"], ["r1", "r2", "r3"], ["r1"]]
    assert worker.text(2) == "r2:1 r2:2 "


def test_no_more_join_than_there_is_room_for(start):
    """
    The supervisor counts; a worker that trusted it blindly would run out of memory.
    """
    worker = start(COUNTS, most=2)
    for number in range(1, 6):
        worker.give(number, b"3")

    worker.hear_end(*range(1, 6))

    assert max(len(step) for step in worker.steps()) == 2
    assert [worker.text(n).count(":") for n in range(1, 6)] == [3] * 5


def test_who_has_left_is_not_there_at_the_next_step(start):
    """
    And the handler sees that, because it is called with the others alone.
    """
    worker = start(GATED)
    worker.give(1, b"9")
    worker.give(2, b"3")
    worker.peer.wait_output("at gate 1")
    worker.open_gates(1)
    worker.peer.wait_output("at gate 2")
    worker.drop(1)
    worker.open_gates(*range(2, 10))

    worker.hear_end(1, 2)

    assert worker.steps()[-1] == ["r2"]
    assert "forgot r1" in worker.peer.output()[1]
    assert worker.replies[1][-1].groups == []


def test_a_handler_can_ask_within_a_step_whether_a_client_has_left(start):
    worker = start("""
import sys
def handle(data, context):
    if data is None:
        return None
    print("in hand", len(data), file=sys.stderr)
    while not (len(data) == 2 and context.is_cancelled(1)):
        if len(data) < 2:
            return ["early"]
    assert not context.is_cancelled(0) and not context.cancelled
    return ["seen"] * 2
""")
    first, second = (
        f.WorkBatch(n, [f.WorkJob(worker._make_job_id(n), worker._make_request(request_id=f"{n}"))])
        for n in (1, 2)
    )
    worker.peer.send(f.Work([first, second]))
    worker._batch_ids, worker.replies = {1: 1, 2: 2}, {1: [], 2: []}
    worker.peer.wait_output("in hand 2")

    worker.drop(2)
    worker.hear_end(1, 2)

    assert worker.text(1) == "seen"


def test_an_id_is_not_used_twice_while_the_handler_may_know_it(start):
    """
    Clients choose ids; and one that left and comes again must not find what it left behind.
    """
    worker = start(GATED)
    worker.give(1, b"2", request_id="same")
    worker.peer.wait_output("at gate 1")
    worker.give(2, b"2", request_id="same")
    worker.open_gates(1)
    worker.peer.wait_output("at gate 2")
    worker.drop(2)
    worker.give(3, b"1", request_id="same.1")
    worker.open_gates(*range(2, 10))

    worker.hear_end(1, 2, 3)

    ids = worker.steps()
    assert ids[:2] == [["same"], ["same", "same.1"]]
    assert ids[2] == ["same.1.2"]
    assert worker.text(3) == "same.1.2:1 "


def test_without_a_word_about_more_a_request_has_ended(start):
    """
    `ts_stream_next` absent: an ordinary handler works as it is.
    """
    worker = start("""
def handle(data, context):
    if data is not None:
        context.set_response_status(201, "Made", 0)
        return [bytes(row["body"]) for row in data]
""")

    worker.give(1, b"whole")
    worker.hear_end(1)

    (answer,) = worker.answers(1)
    assert (answer.kind, answer.status, answer.body) == (payloads.AnswerKind.FINAL, 201, b"whole")
    assert answer.headers == []


def test_the_response_header_says_that_more_is_to_come(start):
    """
    What stopping criteria set, handlers may set themselves.
    """
    worker = start("""
steps = 0
def handle(data, context):
    global steps
    if data is None:
        return None
    steps += 1
    context.set_response_header(0, "ts_stream_next", "true" if steps < 3 else "false")
    return [str(steps)]
""")

    worker.give(1, b"")
    worker.hear_end(1)

    assert worker.text(1) == "123"


def test_an_empty_piece_is_only_a_sign_of_life(start):
    """
    Its client has heard nothing, so the request can be tried again; its status is still open.
    """
    worker = start("""
steps = 0
def handle(data, context):
    global steps
    if data is None:
        return None
    steps += 1
    is_last = steps == 3
    context.stopping_criteria = [lambda piece: is_last]
    if is_last:
        context.set_response_status(202, "Made", 0)
    return ["whole" if is_last else ""]
""")

    worker.give(1, b"")
    worker.hear_end(1)

    assert [bool(reply.groups) for reply in worker.replies[1]] == [False, False, True]
    assert [(answer.status, answer.body) for answer in worker.answers(1)] == [(202, b"whole")]


def test_pieces_within_a_step_leave_at_once(start):
    """
    `send_intermediate_predict_response` works as in a batch.
    """
    worker = start("""
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    send_intermediate_predict_response(["a"], context.request_ids, "ok", 200, context)
    send_intermediate_predict_response(["b"], context.request_ids, "ok", 200, context)
    return ["c"]
""")

    worker.give(1, b"")
    worker.hear_end(1)

    assert [answer.body for answer in worker.answers(1)] == [b"a", b"b", b"c"]


def test_generators_run_to_their_end_within_a_step(start):
    worker = start("""
def pieces():
    yield "x"
    yield "y"

def handle(data, context):
    if data is not None:
        return [pieces() for _ in data]
""")

    worker.give(1, b"")
    worker.hear_end(1)

    assert worker.text(1) == "xy"


def test_a_bad_piece_ends_its_own_request_alone(start):
    worker = start(
        COUNTS.replace(
            '        print("step"',
            "        pieces = [object() if 'bad' in p else p for p in pieces]\n"
            '        print("step"',
        )
    )
    worker.give(1, b"3", request_id="bad")
    worker.give(2, b"3", request_id="good")

    worker.hear_end(1, 2)

    assert worker.answers(1)[-1].error.code == "bad_handler_result"
    assert worker.text(2) == "good:1 good:2 good:3 "


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("raise ValueError('no')", "handler_failed"),
        ("return pieces[1:]", "bad_handler_result"),
        ("return tuple(pieces)", "bad_handler_result"),
        ("raise MemoryError", "handler_out_of_memory"),
    ],
)
def test_a_step_that_breaks_ends_everybody_and_the_worker_serves_on(start, fault, code):
    """
    As a batch does; whoever comes next begins anew, also under the same id.
    """
    worker = start(
        COUNTS.replace(
            '        print("step"',
            f"        if any(s['wanted'] == 13 for s in context.cache.values()):\n"
            f'            {fault}\n        print("step"',
        )
    )
    worker.give(1, b"13")

    worker.hear_end(1)
    worker.give(2, b"2", request_id="r1")
    worker.hear_end(2)

    assert worker.answers(1)[-1].error.code == code
    assert worker.text(2) == "r1.1:1 r1.1:2 "


def test_what_nobody_waits_for_any_more_does_not_join(start):
    worker = start(COUNTS)

    worker.give(1, b"3", deadline=time.monotonic() - 1)
    worker.give(2, b"3")
    worker.hear_end(1, 2)

    assert worker.answers(1)[-1].error.code == "deadline_exceeded"
    assert worker.steps() == [["r2"]] * 3


def test_a_worker_that_leaves_finishes_what_runs(start):
    worker = start(GATED)
    worker.give(1, b"3")
    worker.peer.wait_output("at gate 1")
    worker.give(2, b"1")
    worker.peer.send(f.Leave())
    worker.open_gates(*range(1, 10))

    worker.hear_end(1, 2)

    assert worker.text(1) == "r1:1 r1:2 r1:3 "
    assert worker.peer.wait_exit() == ExitCode.OK


def test_a_signal_to_end_lets_what_runs_finish(start):
    worker = start(GATED)
    worker.give(1, b"2")
    worker.peer.wait_output("at gate 1")
    worker.peer.process.send_signal(signal.SIGTERM)
    worker.open_gates(*range(1, 10))

    worker.hear_end(1)

    assert worker.peer.wait_exit() == ExitCode.OK


def test_after_its_supervisors_death_it_comes_back_empty(start):
    """
    Whose stream broke off is said; a request that comes again begins anew.
    """
    worker = start(GATED, orphan_grace_s=30.0)
    worker.give(1, b"9")
    worker.peer.wait_output("at gate 1")
    worker.open_gates(1)
    worker.hear()
    worker.give(2, b"5")
    worker.peer.wait_output("at gate 2")

    worker.peer.end.close()
    worker.peer._end = None
    worker.open_gates(*range(2, 20))
    back = worker.peer.receive()
    kept = worker.peer.receive()

    assert isinstance(back, f.WorkerBack)
    assert isinstance(kept, f.Kept)
    ended = {job_id for reply in kept.replies for job_id in reply.ended if not reply.groups}
    assert worker._make_job_id(1) in ended
    worker._batch_ids.clear()
    worker.give(2, b"2")
    worker.hear_end(2)
    assert worker.text(2).split(":")[-1] == "2 "


def test_ranks_take_part_in_every_step(serve, make_request, make_job_id):
    """
    Tensor-parallel handlers compute together: every rank sees the same running batch.
    """
    # In one write: both ranks have the same descriptor, and lines must stay whole.
    source = COUNTS.replace(
        'print("step", *ids, file=sys.stderr)',
        'rank = __import__("os").environ["RANK"]\n'
        '        sys.stderr.write(f"rank {rank} {chr(32).join(ids)}\\n")',
    )
    env = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    peer = serve(source, mode=CONTINUOUS, jobs_at_once=4, ranks=2, is_broadcast=True, env=env)
    worker = Steps(peer, make_request, make_job_id)

    worker.give(1, b"3")
    worker.hear_end(1)
    worker.give(2, b"1")
    worker.hear_end(2)

    peer.wait_output("rank 1 r2")
    lines = peer.output()[1].splitlines()
    for rank in "01":
        steps = [line for line in lines if line.startswith(f"rank {rank}")]
        assert steps == [f"rank {rank} r1"] * 3 + [f"rank {rank} r2"]
    assert "forgot" not in peer.output()[1]


def test_the_spec_of_a_running_batch_travels(make_request):
    spec = LoadSpec("m", "1", "h", mode=CONTINUOUS, jobs_at_once=7)

    assert LoadSpec.from_wire(spec.to_wire()) == spec


#: The shape of the peer's own example: a BaseHandler that prefills who is new,
#: decodes the rest together, and stops by objects that count down.
EXAMPLE = """
from abc import ABC

from ts.context import Context
from ts.torch_handler.base_handler import BaseHandler


class StreamingHandler(BaseHandler, ABC):
    def initialize(self, ctx: Context):
        self.context = ctx
        ctx.cache = {}
        self.initialized = True

    def preprocess(self, data):
        self._clean_cache()
        prefill, decode_ids = [], []
        for req_id, req_data in zip(self.context.request_ids.values(), data):
            if req_id not in self.context.cache:
                tokens = req_data.get("data") or req_data.get("body")
                prompt = tokens["prompt"]
                self.context.cache[req_id] = {
                    "text": prompt,
                    "stopping_criteria": self.criterion(req_id, tokens["max_new_tokens"]),
                }
                prefill.append(req_id)
            else:
                decode_ids.append(req_id)
        return prefill, decode_ids

    def inference(self, batches):
        prefill, decode_ids = batches
        results = {}
        for req_id in prefill:
            results[req_id] = {"text": self.context.cache[req_id]["text"], "ids": [0]}
        for req_id in decode_ids:
            state = self.context.cache[req_id]
            results[req_id] = {"text": state["text"][-1] * len(decode_ids), "ids": [1]}
        return [results[i] for i in self.context.request_ids.values()]

    def postprocess(self, x):
        self.context.stopping_criteria = [
            self.context.cache[i]["stopping_criteria"]
            for i in self.context.request_ids.values()
        ]
        return x

    def criterion(self, req_id, max_new_tokens):
        class StoppingCriteria:
            def __init__(self, cache, req_id, max_new_tokens):
                self.cache, self.req_id, self.left = cache, req_id, max_new_tokens

            def __call__(self, res):
                self.left -= 1
                if self.left == 0 or res["ids"][-1] == 2:
                    del self.cache[self.req_id]
                    return True
                return False

        return StoppingCriteria(self.context.cache, req_id, max_new_tokens)

    def _clean_cache(self):
        new_ids = set(self.context.request_ids.values())
        for req_id in list(self.context.cache.keys()):
            if req_id not in new_ids:
                del self.context.cache[req_id]
"""


def test_a_handler_in_the_form_of_the_peers_example_runs_as_it_is(start, make_job_id):
    """
    Prefill, decode, stopping criteria with a state of their own; JSON pieces.
    """
    pytest.importorskip("torch")
    worker = start(EXAMPLE)
    for number, prompt in ((1, "ab"), (2, "xyz")):
        payload = worker._make_request(
            json.dumps({"prompt": prompt, "max_new_tokens": number + 1}).encode(),
            "application/json",
            request_id=f"r{number}",
        )
        job = f.WorkJob(make_job_id(number), payload)
        worker._batch_ids[number] = number
        worker.replies[number] = []
        worker.peer.send(f.Work([f.WorkBatch(number, [job])]))

    worker.hear_end(1, 2)

    texts = [json.loads(answer.body)["text"] for answer in worker.answers(1)]
    assert [text[:1] for text in texts] == ["a", "b"]
    texts = [json.loads(answer.body)["text"] for answer in worker.answers(2)]
    assert texts[0] == "xyz"
    assert len(texts) == 3
    assert worker.answers(2)[-1].kind == payloads.AnswerKind.FINAL
