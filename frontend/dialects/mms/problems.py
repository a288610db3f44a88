"""MMS's error table: contracts/mms.md 4, where it is not what all peers say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.dialects.shared.errors import (
    BAD_REQUEST,
    INTERNAL,
    INVALID_MODEL,
    MODEL_NOT_FOUND,
    RETRY_SOON_S,
    UNAVAILABLE,
    common_problems,
)
from stoker.frontend.problems import ProblemRow as Row

_NO_WORKER: Final = (
    "No worker is available to serve request for model: {model}. "
    "Consider increasing job queue size."
)
_DOWNLOAD: Final = "DownloadModelException"
_ENDPOINT: Final = "ModelServerEndpointException"


def _url_refused(fields: Mapping[str, Any]) -> str:
    if fields.get("is_malformed"):
        return f"Invalid model url: {fields['url']}"
    return f"Given URL {fields['url']} does not match any allowed URL(s)"


def _not_downloaded(fields: Mapping[str, Any]) -> str:
    if fields.get("is_timeout"):
        return f"Download model timeout: {fields['url']}"
    status = fields.get("status")
    code = f", code: {status}" if status else ""
    return f"Failed to download model from: {fields['url']}{code}"


def _invalid_manifest(fields: Mapping[str, Any]) -> str:
    """Our words where the peer has none, its own where it has (9.4)."""
    message = str(fields["message"])
    return "Model handler is not defined." if message == "Handler is not defined." else message


def mms_problems(queue_full_status: int) -> dict[str, Row]:
    """The whole table; `queue_full_status` is a setting."""
    return {
        **common_problems(queue_full_status),
        "https_required": Row(403, "", "This MMS instance only accepts HTTPS requests"),
        # models
        "not_enough_devices": Row(500, INTERNAL, "Failed to start workers"),
        # jobs
        "no_worker": Row(503, UNAVAILABLE, _NO_WORKER),
        "queue_full": Row(queue_full_status, UNAVAILABLE, _NO_WORKER, RETRY_SOON_S),
        # archives
        "archive_url_empty": Row(400, BAD_REQUEST, "Parameter url is required."),
        "archive_not_found": Row(404, MODEL_NOT_FOUND, "Model not found in model store: {url}"),
        "archive_url_not_allowed": Row(404, MODEL_NOT_FOUND, _url_refused),
        "download_failed": Row(400, _DOWNLOAD, _not_downloaded),
        # endpoints of the operator's own (15)
        "endpoint_method_missing": Row(500, _ENDPOINT, "No implementation found"),
        "endpoint_broken": Row(500, _ENDPOINT, "I/O error while running the custom endpoint"),
        "endpoint_failed": Row(500, _ENDPOINT, "Unknown exception"),
        "environment_failed": Row(400, INVALID_MODEL),
        "manifest_invalid": Row(400, INVALID_MODEL, _invalid_manifest),
    }
