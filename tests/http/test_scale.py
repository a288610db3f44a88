"""Scaling over HTTP: contracts/torchserve.md 3.5, 1.6, A4."""

from __future__ import annotations

import pytest

from stoker.errors import LoadFailed

PROCESSING = b'{\n  "status": "Processing worker updates..."\n}\n'
PARTIAL = b'{\n  "status": "Workers scaling in progress..."\n}\n'


@pytest.mark.parametrize(
    ("target", "outcome", "status", "body"),
    [
        ("/models/demo?min_worker=3", "scheduled", 202, PROCESSING),
        (
            "/models/demo?min_worker=3&synchronous=true",
            "ready",
            200,
            b'{\n  "status": "Workers scaled to 3 for model: demo"\n}\n',
        ),
        (
            "/models/demo/2.0?min_worker=3&synchronous=true",
            "ready",
            200,
            b'{\n  "status": "Workers scaled to 3 for model: demo, version: 2.0"\n}\n',
        ),
        (
            "/models/demo?min_worker=3&synchronous=true&model_version=2.0",
            "ready",
            200,
            b'{\n  "status": "Workers scaled to 3 for model: demo, version: 2.0"\n}\n',
        ),
        ("/models/demo?min_worker=3&synchronous=true", "partial", 206, PARTIAL),
    ],
)
def test_scale_outcomes(manage, target, outcome, status, body):
    """
    The table of 3.5 and the page's examples (A4).
    """
    answer = manage("PUT", target, "scale", {"outcome": outcome, "min_workers": 3})

    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (1, 1, None)),
        ("min_worker=2", (2, 2, None)),
        ("min_worker=0&max_worker=0&timeout=0", (0, 0, 0.0)),
        ("max_worker=4&timeout=15", (1, 4, 15.0)),
        ("min_worker=2&timeout=-1", (2, 2, None)),
    ],
)
def test_scale_reads_counts_and_the_time_to_drain(manage, supervisor, query, expected):
    """
    0 kills now, -1 waits for ever: seconds and None inside (the page, contracts/README).
    """
    manage("PUT", f"/models/demo?{query}", "scale", {"outcome": "scheduled", "min_workers": 1})

    arguments = supervisor.calls[-1][1]
    found = (arguments["min_workers"], arguments["max_workers"], arguments["drain_timeout_s"])
    assert found == expected
    assert arguments["synchronous"] is False
    assert (arguments["model"], arguments["version"]) == ("demo", None)


def test_version_in_the_path_is_stronger_than_the_parameter(manage, supervisor):
    """
    `model_version` counts only where the path names none (3.5).
    """
    outcome = {"outcome": "scheduled", "min_workers": 1}

    manage("PUT", "/models/demo/1.0?model_version=2.0&number_gpu=1", "scale", outcome)

    assert supervisor.calls[-1][1]["version"] == "1.0"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("max_worker=0", "max_worker cannot be less than min_worker."),
        ("min_worker=3&max_worker=2", "max_worker cannot be less than min_worker."),
        ("min_worker=-1", "min_worker cannot be negative."),
    ],
)
def test_scale_refuses_counts_that_contradict(manage, supervisor, query, message):
    """
    400 before anything is touched (1.6).
    """
    answer = manage("PUT", f"/models/demo?{query}", "scale", {})

    assert answer.json == {"code": 400, "type": "BadRequestException", "message": message}
    assert supervisor.calls == []


@pytest.mark.parametrize(("path", "shown"), [("/models/m", "null"), ("/models/m/1.0", "1.0")])
def test_failed_scale_names_the_version_as_the_request_did(manage, path, shown):
    """
    `version: null` is the peer's, and clients compare texts (1.6).
    """
    answer = manage(
        "PUT", f"{path}?synchronous=true", "scale", LoadFailed(model="m", version="1.0")
    )

    assert answer.status == 500
    assert answer.json["message"] == f"Failed to start workers for model m version: {shown}"
