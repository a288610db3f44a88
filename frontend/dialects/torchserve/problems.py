"""TorchServe's error table: contracts/torchserve.md 1.6, row by row.

`type` strings are Java simple class names; clients match on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.problems import ProblemRow as Row

_BAD_REQUEST: Final = "BadRequestException"
_INVALID_KEY: Final = "InvalidKeyException"
_INTERNAL: Final = "InternalServerException"
_MODEL_NOT_FOUND: Final = "ModelNotFoundException"
_UNAVAILABLE: Final = "ServiceUnavailableException"

#: Long enough for a queue to move, short enough not to idle a client.
_RETRY_SOON_S: Final = 1
_NOT_ALLOWED: Final = "Requested method is not allowed, please refer to API document."
_NOT_STARTED: Final = "Failed to start workers for model {model} version: {version}"


def _no_worker(fields: Mapping[str, Any]) -> str:
    # The stray quote after the version is the peer's; clients compare texts.
    version = f' Version {fields["asked_version"]}"' if fields["asked_version"] else ""
    return (
        f'Model "{fields["model"]}"{version} has no worker to serve inference request. '
        "Please use scale workers API to add workers. If this is a sequence inference, please "
        "check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
    )


def _no_describer(fields: Mapping[str, Any]) -> str:
    return (
        f'Model "{fields["model"]}" has no worker to serve describe request. '
        "Please use scale workers API to add workers."
    )


def _silent_describer(fields: Mapping[str, Any]) -> str:
    is_silent = fields["reason"] == "timeout"
    # `matadata` is the peer's.
    return "Failed to get customized model matadata." if is_silent else "Worker died."


def _not_scaled(fields: Mapping[str, Any]) -> str:
    # `null` is what the peer prints when the request named no version.
    return _NOT_STARTED.format(model=fields["model"], version=fields["asked_version"] or "null")


def torchserve_problems(queue_full_status: int) -> dict[str, Row]:
    """The whole table; `queue_full_status` is a setting."""
    return {
        # the request itself
        "malformed_http": Row(400, _BAD_REQUEST, "Invalid HTTP message."),
        "route_not_found": Row(
            404,
            "ResourceNotFoundException",
            "Requested resource is not found, please refer to API document.",
        ),
        "method_not_allowed": Row(405, "MethodNotAllowedException", _NOT_ALLOWED),
        "token_refused": Row(
            400,
            _INVALID_KEY,
            "Token Authorization failed. "
            "Token either incorrect, expired, or not provided correctly",
        ),
        "key_renewal_refused": Row(
            400,
            _INVALID_KEY,
            "Token Authentication failed. "
            "Token either incorrect, expired, or not provided correctly",
        ),
        "https_required": Row(403, "", "This TorchServe instance only accepts HTTPS requests"),
        "cross_site_refused": Row(403, "ForbiddenException"),
        "keys_busy": Row(503, _UNAVAILABLE, retry_after_s=_RETRY_SOON_S),
        "invalid_parameter": Row(400, _BAD_REQUEST),
        "invalid_body": Row(400, _BAD_REQUEST),
        "request_too_large": Row(413, _BAD_REQUEST),
        "head_too_slow": Row(408, "RequestTimeoutException"),
        "body_too_slow": Row(408, "RequestTimeoutException"),
        "too_many_requests": Row(503, _UNAVAILABLE, retry_after_s=_RETRY_SOON_S),
        # models and versions
        "model_not_found": Row(404, _MODEL_NOT_FOUND, "Model not found: {model}"),
        "version_not_found": Row(
            404,
            "ModelVersionNotFoundException",
            "Model version: {version} does not exist for model: {model}",
        ),
        "set_default/version_not_found": Row(
            404,
            "ModelVersionNotFoundException",
            "Model version {version} does not exist for model {model}",
        ),
        "version_exists": Row(
            409,
            "ConflictStatusException",
            "Model version {version} is already registered for model {model}",
        ),
        "default_version_in_use": Row(
            403,
            "InvalidModelVersionException",
            "Cannot remove default version for model {model}",
        ),
        "load_failed": Row(500, _INTERNAL, _NOT_STARTED),
        "load_out_of_memory": Row(507, _INTERNAL, _NOT_STARTED),
        "scale/load_failed": Row(500, _INTERNAL, _not_scaled),
        "scale/load_out_of_memory": Row(507, _INTERNAL, _not_scaled),
        "spawn_failed": Row(500, _INTERNAL, _NOT_STARTED),
        "not_enough_devices": Row(
            500,
            "WorkerInitializationException",
            "No enough gpu devices for model:{model} parallelLevel:{wanted}",
        ),
        "unregister_timeout": Row(
            408, "RequestTimeoutException", "Timed out while cleaning resources: {model}"
        ),
        "state_not_written": Row(500, _INTERNAL, retry_after_s=_RETRY_SOON_S),
        # jobs
        "no_worker": Row(503, _UNAVAILABLE, _no_worker),
        "queue_full": Row(queue_full_status, _UNAVAILABLE, _no_worker, _RETRY_SOON_S),
        "describe/no_worker": Row(503, _UNAVAILABLE, _no_describer),
        "describe/queue_full": Row(queue_full_status, _UNAVAILABLE, _no_describer, _RETRY_SOON_S),
        "describe/worker_died": Row(500, _INTERNAL, _silent_describer),
        "shutting_down": Row(503, _UNAVAILABLE, retry_after_s=_RETRY_SOON_S),
        "unregistered": Row(503, _UNAVAILABLE),
        "deadline_exceeded": Row(408, "RequestTimeoutException"),
        "cancelled": Row(503, _UNAVAILABLE),
        "worker_died": Row(500, _INTERNAL, "Worker died."),
        "worker_out_of_memory": Row(507, _INTERNAL, "Worker died."),
        "quarantined": Row(500, _INTERNAL),
        "supervisor_unavailable": Row(503, _UNAVAILABLE, retry_after_s=_RETRY_SOON_S),
        # handlers
        "handler_failed": Row(503, _INTERNAL, "Prediction failed"),
        "handler_refused": Row(500, _INTERNAL),
        "handler_out_of_memory": Row(507, _INTERNAL, "Out of resources"),
        "device_out_of_memory": Row(507, _INTERNAL, "Out of resources"),
        "bad_handler_result": Row(503, _INTERNAL),
        "response_too_large": Row(500, _INTERNAL, "Worker died."),
        # archives
        "environment_failed": Row(400, "ModelException"),
        "archive": Row(500, _INTERNAL, "Failed to save model: {url}"),
        "archive_url_empty": Row(404, _MODEL_NOT_FOUND, "empty url"),
        "archive_url_relative": Row(
            404, _MODEL_NOT_FOUND, "Relative path is not allowed in url: {url}"
        ),
        "archive_url_not_allowed": Row(
            404, _MODEL_NOT_FOUND, "Given URL {url} does not match any allowed URL(s)"
        ),
        "archive_not_found": Row(404, _MODEL_NOT_FOUND, "Model not found at: {url}"),
        "model_store_missing": Row(404, _MODEL_NOT_FOUND, "Model store has not been configured."),
        "download_failed": Row(
            400, "DownloadArchiveException", "Failed to download archive from: {url}"
        ),
        "archive_unreadable": Row(500, _INTERNAL, "Failed to save model: {url}"),
        "manifest_invalid": Row(400, "InvalidModelException"),
        "runtime_invalid": Row(400, _BAD_REQUEST, "Invalid RuntimeType value: {runtime}"),
        # endpoints of the operator's own
        "endpoint_method_missing": Row(503, _UNAVAILABLE, "Invalid HTTP method received"),
        "endpoint_broken": Row(500, _INTERNAL, "I/O error while running the custom endpoint"),
        "endpoint_failed": Row(500, _INTERNAL, "Unknown exception"),
        # stoker itself
        "internal": Row(
            500, _INTERNAL, "Internal server error; the log has more under the request id."
        ),
    }
