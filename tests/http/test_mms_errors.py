"""MMS's error table, where it is its own: contracts/mms.md 4."""

from __future__ import annotations

import pytest
from peer_errors import BAD, INTERNAL, NOT_FOUND, TIMED_OUT, UNAVAILABLE, WORDS, document_of

from stoker.errors import from_wire
from stoker.frontend.dialects.mms import Mms
from stoker.frontend.dialects.shared.errors import common_problems
from stoker.settings import Settings

INVALID = "InvalidModelException"
ENDPOINT = "ModelServerEndpointException"
NO_WORKER = (
    "No worker is available to serve request for model: m. Consider increasing job queue size."
)
#: code: (status, type, message)
ROWS: dict[str, tuple[int, str, str]] = {
    "https_required": (403, "", "This MMS instance only accepts HTTPS requests"),
    "model_not_found": (404, NOT_FOUND, "Model not found: m"),
    "version_not_found": (404, NOT_FOUND, "Model not found: m"),
    "version_exists": (409, "ConflictStatusException", "Model m is already registered."),
    "load_failed": (500, INTERNAL, "Failed to start workers"),
    "load_out_of_memory": (507, INTERNAL, "Failed to start workers"),
    "spawn_failed": (500, INTERNAL, "Failed to start workers"),
    "not_enough_memory": (507, INTERNAL, WORDS),
    "not_enough_devices": (500, INTERNAL, "Failed to start workers"),
    "no_worker": (503, UNAVAILABLE, NO_WORKER),
    "queue_full": (503, UNAVAILABLE, NO_WORKER),
    "unregistered": (503, UNAVAILABLE, WORDS),
    "deadline_exceeded": (408, TIMED_OUT, WORDS),
    "cancelled": (503, UNAVAILABLE, WORDS),
    "worker_died": (500, INTERNAL, "Worker died."),
    "worker_out_of_memory": (507, INTERNAL, "Worker died."),
    "quarantined": (500, INTERNAL, WORDS),
    "handler_failed": (503, INTERNAL, "Prediction failed"),
    "handler_refused": (500, INTERNAL, WORDS),
    "handler_out_of_memory": (507, INTERNAL, "Out of resources"),
    "device_out_of_memory": (507, INTERNAL, "Out of resources"),
    "bad_handler_result": (503, INTERNAL, WORDS),
    "response_too_large": (500, INTERNAL, "Worker died."),
    "environment_failed": (400, INVALID, WORDS),
    "archive": (500, INTERNAL, "Failed to save model: u.mar"),
    "archive_url_empty": (400, BAD, "Parameter url is required."),
    "archive_url_relative": (404, NOT_FOUND, "Relative path is not allowed in url: u.mar"),
    "archive_url_not_allowed": (
        404,
        NOT_FOUND,
        "Given URL u.mar does not match any allowed URL(s)",
    ),
    "archive_not_found": (404, NOT_FOUND, "Model not found in model store: u.mar"),
    "download_failed": (
        400,
        "DownloadModelException",
        "Failed to download model from: u.mar",
    ),
    "archive_unreadable": (500, INTERNAL, "Failed to save model: u.mar"),
    "manifest_invalid": (400, INVALID, WORDS),
    "engine_missing": (400, INVALID, WORDS),
    "engine_unknown": (400, INVALID, WORDS),
    "endpoint_method_missing": (500, ENDPOINT, "No implementation found"),
    "endpoint_broken": (500, ENDPOINT, "I/O error while running the custom endpoint"),
    "endpoint_failed": (500, ENDPOINT, "Unknown exception"),
}
DETAILS = {"model": "m", "url": "u.mar"}


def told(code, words=WORDS, **details):
    dialect = Mms(Settings())
    problem = dialect.problem(from_wire(code, words, {**DETAILS, **details}))
    return problem.status, dialect.error_document(problem)


@pytest.mark.parametrize("code", ROWS)
def test_each_error_is_told_as_the_peer_tells_it(code):
    """
    Status, type and text; clients match on all three.
    """
    status, kind, message = ROWS[code]

    assert told(code) == (status, document_of(status, kind, message))


def test_every_row_that_is_mms_own_is_tested_here():
    """
    A row without a test is a row that nobody meant.  What all peers say alike is tested once.
    """
    common = common_problems(503)
    own = {code for code, row in Mms(Settings()).problems.items() if row != common.get(code)}

    assert own <= {*ROWS}


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ({"status": 404}, "Failed to download model from: u.mar, code: 404"),
        ({"is_timeout": True}, "Download model timeout: u.mar"),
        ({}, "Failed to download model from: u.mar"),
    ],
)
def test_a_failed_download_says_how_it_failed(details, said):
    """
    The server's status, silence, or neither.
    """
    assert told("download_failed", **details)[1]["message"] == said


def test_a_failed_node_is_named_beside_the_peers_words():
    """
    `failure` is ours.
    """
    document = told("workflow_node_failed", workflow="w", node="n")[1]

    assert document["failure"] == {"message": WORDS, "node": "n"}


def test_a_malformed_url_is_told_apart_from_one_that_is_not_allowed():
    """
    404 `Invalid model url`.
    """
    document = told("archive_url_not_allowed", is_malformed=True)[1]

    assert document["message"] == "Invalid model url: u.mar"


def test_a_missing_handler_has_the_peers_words():
    """
    9.4; the other texts are the same for all peers.
    """
    document = told("manifest_invalid", "Handler is not defined.")[1]

    assert document["message"] == "Model handler is not defined."


def test_queue_full_status_is_a_setting():
    """
    As for every dialect, and the answer says when to come again.
    """
    problem = Mms(Settings(queue_full_status=429)).problem(from_wire("queue_full", "", {}))

    assert (problem.status, problem.retry_after_s) == (429, 1)
