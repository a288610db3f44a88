"""Errors as all three peers tell them: one shape, one set of type names, many equal rows.

A dialect's table is these rows and its own over them.  `type` strings are Java
simple class names; clients match on them.

Source: contracts/torchserve.md 1.5, 1.6; contracts/mms.md 3, 4; contracts/djl-serving.md 2.
"""

from __future__ import annotations

from typing import Any, Final

from stoker.frontend.dialects.shared.records import describe_failure
from stoker.frontend.problems import Problem
from stoker.frontend.problems import ProblemRow as Row

BAD_REQUEST: Final = "BadRequestException"
CONFLICT: Final = "ConflictStatusException"
INTERNAL: Final = "InternalServerException"
INVALID_MODEL: Final = "InvalidModelException"
MODEL_NOT_FOUND: Final = "ModelNotFoundException"
TIMED_OUT: Final = "RequestTimeoutException"
WORKFLOW_NOT_FOUND: Final = "WorkflowNotFoundException"
UNAVAILABLE: Final = "ServiceUnavailableException"
_INVALID_KEY: Final = "InvalidKeyException"

#: Long enough for a queue to move, short enough not to idle a client.
RETRY_SOON_S: Final = 1
_NOT_ALLOWED: Final = "Requested method is not allowed, please refer to API document."
_NO_PATH: Final = "Requested resource is not found, please refer to API document."
_WRONG_KEY: Final = "Token either incorrect, expired, or not provided correctly"


def error_document(problem: Problem) -> dict[str, Any]:
    """`{code, type, message}`; `failure` is ours, of a failed load or a worker's death."""
    if not problem.kind:
        return {"status": problem.message}
    document: dict[str, Any] = {"code": problem.status, "type": problem.kind}
    if problem.message:
        document["message"] = problem.message
    if problem.failure:
        document["failure"] = describe_failure(problem.failure)
    return document


def common_problems(queue_full_status: int) -> dict[str, Row]:
    """A row for every error there is; `queue_full_status` is a setting."""
    return {
        # the request itself
        "malformed_http": Row(400, BAD_REQUEST, "Invalid HTTP message."),
        "route_not_found": Row(404, "ResourceNotFoundException", _NO_PATH),
        "method_not_allowed": Row(405, "MethodNotAllowedException", _NOT_ALLOWED),
        "token_refused": Row(400, _INVALID_KEY, f"Token Authorization failed. {_WRONG_KEY}"),
        "key_renewal_refused": Row(400, _INVALID_KEY, f"Token Authentication failed. {_WRONG_KEY}"),
        "https_required": Row(403, "", "This server only accepts HTTPS requests"),
        "cross_site_refused": Row(403, "ForbiddenException"),
        "keys_busy": Row(503, UNAVAILABLE, retry_after_s=RETRY_SOON_S),
        "invalid_parameter": Row(400, BAD_REQUEST),
        "invalid_body": Row(400, BAD_REQUEST),
        "request_too_large": Row(413, BAD_REQUEST),
        "head_too_slow": Row(408, TIMED_OUT),
        "body_too_slow": Row(408, TIMED_OUT),
        "too_many_requests": Row(503, UNAVAILABLE, retry_after_s=RETRY_SOON_S),
        # models and versions
        "model_not_found": Row(404, MODEL_NOT_FOUND, "Model not found: {model}"),
        "version_not_found": Row(404, MODEL_NOT_FOUND, "Model not found: {model}"),
        "version_exists": Row(409, CONFLICT, "Model {model} is already registered."),
        "default_version_in_use": Row(
            403, "InvalidModelVersionException", "Cannot remove default version for model {model}"
        ),
        "load_failed": Row(500, INTERNAL, "Failed to start workers"),
        "load_out_of_memory": Row(507, INTERNAL, "Failed to start workers"),
        "spawn_failed": Row(500, INTERNAL, "Failed to start workers"),
        "not_enough_devices": Row(500, "WorkerInitializationException"),
        "not_enough_memory": Row(507, INTERNAL, retry_after_s=RETRY_SOON_S),
        "unregister_timeout": Row(408, TIMED_OUT, "Timed out while cleaning resources: {model}"),
        "state_not_written": Row(500, INTERNAL, retry_after_s=RETRY_SOON_S),
        # jobs
        "no_worker": Row(503, UNAVAILABLE),
        "queue_full": Row(queue_full_status, UNAVAILABLE, retry_after_s=RETRY_SOON_S),
        "sequence_queue_full": Row(503, UNAVAILABLE, retry_after_s=RETRY_SOON_S),
        "too_many_sequences": Row(503, UNAVAILABLE, retry_after_s=RETRY_SOON_S),
        "sequence_closed": Row(503, UNAVAILABLE),
        "sequence_lost": Row(503, UNAVAILABLE),
        "shutting_down": Row(503, UNAVAILABLE, retry_after_s=RETRY_SOON_S),
        "unregistered": Row(503, UNAVAILABLE),
        "deadline_exceeded": Row(408, TIMED_OUT),
        "cancelled": Row(503, UNAVAILABLE),
        "worker_died": Row(500, INTERNAL, "Worker died."),
        "worker_out_of_memory": Row(507, INTERNAL, "Worker died."),
        "quarantined": Row(500, INTERNAL),
        "supervisor_unavailable": Row(503, UNAVAILABLE, retry_after_s=RETRY_SOON_S),
        # handlers
        "handler_failed": Row(503, INTERNAL, "Prediction failed"),
        "handler_refused": Row(500, INTERNAL),
        "handler_out_of_memory": Row(507, INTERNAL, "Out of resources"),
        "device_out_of_memory": Row(507, INTERNAL, "Out of resources"),
        "bad_handler_result": Row(503, INTERNAL),
        "response_too_large": Row(500, INTERNAL, "Worker died."),
        # archives
        "environment_failed": Row(400, "ModelException"),
        "archive": Row(500, INTERNAL, "Failed to save model: {url}"),
        "archive_url_empty": Row(404, MODEL_NOT_FOUND, "empty url"),
        "archive_url_relative": Row(
            404, MODEL_NOT_FOUND, "Relative path is not allowed in url: {url}"
        ),
        "archive_url_not_allowed": Row(
            404, MODEL_NOT_FOUND, "Given URL {url} does not match any allowed URL(s)"
        ),
        "archive_not_found": Row(404, MODEL_NOT_FOUND, "Model not found at: {url}"),
        "model_store_missing": Row(404, MODEL_NOT_FOUND, "Model store has not been configured."),
        "download_failed": Row(
            400, "DownloadArchiveException", "Failed to download archive from: {url}"
        ),
        "archive_unreadable": Row(500, INTERNAL, "Failed to save model: {url}"),
        "manifest_invalid": Row(400, INVALID_MODEL),
        "sandbox_missing": Row(400, INVALID_MODEL),
        "engine_missing": Row(400, INVALID_MODEL),
        "engine_unknown": Row(400, INVALID_MODEL),
        "runtime_invalid": Row(400, BAD_REQUEST, "Invalid RuntimeType value: {runtime}"),
        # workflows
        "workflow_not_found": Row(404, WORKFLOW_NOT_FOUND, "Workflow not found: {workflow}"),
        "workflow_exists": Row(409, CONFLICT, "Workflow {workflow} is already registered."),
        "workflow_invalid": Row(400, "InvalidWorkflowException"),
        "graph_invalid": Row(400, "InvalidDAGException"),
        "workflow_not_loaded": Row(
            500,
            "WorkflowException",
            "Workflow {workflow} has failed to register. Failures: [{failures}]",
        ),
        "workflow_node_failed": Row(500, INTERNAL, "Error executing {node}"),
        # endpoints of the operator's own
        "endpoint_method_missing": Row(503, UNAVAILABLE, "Invalid HTTP method received"),
        "endpoint_broken": Row(500, INTERNAL, "I/O error while running the custom endpoint"),
        "endpoint_failed": Row(500, INTERNAL, "Unknown exception"),
        # stoker itself
        "internal": Row(
            500, INTERNAL, "Internal server error; the log has more under the request id."
        ),
    }
