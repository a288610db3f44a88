"""Which errors a verb can end with: what a description of the API may promise.

Codes, not statuses: those are the dialect's.  A test holds that no row of a
dialect's table is left out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Of any request, before or whatever it asks.
ANYWHERE: Final = (
    "malformed_http",
    "invalid_parameter",
    "request_too_large",
    "head_too_slow",
    "body_too_slow",
    "too_many_requests",
    "shutting_down",
    "supervisor_unavailable",
    "internal",
)
#: Where keys are asked for.
GUARDED: Final = ("token_refused",)
#: Where names are part of the path: one with a slash in it makes another path.
ASTRAY: Final = ("route_not_found", "method_not_allowed")
#: Of what is not described at all.
NOWHERE: Final = (
    "https_required",
    "cross_site_refused",
    "key_renewal_refused",
    "keys_busy",
    "endpoint_method_missing",
    "endpoint_broken",
    "endpoint_failed",
)

_SUBJECT: Final = ("model_not_found", "version_not_found")
_WORKERS: Final = (
    "load_failed",
    "load_out_of_memory",
    "spawn_failed",
    "not_enough_devices",
    "unregistered",
)
_JOB: Final = (
    *_SUBJECT,
    "no_worker",
    "queue_full",
    "deadline_exceeded",
    "cancelled",
    "unregistered",
    "worker_died",
    "worker_out_of_memory",
    "quarantined",
    "handler_failed",
    "handler_refused",
    "handler_out_of_memory",
    "device_out_of_memory",
    "bad_handler_result",
    "response_too_large",
)
_ARCHIVE: Final = (
    "archive",
    "archive_url_empty",
    "archive_url_relative",
    "archive_url_not_allowed",
    "archive_not_found",
    "archive_unreadable",
    "model_store_missing",
    "download_failed",
    "sandbox_missing",
    "manifest_invalid",
    "runtime_invalid",
    "engine_missing",
    "engine_unknown",
    "environment_failed",
)

_DEFINITION: Final = ("workflow_invalid", "graph_invalid")

VERB_ERRORS: Final[Mapping[str, tuple[str, ...]]] = {
    "predict": (
        *_JOB,
        "invalid_body",
        "sequence_queue_full",
        "too_many_sequences",
        "sequence_closed",
        "sequence_lost",
    ),
    "predict_workflow": (
        *("workflow_not_found", "workflow_node_failed", "invalid_body"),
        *("queue_full", "deadline_exceeded", "cancelled", "worker_died", "bad_handler_result"),
    ),
    "register_workflow": (
        *_ARCHIVE,
        *_DEFINITION,
        *("workflow_exists", "workflow_not_loaded", "invalid_body", "state_not_written"),
    ),
    "unregister_workflow": ("workflow_not_found", "state_not_written"),
    "describe_workflow": ("workflow_not_found",),
    "list_workflows": (),
    "register": (
        *_ARCHIVE,
        *_WORKERS,
        "not_enough_memory",
        "invalid_body",
        "version_exists",
        "state_not_written",
    ),
    "scale": (*_SUBJECT, *_WORKERS, "state_not_written"),
    "describe": _JOB,
    "unregister": (
        *_SUBJECT,
        "default_version_in_use",
        "unregister_timeout",
        "state_not_written",
    ),
    "set_default": (*_SUBJECT, "state_not_written"),
    "list": (),
    "health": (),
    "ready": _SUBJECT,
    "describe_api": _SUBJECT,
    "statistics": (),
    "": (),
}
