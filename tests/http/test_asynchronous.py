"""Answers that are fetched later: contracts/djl-serving.md 3.6."""

from __future__ import annotations

import os
import shutil

import pytest
from facts import wait_until

from stoker.errors import WorkerDied
from stoker.frontend.results import FOLDER, Results
from stoker.wire.payloads import Answer, AnswerKind

LATER = (("x-synchronous", "false"),)


@pytest.fixture(scope="module")
def djl_of_module(start_for_module):
    return start_for_module(dialect="djl")


@pytest.fixture
def djl(djl_of_module, supervisor):
    supervisor.verbs["startup_models"] = lambda arguments: {"models": ["m"]}
    yield djl_of_module
    shutil.rmtree(djl_of_module.frontend.settings.runtime_dir / FOLDER, ignore_errors=True)


@pytest.fixture
def ask(djl):
    """A request that does not wait; the token it is given."""

    def asked(target="/predictions/m", body=b"", headers=LATER):
        answer = djl.request("inference", "POST", target, body, headers)
        assert (answer.status, answer.body) == (200, b""), answer.body
        token = answer.header("x-next-token")
        attributes = answer.header("x-amzn-sagemaker-custom-attributes")
        assert attributes == f"x-next-token={token}"
        return token

    return asked


@pytest.fixture
def fetch(djl):
    def fetched(token, **more):
        headers = [("x-starting-token", token)]
        headers += [(name.replace("_", "-"), value) for name, value in more.items()]
        return djl.request("inference", "POST", "/invocations", b"", tuple(headers))

    return fetched


def wait_until_there(fetch, token):
    wait_until(lambda: fetch(token).status != 202, "the result is there")
    return fetch(token)


def test_an_answer_is_fetched_with_its_token(supervisor, ask, fetch):
    """
    Status, headers and body as the handler set them, and no token any more.
    """
    supervisor.models["m"] = lambda job: [
        job.final(job.payload.parameters[-1].body * 2, status=201, headers=(("X-A", "1"),))
    ]
    token = ask(body=b"ab")

    answer = wait_until_there(fetch, token)

    assert (answer.status, answer.body, answer.header("X-A")) == (201, b"abab", "1")
    assert answer.header("x-next-token") is None
    assert fetch(token).body == b"abab"


def test_what_is_not_there_yet_is_a_202_with_the_token(supervisor, ask, fetch):
    """
    `The model result is not yet available`.
    """
    supervisor.models["m"] = lambda job: []
    token = ask()

    answer = fetch(token)

    assert answer.status_line == "HTTP/1.1 202 The model result is not yet available"
    assert (answer.header("x-next-token"), answer.body) == (token, b"")
    wait_until(lambda: supervisor.jobs, "the job is sent")
    supervisor.send_later(supervisor.jobs[-1].final(b"x"))
    assert wait_until_there(fetch, token).body == b"x"


def test_a_stream_is_fetched_piece_by_piece(supervisor, ask, fetch):
    """
    The next token is the id and the index of the last piece that was returned.
    """
    supervisor.models["m"] = lambda job: [job.chunk(piece) for piece in (b"a", b"b", b"c")]
    token = ask()
    wait_until(lambda: fetch(token).body == b"abc", "three pieces are there")

    first = fetch(token, x_max_items="2")
    second = fetch(first.header("x-next-token"))
    early = fetch(second.header("x-next-token"))
    supervisor.send_later(supervisor.jobs[-1].final(b"d"))
    wait_until(lambda: fetch(token).body == b"abcd", "the last piece is there")
    last = fetch(second.header("x-next-token"))

    assert (first.body, first.header("x-next-token")) == (b"ab", f"{token}1")
    assert (second.body, second.header("x-next-token")) == (b"c", f"{token}2")
    assert (early.status, early.header("x-next-token")) == (202, f"{token}2")
    assert (last.body, last.header("x-next-token")) == (b"d", None)


def test_all_of_it_works_through_sagemakers_header(supervisor, djl, ask):
    """
    Clients of SageMaker have no other header.
    """
    supervisor.models["m"] = lambda job: [job.final(b"x")]
    name = "X-Amzn-SageMaker-Custom-Attributes"
    token = ask(headers=((name, "a=1;x-synchronous=false"),))

    def fetched():
        header = ((name, f"x-starting-token={token}"),)
        return djl.request("inference", "POST", "/invocations", b"", header)

    wait_until(lambda: fetched().body == b"x", "the result is there")


def test_a_job_that_failed_is_a_500_with_its_message(supervisor, ask, fetch):
    """
    3.6.
    """

    def die(job):
        raise WorkerDied("A worker died.", model="m")

    supervisor.models["m"] = die
    token = ask()

    answer = wait_until_there(fetch, token)

    assert (answer.status, answer.body) == (500, b"A worker died.")


def test_a_client_that_is_gone_takes_no_answer_away(supervisor, djl, ask, fetch):
    """
    Its job is not cancelled: that is the point.
    """
    supervisor.models["m"] = lambda job: []
    token = ask(body=b"x" * 200_000)
    wait_until(lambda: supervisor.jobs, "the job is sent")
    (job,) = supervisor.jobs

    assert job.payload.parameters[0].body == b"x" * 200_000
    supervisor.send_later(job.final(b"late"))

    assert wait_until_there(fetch, token).body == b"late"
    assert supervisor.cancelled == []


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "Invalid x-starting-token: "),
        ("../../../etc/passwd", "Invalid x-starting-token: ../../../etc/passwd"),
        ("0" * 36, f"Invalid x-starting-token: {'0' * 36}"),
    ],
)
def test_a_token_that_nobody_gave_is_refused(fetch, token, message):
    """
    400, and no path of the server.
    """
    answer = fetch(token)

    assert (answer.status, answer.json["message"]) == (400, message)


def test_a_number_of_items_that_is_none_is_refused(supervisor, ask, fetch):
    """
    The peer's words for any other failure.
    """
    supervisor.models["m"] = lambda job: [job.final(b"x")]

    answer = fetch(ask(), x_max_items="many")

    assert (answer.status, answer.json["message"]) == (400, "Failed to lookup cache element")


def test_other_dialects_know_nothing_of_it(frontend, supervisor, echo):
    """
    There, such a header is the handler's business.
    """
    assert frontend.request("inference", "POST", "/predictions/echo", b"x", LATER).body == b"x"


# -- the results themselves ------------------------------------------------------------


def piece(kind, body):
    return Answer(b"", kind, 200, "", None, [], body)


def test_results_are_bounded_in_number(tmp_path):
    """
    Who does not fetch is refused, not the server filled.
    """
    results = Results(tmp_path / "r", 2, 1000, 60)
    results.begin()
    results.begin()

    with pytest.raises(Exception, match="Too many results"):
        results.begin()


def test_results_are_bounded_in_bytes(tmp_path):
    """
    The one that finds no room fails; its client is told.
    """
    results = Results(tmp_path / "r", 9, 1000, 60)
    kept = results.begin()

    kept.put(piece(AnswerKind.CHUNK, b"x" * 500))
    kept.put(piece(AnswerKind.FINAL, b"x" * 600))

    found = results.find(kept.token)
    assert len(found.pieces[0].body) == 500
    assert (found.has_ended, found.pieces[-1].status) == (True, 500)


def test_results_that_are_too_old_go(tmp_path):
    """
    A token that was forgotten costs nothing for ever.
    """
    results = Results(tmp_path / "r", 9, 1000, 60)
    kept = results.begin()
    kept.put(piece(AnswerKind.FINAL, b"x"))
    path = tmp_path / "r" / kept.token
    os.utime(path, (1, 1))

    Results(tmp_path / "r", 9, 1000, 60).begin()

    assert not path.exists()


def test_a_result_whose_keeper_is_gone_says_so(tmp_path, monkeypatch):
    """
    Nobody will ever add its end.
    """
    results = Results(tmp_path / "r", 9, 1000, 60)
    kept = results.begin()
    kept.put(piece(AnswerKind.CHUNK, b"x"))
    monkeypatch.setattr("stoker.frontend.results.start_ticks", lambda pid: None)

    found = results.find(kept.token)

    assert (found.has_ended, found.pieces[-1].status) == (True, 500)


def test_a_row_that_is_just_being_written_is_not_read(tmp_path):
    """
    Another process may look at any moment.
    """
    results = Results(tmp_path / "r", 9, 1000, 60)
    kept = results.begin()
    kept.put(piece(AnswerKind.CHUNK, b"x"))
    with (tmp_path / "r" / kept.token).open("ab") as file:
        file.write(b"\0\0\1\0half")

    assert [each.body for each in results.find(kept.token).pieces] == [b"x"]
