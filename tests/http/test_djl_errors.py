"""DJL Serving's error table, where it is its own: contracts/djl-serving.md 2."""

from __future__ import annotations

import pytest
from peer_errors import BAD, BUG, INTERNAL, NOT_FOUND, UNAVAILABLE, WORDS, document_of

from stoker.errors import from_wire
from stoker.frontend.dialects.djl import Djl
from stoker.frontend.dialects.shared.errors import common_problems
from stoker.settings import Settings

ENGINE, MODEL, WLM = "EngineException", "ModelException", "WlmException"
NO_MODEL = "Model or workflow not found: m"
#: code, or verb/code: (status, type, message); a type of None: a handler's document.
ROWS: dict[str, tuple[int, str | None, str]] = {
    "https_required": (403, "", "This server only accepts HTTPS requests"),
    "predict/invalid_parameter": (400, BAD, WORDS),
    "predict/invalid_body": (400, BAD, WORDS),
    "model_not_found": (404, NOT_FOUND, NO_MODEL),
    "version_not_found": (404, NOT_FOUND, NO_MODEL),
    "describe/model_not_found": (404, NOT_FOUND, "Workflow not found: m"),
    "describe/version_not_found": (404, NOT_FOUND, "Workflow not found: m"),
    "version_exists": (409, BAD, "Workflow m:v1 is already registered."),
    "load_failed": (500, ENGINE, "Failed to initialize model: ValueError: no"),
    "load_out_of_memory": (507, ENGINE, "OOM"),
    "spawn_failed": (507, "WlmOutOfMemoryException", "No enough memory to load the model."),
    "not_enough_memory": (507, "WlmOutOfMemoryException", "No enough memory to load the model."),
    "not_enough_devices": (500, ENGINE, "GPU devices are not enough to run 4 partitions."),
    "no_worker": (503, WLM, "Model is not ready: m"),
    "predict/no_worker": (503, WLM, "Model is not ready: m"),
    "queue_full": (
        503,
        "WlmCapacityException",
        "Worker queue capacity exceeded for model: m",
    ),
    "unregistered": (503, WLM, "Worker shutting down"),
    "deadline_exceeded": (503, WLM, WORDS),
    "cancelled": (503, WLM, WORDS),
    "worker_died": (503, WLM, WORDS),
    "worker_out_of_memory": (503, WLM, WORDS),
    "quarantined": (503, WLM, WORDS),
    "handler_failed": (424, None, WORDS),
    "handler_refused": (424, None, WORDS),
    "handler_out_of_memory": (507, None, WORDS),
    "device_out_of_memory": (507, None, WORDS),
    "bad_handler_result": (400, "TranslateException", WORDS),
    "response_too_large": (503, WLM, WORDS),
    "too_many_sequences": (503, UNAVAILABLE, WORDS),
    "sequence_queue_full": (503, UNAVAILABLE, WORDS),
    "sequence_closed": (503, UNAVAILABLE, WORDS),
    "sequence_lost": (503, UNAVAILABLE, WORDS),
    "environment_failed": (400, MODEL, WORDS),
    "sandbox_missing": (400, MODEL, WORDS),
    "archive": (400, MODEL, WORDS),
    "archive_url_empty": (404, NOT_FOUND, "Invalid model url: u.zip"),
    "archive_url_relative": (404, NOT_FOUND, "Invalid model url: u.zip"),
    "archive_url_not_allowed": (404, NOT_FOUND, "Permission denied: u.zip"),
    "archive_not_found": (404, NOT_FOUND, "Invalid model url: u.zip"),
    "download_failed": (404, NOT_FOUND, "Invalid model url: u.zip"),
    "archive_unreadable": (400, MODEL, WORDS),
    "manifest_invalid": (400, MODEL, WORDS),
    "engine_missing": (400, MODEL, WORDS),
    "engine_unknown": (404, NOT_FOUND, WORDS),
    "endpoint_method_missing": (503, UNAVAILABLE, "Invalid HTTP method received"),
    "endpoint_broken": (500, INTERNAL, "I/O error while running the custom endpoint"),
    "endpoint_failed": (500, INTERNAL, "Unknown exception"),
    "predict/internal": (500, INTERNAL, BUG),
}
DETAILS = {
    "model": "m",
    "version": "v1",
    "url": "u.zip",
    "wanted": 4,
    "last_line": "ValueError: no",
}


def told(row, words=WORDS, arguments=None, settings=None, **details):
    verb, _, code = row.rpartition("/")
    dialect = Djl(settings or Settings())
    problem = dialect.problem(from_wire(code, words, {**DETAILS, **details}), verb, arguments)
    document = dialect.error_document(problem)
    document.pop("failure", None)
    return problem.status, document


@pytest.mark.parametrize("row", ROWS)
def test_each_error_is_told_as_the_peer_tells_it(row):
    """
    Status, type and text; clients match on all three.
    """
    status, kind, message = ROWS[row]

    if kind is None:
        expected = {"code": status, "message": "invoke handler failure", "error": message}
    else:
        expected = document_of(status, kind, message)
    assert told(row) == (status, expected)


def test_every_row_of_the_dialect_is_tested_here():
    """
    A row without a test is a row that nobody meant; those of all peers have theirs elsewhere.
    """
    own = {*Djl(Settings()).problems} - {*common_problems(503)}

    assert own <= {*ROWS} <= {*Djl(Settings()).problems}


def test_a_version_is_named_twice_where_the_peer_does():
    """
    2, fixed texts: describe of a version that is not there.
    """
    _, document = told("describe/version_not_found", arguments={"version": "v9"})

    assert document["message"] == "Workflow not found: Workflow not found: m/v9"


def test_a_conflict_names_no_version_that_nobody_named():
    """
    4.1: `Workflow <name>[:<version>] is already registered.`
    """
    _, document = told("version_exists", arguments={"version": "1.0", "is_unversioned": True})

    assert document["message"] == "Workflow m is already registered."


def test_a_model_without_workers_was_shut_down():
    """
    4.3: `min=0,max=0` stops the workers; before they are there it is another text.
    """
    _, document = told("predict/no_worker", is_shut_down=True)

    assert document["message"] == "All model workers has been shutdown: m"


def test_what_a_handler_says_of_its_loading_is_said_once():
    """
    13.6.
    """
    _, document = told("load_failed", last_line="Failed to initialize model: no weights")

    assert document["message"] == "Failed to initialize model: no weights"


def test_a_number_that_is_none_has_the_peers_words():
    """
    1.
    """
    _, document = told("invalid_parameter", kind="integer", value="two")

    assert document["message"] == 'parameter is invalid number.For input string: "two"'


@pytest.mark.parametrize(
    ("setting", "rows"),
    [
        ("bad_request_http_code", ("predict/invalid_body", "bad_handler_result")),
        ("throttle_error_http_code", ("queue_full",)),
        ("wlm_error_http_code", ("predict/no_worker", "worker_died", "unregistered")),
        ("server_error_http_code", ("predict/internal",)),
    ],
)
def test_operators_choose_the_statuses_of_failed_predictions(setting, rows):
    """
    2, second table: the peer's keys.
    """
    settings = Settings(**{setting: 429})

    assert {told(row, settings=settings)[0] for row in rows} == {429}
    assert told("invalid_body", settings=settings)[0] == 400
    assert told("internal", settings=settings)[0] == 500


def test_of_a_workflow_the_failing_nodes_error_is_told():
    """
    8.3: its class decides the status; ours says which node it was.
    """
    failed = from_wire(
        "workflow_node_failed",
        "Node n of workflow w failed: no",
        {"workflow": "w", "node": "n", "request_id": "r", "cause": "queue_full", "reason": "no"},
    )

    problem = Djl(Settings()).problem(failed, "predict", {"model": "w", "version": None})

    assert (problem.status, problem.kind) == (503, "WlmCapacityException")
    assert problem.message == "Worker queue capacity exceeded for model: n"
    assert {**problem.failure, "message": ""} == {
        "node": "n",
        "request_id": "r",
        "cause": "queue_full",
        "message": "",
    }
