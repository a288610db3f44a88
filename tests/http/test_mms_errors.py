"""MMS's error table, row by row: contracts/mms.md 4, and ours beside it."""

from __future__ import annotations

import pytest

from stoker.errors import from_wire
from stoker.frontend import endpoints, keyring, problems
from stoker.frontend.dialects.mms import Mms
from stoker.frontend.dialects.shared.errors import common_problems
from stoker.settings import Settings

BAD, INTERNAL = "BadRequestException", "InternalServerException"
NOT_FOUND, UNAVAILABLE = "ModelNotFoundException", "ServiceUnavailableException"
TIMED_OUT, INVALID = "RequestTimeoutException", "InvalidModelException"
ENDPOINT = "ModelServerEndpointException"
NO_WORKER = (
    "No worker is available to serve request for model: m. Consider increasing job queue size."
)
WORDS = "The error's own words."
KEY = "Token either incorrect, expired, or not provided correctly"
#: code: (status, type, message)
ROWS: dict[str, tuple[int, str, str]] = {
    "malformed_http": (400, BAD, "Invalid HTTP message."),
    "route_not_found": (
        404,
        "ResourceNotFoundException",
        "Requested resource is not found, please refer to API document.",
    ),
    "method_not_allowed": (
        405,
        "MethodNotAllowedException",
        "Requested method is not allowed, please refer to API document.",
    ),
    "token_refused": (400, "InvalidKeyException", f"Token Authorization failed. {KEY}"),
    "key_renewal_refused": (400, "InvalidKeyException", f"Token Authentication failed. {KEY}"),
    "https_required": (403, "", "This MMS instance only accepts HTTPS requests"),
    "cross_site_refused": (403, "ForbiddenException", WORDS),
    "keys_busy": (503, UNAVAILABLE, WORDS),
    "invalid_parameter": (400, BAD, WORDS),
    "invalid_body": (400, BAD, WORDS),
    "request_too_large": (413, BAD, WORDS),
    "head_too_slow": (408, TIMED_OUT, WORDS),
    "body_too_slow": (408, TIMED_OUT, WORDS),
    "too_many_requests": (503, UNAVAILABLE, WORDS),
    "model_not_found": (404, NOT_FOUND, "Model not found: m"),
    "version_not_found": (404, NOT_FOUND, "Model not found: m"),
    "version_exists": (409, "ConflictStatusException", "Model m is already registered."),
    "default_version_in_use": (
        403,
        "InvalidModelVersionException",
        "Cannot remove default version for model m",
    ),
    "load_failed": (500, INTERNAL, "Failed to start workers"),
    "load_out_of_memory": (507, INTERNAL, "Failed to start workers"),
    "spawn_failed": (500, INTERNAL, "Failed to start workers"),
    "not_enough_memory": (507, INTERNAL, WORDS),
    "not_enough_devices": (500, INTERNAL, "Failed to start workers"),
    "unregister_timeout": (408, TIMED_OUT, "Timed out while cleaning resources: m"),
    "state_not_written": (500, INTERNAL, WORDS),
    "no_worker": (503, UNAVAILABLE, NO_WORKER),
    "queue_full": (503, UNAVAILABLE, NO_WORKER),
    "shutting_down": (503, UNAVAILABLE, WORDS),
    "unregistered": (503, UNAVAILABLE, WORDS),
    "deadline_exceeded": (408, TIMED_OUT, WORDS),
    "cancelled": (503, UNAVAILABLE, WORDS),
    "worker_died": (500, INTERNAL, "Worker died."),
    "worker_out_of_memory": (507, INTERNAL, "Worker died."),
    "quarantined": (500, INTERNAL, WORDS),
    "supervisor_unavailable": (503, UNAVAILABLE, WORDS),
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
    "model_store_missing": (404, NOT_FOUND, "Model store has not been configured."),
    "download_failed": (
        400,
        "DownloadModelException",
        "Failed to download model from: u.mar",
    ),
    "archive_unreadable": (500, INTERNAL, "Failed to save model: u.mar"),
    "manifest_invalid": (400, INVALID, WORDS),
    "engine_missing": (400, INVALID, WORDS),
    "engine_unknown": (400, INVALID, WORDS),
    "runtime_invalid": (400, BAD, "Invalid RuntimeType value: cobol"),
    "workflow_not_found": (404, "WorkflowNotFoundException", "Workflow not found: w"),
    "workflow_exists": (409, "ConflictStatusException", "Workflow w is already registered."),
    "workflow_invalid": (400, "InvalidWorkflowException", WORDS),
    "graph_invalid": (400, "InvalidDAGException", WORDS),
    "workflow_not_loaded": (
        500,
        "WorkflowException",
        "Workflow w has failed to register. Failures: [f]",
    ),
    "workflow_node_failed": (500, INTERNAL, "Error executing n"),
    "endpoint_method_missing": (500, ENDPOINT, "No implementation found"),
    "endpoint_broken": (500, ENDPOINT, "I/O error while running the custom endpoint"),
    "endpoint_failed": (500, ENDPOINT, "Unknown exception"),
    "internal": (
        500,
        INTERNAL,
        "Internal server error; the log has more under the request id.",
    ),
}
WORKFLOW = {"workflow": "w", "failures": "f"}
#: Modules with errors of their own, which are known from here on.
SOURCES = (endpoints, keyring, problems)
DETAILS = {"model": "m", "url": "u.mar", "runtime": "cobol", **WORKFLOW}


def told(code, words=WORDS, **details):
    dialect = Mms(Settings())
    known = {**DETAILS, **({"node": "n"} if code == "workflow_node_failed" else {})}
    problem = dialect.problem(from_wire(code, words, {**known, **details}))
    return problem.status, dialect.error_document(problem)


@pytest.mark.parametrize("code", ROWS)
def test_each_error_is_told_as_the_peer_tells_it(code):
    """
    Status, type and text; clients match on all three.
    """
    status, kind, message = ROWS[code]

    document = {"code": status, "type": kind, "message": message} if kind else {"status": message}
    if code == "workflow_node_failed":
        document["failure"] = {"message": WORDS, "node": "n"}
    assert told(code) == (status, document)


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
