"""The supervisor's two sockets for frontends: what is asked is answered, and nobody is believed."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
from facts import wait_until
from lone_supervisor import LoneSupervisor
from stream_end import framed

from stoker.wire import codec
from stoker.wire import frames as f
from stoker.wire.connections import MAX_STRANGERS

pytestmark = pytest.mark.slow


def test_every_hello_is_answered_with_the_same_incarnation(supervisor: LoneSupervisor) -> None:
    """
    Frontends notice a restart by another incarnation, and only by that.
    """
    one, other = supervisor.frontend(), supervisor.frontend()

    welcomes = [one.greet(), one.greet(), other.greet()]

    assert len(set(welcomes)) == 1
    assert welcomes[0].protocol == f.PROTOCOL
    assert len(welcomes[0].incarnation) == 8


GARBAGE = [
    (b"",),
    (b"\xc1",),
    (b"GET / HTTP/1.1\r\n\r\n",),
    (random.Random(1).randbytes(64),),
    (b"\xdd\xff\xff\xff\xff",),
    (b"\x91" * 100_000,),
    (msgpack.packb([999]),),
    (msgpack.packb([f.Kind.SUBMIT.value, b"short", "m", None, 1.0, 0, b""]),),
    (msgpack.packb([f.Kind.CALL.value, 1, "list", [1, 2]]),),
    (codec.encode(f.Welcome(f.PROTOCOL, b"12345678")),),
    (codec.encode(f.FrontendHello(f.PROTOCOL, 1)), b"and more"),
]


@pytest.mark.parametrize("parts", GARBAGE, ids=lambda parts: repr(parts[0][:12]))
def test_frontend_that_sends_rubbish_is_dropped_alone(
    supervisor: LoneSupervisor, parts: tuple[bytes, ...]
) -> None:
    """
    Design 6: a bad frame drops its peer; the others do not notice.
    """
    good, bad = supervisor.frontend(), supervisor.frontend()
    dropped = len(supervisor.logged("peer dropped"))

    bad.send_raw(*parts)
    bad.send(f.FrontendHello(f.PROTOCOL, 1))
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "the peer is dropped")

    assert good.call("health").value["is_healthy"] is True
    assert bad.answered_on.has_heard_nothing()
    assert bad.answered_on.is_closed()


RUBBISH_OF_A_LISTENER = {
    "empty frame": framed(b""),
    "rubbish": framed(b"\xc1rubbish"),
    "hello of a worker": framed(codec.encode(f.WorkerHello(f.PROTOCOL, 1, b"\x00" * 16, 1))),
    "no id": framed(codec.encode(f.FrontendListens(f.PROTOCOL, b"short"))),
    "the supervisor's own id": framed(codec.encode(f.FrontendListens(f.PROTOCOL, bytes(8)))),
    "oversized length": b"\xff\xff\xff\xff",
    "length of a long hello": b"\x00\x01\x00\x00",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "another release": framed(codec.encode(f.FrontendListens(f.PROTOCOL + 1, b"\x01another"))),
}


@pytest.mark.parametrize("data", RUBBISH_OF_A_LISTENER.values(), ids=RUBBISH_OF_A_LISTENER.keys())
def test_rubbish_where_answers_come_from_drops_its_sender_alone(
    supervisor: LoneSupervisor, data: bytes
) -> None:
    """
    Design 6, at the third socket.
    """
    good = supervisor.frontend()
    dropped = len(supervisor.logged("peer dropped"))
    stranger = supervisor.listener_peer()

    stranger.send_raw(data)

    assert stranger.is_closed()
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "it is logged")
    assert good.call("health").value["is_healthy"] is True


@pytest.mark.usefixtures("many_descriptors")
def test_silent_connections_leave_room_for_who_listens(supervisor: LoneSupervisor) -> None:
    """
    Who says nothing keeps no place from a frontend that wants to be answered.
    """
    before = supervisor.connection_count("answers.sock")
    strangers = [supervisor.listener_peer() for _ in range(MAX_STRANGERS + 200)]

    assert supervisor.frontend().call("health").value["is_healthy"] is True
    assert strangers[0].is_closed()
    assert supervisor.connection_count("answers.sock") <= before + MAX_STRANGERS + 1
    for stranger in strangers:
        stranger.close()


def test_who_says_more_than_that_it_listens_is_dropped(supervisor: LoneSupervisor) -> None:
    """
    The way back is one way; nothing is asked on it, and no more is read.
    """
    good, bad = supervisor.frontend(), supervisor.frontend()
    dropped = len(supervisor.logged("peer dropped"))

    bad.answered_on.send(codec.encode(f.FrontendHello(f.PROTOCOL, 1)))

    assert bad.answered_on.is_closed()
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "it is logged")
    assert good.call("health").value["is_healthy"] is True


def test_hello_of_who_cannot_be_answered_counts_when_it_can(supervisor: LoneSupervisor) -> None:
    """
    The two ways are not in order; a frontend says hello until it is welcomed.
    """
    good, mute = supervisor.frontend(), supervisor.frontend()
    left = len(supervisor.logged("frontend left"))
    mute.answered_on.close()
    wait_until(lambda: len(supervisor.logged("frontend left")) > left, "it cannot be answered")
    joined = len(supervisor.logged("frontend joined"))
    mute.send(f.FrontendHello(f.PROTOCOL, 1))
    assert good.call("health").value["is_healthy"] is True
    assert len(supervisor.logged("frontend joined")) == joined

    mute.listen()

    assert len(mute.greet().incarnation) == 8


def test_frontend_that_listens_anew_is_answered_there(
    supervisor: LoneSupervisor, gate: Any
) -> None:
    """
    Whoever opened a second way back has given up the first one, and what it
    asked before is not begun any more.
    """
    frontend, other = supervisor.frontend(), supervisor.frontend()
    supervisor.register(frontend)
    frontend.submit("gate", "ahead", *[f"lost{i}" for i in range(5)])
    wait_until(lambda: "gate" in supervisor.handled(), "the first is in hand")
    wait_until(lambda: other.call("statistics").value["jobs"] == 7, "all are accepted")
    first = frontend.answered_on

    frontend.listen()

    assert first.is_closed()
    first.close()
    frontend.greet()
    gate()
    frontend.submit("after")
    # What a worker had already still comes: done, or left undone and so said.
    while frontend.answers()[-1].body != b"after":
        pass
    assert {"lost4", "lost3"}.isdisjoint(supervisor.handled())


def test_frontend_cannot_speak_for_another(supervisor: LoneSupervisor, gate: Any) -> None:
    """
    Job ids begin with their frontend's own id: nobody cancels or sends another's jobs.
    """
    victim, thief = supervisor.frontend(), supervisor.frontend()
    supervisor.register(victim)
    in_hand, queued = victim.submit("gate", "mine")
    dropped = len(supervisor.logged("peer dropped"))

    thief.send(f.Cancel([queued]))
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "the peer is dropped")
    gate()

    answers = victim.answers()
    while len(answers) < 2:
        answers += victim.answers()
    assert [answer.job_id for answer in answers] == [in_hand, queued]


def test_unknown_verbs_and_arguments_are_answered(supervisor: LoneSupervisor) -> None:
    """
    A newer frontend beside an older supervisor gets errors, not silence.
    """
    frontend = supervisor.frontend()

    results = [
        frontend.call("sing"),
        frontend.call("describe", model=7),
        frontend.call("scale", model="m", min_workers="many", max_workers=1),
        frontend.call("list"),
    ]

    assert {result.code for result in results} <= {"invalid_parameter", "model_not_found"}
    assert frontend.call("health").code is None


def test_jobs_are_answered_once_and_by_the_worker(supervisor: LoneSupervisor) -> None:
    """
    A job that is sent again while it is held is the same job.
    """
    frontend = supervisor.frontend()
    supervisor.register(frontend)
    job = frontend.job("hello")

    frontend.send(f.Submit([job, job]))
    (answer,) = frontend.answers()

    assert (answer.job_id, answer.body) == (job.job_id, b"hello")
    frontend.submit("the next")
    frontend.answers()
    wait_until(lambda: "the next" in supervisor.handled(), "its line is in the log")
    assert supervisor.handled().count("hello") == 1
    assert frontend.call("statistics").value["jobs"] == 0


def test_job_for_nobody_is_refused_with_its_reason(supervisor: LoneSupervisor) -> None:
    """
    The dialect needs code and details to say it in a client's words.
    """
    frontend = supervisor.frontend()
    job = frontend.job("x", model="ghost")

    frontend.send(f.Submit([job]))
    (refused,) = frontend.expect(f.Refused).jobs

    assert (refused.job_id, refused.code) == (job.job_id, "model_not_found")
    assert refused.details == {"model": "ghost"}


def test_jobs_of_a_frontend_that_vanished_are_cancelled(
    supervisor: LoneSupervisor, gate: Any
) -> None:
    """
    Its clients are gone with it: nobody works for them any more.
    """
    vanishing, staying = supervisor.frontend(), supervisor.frontend()
    supervisor.register(staying)
    vanishing.submit("gate")
    wait_until(lambda: "gate" in supervisor.handled(), "the first is in hand")
    vanishing.submit("ahead", *[f"lost{i}" for i in range(5)])
    wait_until(lambda: staying.call("statistics").value["jobs"] == 7, "all are accepted")

    left = len(supervisor.logged("frontend left"))
    vanishing.close()
    wait_until(lambda: len(supervisor.logged("frontend left")) > left, "it is noticed")
    assert staying.call("statistics").value["jobs"] == 0
    gate()
    staying.submit("after")
    staying.answers()

    wait_until(lambda: "after" in supervisor.handled(), "its line is in the log")
    assert {"lost4", "lost3"}.isdisjoint(supervisor.handled())
