"""A worker process from its first word to its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from stoker.exit_codes import ExitCode
from stoker.wire import frames as f
from stoker.wire.lent_bodies import LentFrame
from stoker.wire.loading import LoadSpec

ECHO = """
def handle(data, context):
    if data is None:
        return None
    return [row["body"] for row in data]
"""

SLOW = """
import pathlib, sys, time

def handle(data, context):
    if data is None:
        return None
    print("in hand", file=sys.stderr)
    gate = pathlib.Path(bytes(data[0]["body"]).decode())
    while not gate.exists():
        time.sleep(0.005)
    return [b"done"] * len(data)
"""

UNTIL_DROPPED = """
import sys

def handle(data, context):
    if data is None:
        return None
    if data[0]["body"] == b"wait":
        print("in hand", file=sys.stderr)
        while not context.is_cancelled(0):
            pass
    return [b"done"] * len(data)
"""


def test_echo_comes_back_as_it_was_sent(serve, make_request):
    peer = serve(ECHO)

    answer = peer.ask(make_request(b"\x00\xffhello")).one()

    assert answer.body == b"\x00\xffhello"
    assert answer[2:6] == (200, "", None, [])


def test_hello_proves_who_it_is(serve):
    """
    The supervisor gives work only to processes that it started.
    """
    peer = serve(ECHO)

    assert f.WorkerHello(f.PROTOCOL, 9000, b"\x07" * 16, peer.process.pid) == peer.hello


def test_handlers_never_see_the_token(serve, make_request):
    """
    Handlers are fenced code: with the token one could pose as a worker.
    """
    peer = serve(
        """
        import os
        def handle(data, context):
            return [[name for name in os.environ if "TOKEN" in name]] * len(data or [])
        """,
        env={"STOKER_OTHER": "x"},
    )

    assert peer.ask(make_request()).one().body == b"[]"


def test_ps_tells_workers_apart(serve):
    peer = serve(ECHO)

    title = " ".join(psutil.Process(peer.process.pid).cmdline())

    assert title.startswith("stoker: worker 9000 m:1.0")


def test_batches_are_answered_in_order_and_grouped_by_frontend(serve, make_request):
    peer = serve(ECHO)

    ids = peer.submit(*[[make_request(b"%d" % i)] for i in range(50)])
    answered = [peer.answered() for _ in ids]

    assert ids == [answer.replies[0].batch_id for answer in answered]
    assert [b"%d" % i for i in range(50)] == [answer.one().body for answer in answered]


def test_one_batch_may_serve_two_frontends(serve, make_request, make_job_id):
    peer = serve(ECHO)
    jobs = [
        f.WorkJob(make_job_id(0, b"aaaaaaaa"), make_request(b"for a")),
        f.WorkJob(make_job_id(0, b"bbbbbbbb"), make_request(b"for b")),
        f.WorkJob(make_job_id(1, b"aaaaaaaa"), make_request(b"for a too")),
    ]

    peer.send(f.Work([f.WorkBatch(1, jobs)]))
    reply = peer.answered().replies[0]

    assert [group.frontend_id for group in reply.groups] == [b"aaaaaaaa", b"bbbbbbbb"]
    assert [job.job_id for job in jobs] == reply.ended


def test_large_bodies_are_lent_and_small_ones_come_with_the_reply(serve, make_request):
    """
    Who waits reads them from a file that nobody else can write to any more than cut short.
    """
    peer = serve(ECHO)
    large = bytes(range(256)) * 4096

    answered = peer.ask(make_request(b"small"), make_request(large))

    assert [answer.body for answer in answered.all] == [b"small", large]
    assert isinstance(answered.replies[0].groups[0].frame, LentFrame)
    assert isinstance(peer.ask(make_request(b"small")).replies[0].groups[0].frame, bytes)


def test_leave_finishes_everything_in_hand(serve, make_request, make_job_id):
    """
    Scaling down must not cost a client its answer (pytorch/serve#1101), also
    not the one whose batch was sent ahead.
    """
    peer = serve(UNTIL_DROPPED)
    peer.submit([make_request(b"wait")], [make_request(b"sent ahead")])
    peer.wait_output("in hand")

    peer.send(f.Leave())
    peer.send(f.Drop([make_job_id(0)]))  # once this has arrived, so has Leave

    assert [len(peer.answered().replies[-1].ended) for _ in range(2)] == [1, 1]
    assert peer.wait_exit() == ExitCode.OK


def test_sigterm_finishes_what_has_arrived(serve, make_request, tmp_path):
    peer = serve(SLOW)
    gate = tmp_path / "gate"
    payload = make_request(str(gate).encode())
    peer.submit([payload], [payload])
    peer.wait_output("in hand")

    peer.process.send_signal(signal.SIGTERM)
    gate.touch()

    assert [peer.answered().one().body for _ in range(2)] == [b"done", b"done"]
    assert peer.wait_exit() == ExitCode.OK


@pytest.mark.parametrize("how", ["leave", "sigterm"])
def test_an_idle_worker_leaves_at_once(serve, how):
    peer = serve(ECHO)

    if how == "leave":
        peer.send(f.Leave())
    else:
        peer.process.send_signal(signal.SIGTERM)

    assert peer.wait_exit(5.0) == ExitCode.OK


def test_sigint_means_nothing_to_a_worker(serve, make_request):
    """
    Ctrl-C in a terminal reaches every process of the group; who stops when
    is the launcher's decision.
    """
    peer = serve(ECHO)

    peer.process.send_signal(signal.SIGINT)

    assert peer.ask(make_request(b"still here")).one().body == b"still here"


def test_sigabrt_leaves_the_python_stack_in_the_log(serve, make_request, tmp_path):
    """
    The last sign of life of a stuck handler is where it is stuck.
    """
    peer = serve(SLOW)
    peer.submit([make_request(str(tmp_path / "never").encode())])
    peer.wait_output("in hand")

    peer.process.send_signal(signal.SIGABRT)

    assert peer.wait_exit() == -signal.SIGABRT
    assert "handler.py" in peer.output()[1]
    assert "in handle" in peer.output()[1]


def test_dropped_jobs_are_not_handled(serve, make_request, make_job_id):
    """
    A client that left while its job waited must not cost handler time.
    """
    peer = serve(UNTIL_DROPPED)
    ids = [make_job_id(i) for i in (10, 11, 12)]
    wait, plain = make_request(b"wait"), make_request(b"plain")
    peer.send(f.Work([f.WorkBatch(1, [f.WorkJob(ids[0], wait)])]))
    peer.wait_output("in hand")
    peer.send(f.Work([f.WorkBatch(2, [f.WorkJob(ids[1], wait), f.WorkJob(ids[2], plain)])]))

    peer.send(f.Drop([ids[1]]))
    peer.send(f.Drop([ids[0]]))

    assert peer.answered().one(10).body == b"done"
    second = peer.answered()
    assert second.error_code(11) == "cancelled"
    assert second.one(12).body == b"done"
    assert second.replies[-1].ended == ids[1:]


def test_a_frame_that_is_not_ours_ends_the_worker(serve):
    peer = serve(ECHO)

    peer.end.send_raw(b"\x00\x00\x00\x01\xc1")

    assert peer.wait_exit() == ExitCode.PROTOCOL


def test_a_worker_started_by_hand_says_so():
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "stoker.worker",
            "--worker-id",
            "1",
            "--address",
            "unix:/nowhere",
            "--label",
            "m:1",
        ],
        env={name: text for name, text in os.environ.items() if name != "STOKER_WORKER_TOKEN"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert done.returncode == ExitCode.USAGE
    assert "supervisor" in done.stderr


def test_leave_before_load_is_obeyed(spawn_worker):
    peer = spawn_worker()
    peer.receive()

    peer.send(f.Leave())

    assert peer.wait_exit(5.0) == ExitCode.OK


def test_a_handler_that_calls_exit_is_answered_for_first(serve, make_request):
    """
    sys.exit() in a handler is a plea for a new process, not a reason to lose
    the clients of the batch.
    """
    peer = serve(
        "import sys\ndef handle(data, context):\n    return None if data is None else sys.exit(3)"
    )

    answered = peer.ask(make_request())

    assert answered.error_code() == "handler_failed"
    assert peer.wait_exit() == ExitCode.FAILURE


def test_a_worker_needs_no_torch_and_no_numpy(spawn_worker, write_handler, make_request, tmp_path):
    """
    The core has no torch in its dependencies; `import ts` has none either.
    Nor does a worker need zmq: an interpreter of its own may be without.
    """
    folder = write_handler("import ts, ts.context, ts.service, ts.metrics.dimension\n" + ECHO)
    blocker = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numpy", "PIL", "torchvision", "falcon", "zmq"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
sys.argv[0] = "worker"
runpy.run_module("stoker.worker", run_name="__main__")
"""
    peer = spawn_worker(python=[sys.executable, "-I", "-c", blocker])

    outcome = peer.load(LoadSpec("m", "1.0", "handler", folder))

    assert isinstance(outcome, f.Loaded), peer.output()[1]
    assert peer.ask(make_request(b"light")).one().body == b"light"
