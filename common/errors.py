"""The one error family that every process shares.

An error is a stable `code`, a sentence for people that says what to do, and
`details` for machines.  On the wire it is exactly those three; the class is
looked up once by code (`from_wire`).  HTTP statuses, `type` strings and exact
texts belong to the dialects, which map codes; nothing here knows HTTP.

Source: contracts/torchserve.md 1.6 for the situations, design section 3.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

_BY_CODE: Final[dict[str, type[StokerError]]] = {}

Details = dict[str, Any]


class StokerError(Exception):
    """Base of everything stoker raises on purpose.

    Args:
        message: What happened and what to do, for a person.  It may reach a
            client: no paths, no tracebacks.
        details: Plain msgpack-able values (str, int, float, bool, None).
    """

    code: ClassVar[str] = "internal"
    #: May the client send the same request again without harm and with hope?
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Details = details

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            if cls.code in _BY_CODE:
                raise TypeError(
                    f"error code {cls.code!r} is taken by {_BY_CODE[cls.code].__name__}"
                )
            _BY_CODE[cls.code] = cls

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, {self.details!r})"


def forget_frames(error: BaseException) -> None:
    """Let go of where an error came from, when it has been dealt with.

    A frame that had the error in a variable holds it, as it holds the frame:
    both, and all that the frames below have in hand, would wait for the
    collector.
    """
    known: BaseException | None = error
    while known is not None:
        known.__traceback__ = None
        known = known.__context__


def from_wire(code: str, message: str, details: Details) -> StokerError:
    """Rebuild an error from its three parts; an unknown code keeps its text as `Internal`."""
    error = _BY_CODE.get(code, Internal)(message)
    error.details = details
    return error


class Internal(StokerError):
    """A bug in stoker, or an answer from a newer stoker that we do not know."""

    code = "internal"


# -- the request itself ------------------------------------------------------


class InvalidParameter(StokerError):
    """A parameter is missing or cannot mean anything.  details: parameter."""

    code = "invalid_parameter"


class InvalidBody(StokerError):
    """The body is not what its Content-Type says."""

    code = "invalid_body"


class RequestTooLarge(StokerError):
    """The body is larger than `max_request_size`.  details: limit_bytes."""

    code = "request_too_large"


class TooManyRequests(StokerError):
    """The frontend already holds as many bodies as it may.  details: limit."""

    code = "too_many_requests"
    retryable = True


# -- models and versions -----------------------------------------------------


class ModelNotFound(StokerError):
    """No model of that name.  details: model."""

    code = "model_not_found"


class VersionNotFound(StokerError):
    """The model exists, the version does not.  details: model, version."""

    code = "version_not_found"


class VersionExists(StokerError):
    """That model and version is registered already.  details: model, version."""

    code = "version_exists"


class DefaultVersionInUse(StokerError):
    """The default version cannot be removed while others exist.  details: model, version."""

    code = "default_version_in_use"


class LoadFailed(StokerError):
    """The handler could not be loaded.

    details: model, version, last_line (of the traceback), log (where the
    rest is; a name, not a path).
    """

    code = "load_failed"


class LoadOutOfMemory(LoadFailed):
    """Loading ran out of memory.  details: as LoadFailed."""

    code = "load_out_of_memory"


class SpawnFailed(StokerError):
    """A worker process could not be started.  details: reason."""

    code = "spawn_failed"
    retryable = True


class NotEnoughDevices(StokerError):
    """Fewer devices than the version needs.  details: model, wanted."""

    code = "not_enough_devices"


class NotEnoughMemory(StokerError):
    """Less memory is free than the version needs.

    details: required_mb, reserved_mb, available_mb.
    """

    code = "not_enough_memory"
    retryable = True


class UnregisterTimeout(StokerError):
    """Workers did not leave within `unregister_model_timeout`.  details: model."""

    code = "unregister_timeout"


class StateNotWritten(StokerError):
    """The change could not be made durable, so it was not made.  details: reason."""

    code = "state_not_written"
    retryable = True


# -- jobs --------------------------------------------------------------------


class NoWorker(StokerError):
    """No worker is there, starting or coming back.

    details: model, version (None: default), is_shut_down (nobody wants any).
    """

    code = "no_worker"
    retryable = True


class QueueFull(StokerError):
    """The version's queue has no room; the request was not started.

    details: model, version (None: default), capacity.
    """

    code = "queue_full"
    retryable = True


class SequenceQueueFull(StokerError):
    """As many of the sequence's requests wait as may.  details: model, version, sequence."""

    code = "sequence_queue_full"
    retryable = True


class TooManySequences(StokerError):
    """As many sequences are open as the version may have.  details: model, version, limit."""

    code = "too_many_sequences"
    retryable = True


class SequenceClosed(StokerError):
    """The sequence has ended, by its client, its handler or a time limit; start a new one.

    details: model, version, sequence.
    """

    code = "sequence_closed"


class SequenceLost(StokerError):
    """The worker is gone that had the sequence's state; start it anew.

    details: model, version, sequence.
    """

    code = "sequence_lost"


class ShuttingDown(StokerError):
    """The server drains and accepts nothing new."""

    code = "shutting_down"
    retryable = True


class Unregistered(StokerError):
    """The version was unregistered while the request waited.  details: model, version."""

    code = "unregistered"
    retryable = True


class DeadlineExceeded(StokerError):
    """Nobody wants the answer any more.  details: model."""

    code = "deadline_exceeded"
    retryable = True


class Cancelled(StokerError):
    """The client left or took the request back."""

    code = "cancelled"


class WorkerDied(StokerError):
    """The worker died, or was killed for silence, with the request in hand.

    details: model, version, reason ("exit", "timeout"), exit, likely (what
    caused it, as far as anybody knows), attempts.
    """

    code = "worker_died"
    retryable = True


class Quarantined(StokerError):
    """Requests with the same content have killed workers; refused for a while.

    details: model, version, deaths, likely (how the last of them died).
    """

    code = "quarantined"


class WorkerOutOfMemory(WorkerDied):
    """As WorkerDied, and the kernel's SIGKILL smells of memory (exit status 137)."""

    code = "worker_out_of_memory"


class SupervisorUnavailable(StokerError):
    """The supervisor does not answer; it is being restarted."""

    code = "supervisor_unavailable"
    retryable = True


# -- handlers ----------------------------------------------------------------


class HandlerFailed(StokerError):
    """The handler raised.  The traceback is in the worker's log, never here."""

    code = "handler_failed"


class HandlerRefused(StokerError):
    """The handler raised PredictionException.  details: status."""

    code = "handler_refused"


class HandlerOutOfMemory(StokerError):
    """The handler ran out of host or device memory."""

    code = "handler_out_of_memory"


class DeviceOutOfMemory(HandlerOutOfMemory):
    """As HandlerOutOfMemory, and it was the device's memory, not the host's."""

    code = "device_out_of_memory"


class BadHandlerResult(StokerError):
    """The handler broke its contract: no list, wrong length, or not serialisable."""

    code = "bad_handler_result"


class ResponseTooLarge(StokerError):
    """The answer is larger than `max_response_size`.  details: limit_bytes."""

    code = "response_too_large"


# -- archives ----------------------------------------------------------------


class ArchiveError(StokerError):
    """Base of what can be wrong with an archive or its address.  details: url."""

    code = "archive"


class ArchiveUrlEmpty(ArchiveError):
    code = "archive_url_empty"


class ArchiveUrlRelative(ArchiveError):
    """The url contains `..`."""

    code = "archive_url_relative"


class ArchiveUrlNotAllowed(ArchiveError):
    """A remote url that no `allowed_urls` pattern matches."""

    code = "archive_url_not_allowed"


class ArchiveNotFound(ArchiveError):
    code = "archive_not_found"


class ModelStoreMissing(ArchiveError):
    """A local archive was named but no model store is configured."""

    code = "model_store_missing"


class DownloadFailed(ArchiveError):
    code = "download_failed"
    retryable = True


class ArchiveUnreadable(ArchiveError):
    """Not an archive, hostile (`..`, links, devices, bombs), or damaged."""

    code = "archive_unreadable"


class SandboxMissing(ArchiveError):
    """The sandbox that it asks for cannot be had here, nor what may stand for it."""

    code = "sandbox_missing"


class ManifestInvalid(ArchiveError):
    """MANIFEST.json or model-config.yaml says something impossible."""

    code = "manifest_invalid"


class EngineMissing(ArchiveError):
    """The archive is for an engine that this server does not have.  details: engine."""

    code = "engine_missing"


class EngineUnknown(ArchiveError):
    """Nothing in the archive says what it is for."""

    code = "engine_unknown"


class EnvironmentFailed(ArchiveError):
    """An archive's requirements or venv could not be installed.  details: model, reason."""

    code = "environment_failed"


class RuntimeInvalid(ArchiveError):
    """Unknown runtime.  details: runtime."""

    code = "runtime_invalid"


# -- workflows ---------------------------------------------------------------


class WorkflowNotFound(StokerError):
    """No workflow of that name, or no such version of it.  details: workflow, version."""

    code = "workflow_not_found"


class WorkflowExists(StokerError):
    """A workflow of that name and version is registered already.  details: workflow."""

    code = "workflow_exists"


class WorkflowInvalid(StokerError):
    """Its definition says something impossible.  details: url."""

    code = "workflow_invalid"


class GraphInvalid(WorkflowInvalid):
    """Its nodes do not make a graph that can be run.  details: url."""

    code = "graph_invalid"


class WorkflowNotLoaded(StokerError):
    """A node could not be registered or loaded; nothing of the workflow is left.

    details: workflow, failures (one sentence for each node).
    """

    code = "workflow_not_loaded"


class WorkflowNodeFailed(StokerError):
    """A node of a run failed as often as it was tried.

    details: workflow, node, request_id, tries, cause (the last error's code), reason (its
    message), status (if the handler has set one).
    """

    code = "workflow_node_failed"


# -- wire and settings -------------------------------------------------------


class ProtocolError(StokerError):
    """A peer process sent a frame that is not ours; the peer is dropped."""

    code = "protocol"


class SettingsError(StokerError):
    """A setting is unknown or bad.  details: setting, source (file and line)."""

    code = "settings"
