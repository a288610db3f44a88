"""DJL Serving's error table: contracts/djl-serving.md 2, 22.3.

`type` strings are Java simple class names; clients match on them.  What goes
wrong in a running inference has statuses that operators choose (2, second table).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from stoker.frontend.dialects.shared.errors import (
    BAD_REQUEST,
    INTERNAL,
    MODEL_NOT_FOUND,
    RETRY_SOON_S,
    common_problems,
)
from stoker.frontend.problems import ProblemRow as Row
from stoker.settings import Settings

#: Not a class: the document that handlers of the peer answer themselves (13.4).
HANDLER: Final = "handler"
_CAPACITY: Final = "WlmCapacityException"
_ENGINE: Final = "EngineException"
_MEMORY: Final = "WlmOutOfMemoryException"
_MODEL: Final = "ModelException"
_TRANSLATE: Final = "TranslateException"
_WLM: Final = "WlmException"
#: What an error of a prediction counts as, where rates are watched (2.1).
RATES: Final = {_WLM: "wlm", _CAPACITY: "wlm", INTERNAL: "server", HANDLER: "server"}
FAILED_DEPENDENCY: Final = 424
_OOM: Final = "OOM"
_INITIALISE: Final = "Failed to initialize model"
_INVALID_URL: Final = "Invalid model url: {url}"
_NOT_FOUND: Final = "Model or workflow not found: {model}"


def _not_described(fields: Mapping[str, Any]) -> str:
    # Twice, where a version was asked for: the peer's.
    version = fields["asked_version"]
    if fields["is_about_adapters"]:
        return f"The model {fields['model']} was not found"
    said = f"Workflow not found: {fields['model']}"
    return f"Workflow not found: {said}/{version}" if version else said


def _exists(fields: Mapping[str, Any]) -> str:
    version = "" if fields["is_unversioned"] else f":{fields['version']}"
    return f"Workflow {fields['model']}{version} is already registered."


def _no_worker(fields: Mapping[str, Any]) -> str:
    if fields["is_shut_down"]:
        return f"All model workers has been shutdown: {fields['model']}"
    return f"Model is not ready: {fields['model']}"


def _not_loaded(fields: Mapping[str, Any]) -> str:
    cause = str(fields["last_line"])
    return cause if cause.startswith(_INITIALISE) else f"{_INITIALISE}: {cause}"


def _bad_parameter(fields: Mapping[str, Any]) -> str:
    if fields["kind"] == "integer":
        return f'parameter is invalid number.For input string: "{fields["value"]}"'
    return str(fields["message"])


def djl_problems(settings: Settings) -> dict[str, Row]:
    """The whole table; four of its statuses are settings."""
    bad_request = settings.bad_request_http_code
    wlm, server = settings.wlm_error_http_code, settings.server_error_http_code
    died = Row(wlm, _WLM)
    common = common_problems(settings.throttle_error_http_code)
    return {
        **common,
        # the request itself
        "invalid_parameter": Row(400, BAD_REQUEST, _bad_parameter),
        "predict/invalid_parameter": Row(bad_request, BAD_REQUEST),
        "predict/invalid_body": Row(bad_request, BAD_REQUEST),
        # models and versions
        "model_not_found": Row(404, MODEL_NOT_FOUND, _NOT_FOUND),
        "version_not_found": Row(404, MODEL_NOT_FOUND, _NOT_FOUND),
        "describe/model_not_found": Row(404, MODEL_NOT_FOUND, _not_described),
        "describe/version_not_found": Row(404, MODEL_NOT_FOUND, _not_described),
        "version_exists": Row(409, BAD_REQUEST, _exists),
        "load_failed": Row(500, _ENGINE, _not_loaded),
        "load_out_of_memory": Row(507, _ENGINE, _OOM),
        "spawn_failed": Row(507, _MEMORY, "No enough memory to load the model."),
        "not_enough_memory": Row(507, _MEMORY, "No enough memory to load the model."),
        "not_enough_devices": Row(
            500, _ENGINE, "GPU devices are not enough to run {wanted} partitions."
        ),
        # jobs
        "no_worker": Row(503, _WLM, _no_worker),
        "predict/no_worker": Row(wlm, _WLM, _no_worker, RETRY_SOON_S),
        "queue_full": Row(
            settings.throttle_error_http_code,
            _CAPACITY,
            "Worker queue capacity exceeded for model: {model}",
            RETRY_SOON_S,
        ),
        "unregistered": Row(wlm, _WLM, "Worker shutting down"),
        "deadline_exceeded": died,
        "cancelled": died,
        "worker_died": died,
        "worker_out_of_memory": died,
        "quarantined": died,
        # handlers
        "handler_failed": Row(424, HANDLER),
        "handler_refused": Row(424, HANDLER),
        "handler_out_of_memory": Row(507, HANDLER),
        "device_out_of_memory": Row(507, HANDLER),
        "bad_handler_result": Row(bad_request, _TRANSLATE),
        "response_too_large": died,
        # archives
        "archive": Row(400, _MODEL),
        "archive_not_found": Row(404, MODEL_NOT_FOUND, _INVALID_URL),
        "archive_url_empty": Row(404, MODEL_NOT_FOUND, _INVALID_URL),
        "archive_url_relative": Row(404, MODEL_NOT_FOUND, _INVALID_URL),
        "archive_url_not_allowed": Row(404, MODEL_NOT_FOUND, "Permission denied: {url}"),
        "archive_unreadable": Row(400, _MODEL),
        "download_failed": Row(404, MODEL_NOT_FOUND, _INVALID_URL),
        "manifest_invalid": Row(400, _MODEL),
        "sandbox_missing": Row(400, _MODEL),
        "engine_missing": Row(400, _MODEL),
        "engine_unknown": Row(404, MODEL_NOT_FOUND),
        # stoker itself
        "predict/internal": replace(common["internal"], status=server),
    }
