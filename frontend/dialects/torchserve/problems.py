"""TorchServe's error table: contracts/torchserve.md 1.6, row by row.

`type` strings are Java simple class names; clients match on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.dialects.shared.errors import (
    CONFLICT,
    INTERNAL,
    RETRY_SOON_S,
    UNAVAILABLE,
    WORKFLOW_NOT_FOUND,
    common_problems,
)
from stoker.frontend.problems import ProblemRow as Row

_VERSION_NOT_FOUND: Final = "ModelVersionNotFoundException"
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
        **common_problems(queue_full_status),
        "https_required": Row(403, "", "This TorchServe instance only accepts HTTPS requests"),
        # models and versions
        "version_not_found": Row(
            404,
            _VERSION_NOT_FOUND,
            "Model version: {version} does not exist for model: {model}",
        ),
        "set_default/version_not_found": Row(
            404, _VERSION_NOT_FOUND, "Model version {version} does not exist for model {model}"
        ),
        "version_exists": Row(
            409, CONFLICT, "Model version {version} is already registered for model {model}"
        ),
        "load_failed": Row(500, INTERNAL, _NOT_STARTED),
        "load_out_of_memory": Row(507, INTERNAL, _NOT_STARTED),
        "scale/load_failed": Row(500, INTERNAL, _not_scaled),
        "scale/load_out_of_memory": Row(507, INTERNAL, _not_scaled),
        "spawn_failed": Row(500, INTERNAL, _NOT_STARTED),
        "not_enough_devices": Row(
            500,
            "WorkerInitializationException",
            "No enough gpu devices for model:{model} parallelLevel:{wanted}",
        ),
        # jobs
        "no_worker": Row(503, UNAVAILABLE, _no_worker),
        "queue_full": Row(queue_full_status, UNAVAILABLE, _no_worker, RETRY_SOON_S),
        "sequence_queue_full": Row(503, UNAVAILABLE, _no_worker, RETRY_SOON_S),
        "too_many_sequences": Row(503, UNAVAILABLE, _no_worker, RETRY_SOON_S),
        "sequence_closed": Row(503, UNAVAILABLE, _no_worker),
        "sequence_lost": Row(503, UNAVAILABLE, _no_worker),
        "describe/no_worker": Row(503, UNAVAILABLE, _no_describer),
        "describe/queue_full": Row(queue_full_status, UNAVAILABLE, _no_describer, RETRY_SOON_S),
        "describe/worker_died": Row(500, INTERNAL, _silent_describer),
        # workflows
        "register_workflow/archive_url_empty": Row(404, WORKFLOW_NOT_FOUND, "empty url"),
        "register_workflow/archive_url_relative": Row(
            404, WORKFLOW_NOT_FOUND, "Relative path is not allowed in url: {url}"
        ),
        "register_workflow/archive_url_not_allowed": Row(
            404, WORKFLOW_NOT_FOUND, "Given URL {url} does not match any allowed URL(s)"
        ),
        "register_workflow/archive_not_found": Row(
            404, WORKFLOW_NOT_FOUND, "Workflow not found in workflow store: {url}"
        ),
        "register_workflow/model_store_missing": Row(
            404, WORKFLOW_NOT_FOUND, "Workflow store has not been configured."
        ),
    }
