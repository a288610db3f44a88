"""Errors that the peers tell alike, to the letter."""

from __future__ import annotations

from typing import Any

from stoker.frontend import endpoints, keyring, problems

#: Modules with errors of their own, which are known from here on.
SOURCES = (endpoints, keyring, problems)
BAD, INTERNAL = "BadRequestException", "InternalServerException"
NOT_FOUND, UNAVAILABLE = "ModelNotFoundException", "ServiceUnavailableException"
TIMED_OUT = "RequestTimeoutException"
WORDS = "The error's own words."
BUG = "Internal server error; the log has more under the request id."
KEY = "Token either incorrect, expired, or not provided correctly"

#: code, or verb/code: (status, type, message); without a type: no document but a plain status.
COMMON: dict[str, tuple[int, str, str]] = {
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
    "cross_site_refused": (403, "ForbiddenException", WORDS),
    "keys_busy": (503, UNAVAILABLE, WORDS),
    "invalid_parameter": (400, BAD, WORDS),
    "invalid_body": (400, BAD, WORDS),
    "request_too_large": (413, BAD, WORDS),
    "head_too_slow": (408, TIMED_OUT, WORDS),
    "body_too_slow": (408, TIMED_OUT, WORDS),
    "too_many_requests": (503, UNAVAILABLE, WORDS),
    "default_version_in_use": (
        403,
        "InvalidModelVersionException",
        "Cannot remove default version for model m",
    ),
    "unregister_timeout": (408, TIMED_OUT, "Timed out while cleaning resources: m"),
    "state_not_written": (500, INTERNAL, WORDS),
    "shutting_down": (503, UNAVAILABLE, WORDS),
    "supervisor_unavailable": (503, UNAVAILABLE, WORDS),
    "model_store_missing": (404, NOT_FOUND, "Model store has not been configured."),
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
    "internal": (500, INTERNAL, BUG),
}


def document_of(status: int, kind: str, message: str) -> dict[str, Any]:
    return {"code": status, "type": kind, "message": message} if kind else {"status": message}
