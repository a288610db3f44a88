"""The short way of a prediction and the one through Falcon answer alike."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.errors import HandlerRefused, QueueFull, WorkerDied

FORM = ("Content-Type", "application/x-www-form-urlencoded")


def final(job: Any) -> list[Any]:
    return [
        job.final(b"seen", status=202, reason="Why", content_type="a/b", headers=(("X-A", "1"),))
    ]


def pieces(job: Any) -> list[Any]:
    return [job.chunk(b"one"), job.chunk(b"two"), job.final(b"end")]


def refusal(job: Any) -> list[Any]:
    return [job.error(HandlerRefused("field x missing", status=422))]


def full(job: Any) -> list[Any]:
    return [job.error(QueueFull("full", model="m", version=None, capacity=1))]


def death(job: Any) -> list[Any]:
    return [job.error(WorkerDied("died", model="m"))]


TARGETS = [
    "/predictions/{m}",
    "/predictions/{m}/2.0/way/to?x=1",
    "/explanations/{m}/2.0",
    "/v1/models/{m}:predict",
    "/v2/models/{m}/explain/",
]


@pytest.mark.parametrize("work", [final, pieces, refusal, full, death])
@pytest.mark.parametrize("target", TARGETS)
def test_both_ways_answer_alike(frontend: Any, supervisor: Any, work: Any, target: str) -> None:
    """
    A client that escapes a letter of the name must notice nothing but time.
    """
    supervisor.models["m"] = work

    short = frontend.request("inference", "POST", target.format(m="m"), b"a=1", [FORM])
    long = frontend.request("inference", "POST", target.format(m="%6d"), b"a=1", [FORM])

    assert short.status_line == long.status_line
    assert short.body == long.body
    differing = {"x-request-id"}
    assert [(k, v) for k, v in short.headers if k not in differing] == [
        (k, v) for k, v in long.headers if k not in differing
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_both_ways_send_the_same_job(frontend: Any, supervisor: Any, target: str) -> None:
    """
    What a handler sees must not depend on the way a request took.
    """
    seen: list[Any] = []
    supervisor.models["m"] = lambda job: (
        seen.append((job.job.version, job.headers, job.payload.parameters)) or final(job)
    )

    frontend.request("inference", "POST", target.format(m="m"), b"a=1&b=2", [FORM])
    frontend.request("inference", "POST", target.format(m="%6d"), b"a=1&b=2", [FORM])

    assert len(seen) == 2
    assert seen[0] == seen[1]
