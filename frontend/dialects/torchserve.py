"""The TorchServe API: contracts/torchserve.md 1.3, 2.1, 2.2 and section 3.

Milliseconds and `-1` become seconds and None here, at the door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

from stoker.errors import InvalidParameter
from stoker.frontend.dialect import Dialect
from stoker.frontend.dialects.torchserve_describe import describe_failure, describe_version
from stoker.frontend.dialects.torchserve_problems import torchserve_problems
from stoker.frontend.listeners import Role
from stoker.frontend.problems import MethodNotAllowed, Problem, ProblemRow
from stoker.frontend.routes import (
    ALL_METHODS,
    ANY,
    Description,
    Operation,
    Parameter,
    Prediction,
    Reply,
    Route,
    Statistics,
    Values,
)
from stoker.names import check_model_name, check_version

#: Answers that come from the supervisor's memory.
QUICK_S: Final = 30.0
#: Answers that may wait for a download, an installation, a model to load.
PATIENT_S: Final = 3600.0

_MAX_PAGE: Final = 100
_SCHEDULED: Final = Reply(202, {"status": "Processing worker updates..."})
_PARTIAL: Final = Reply(206, {"status": "Workers scaling in progress..."})

_MODEL: Final = "/models/{model_name}"
_VERSION: Final = "/models/{model_name}/{model_version}"


class TorchServe(Dialect):
    """What clients of TorchServe 0.12 know."""

    name: ClassVar[str] = "torchserve"
    title: ClassVar[str] = "TorchServe APIs"
    fixed_head: ClassVar[bytes] = (
        b"Pragma: no-cache\r\n"
        b"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
        b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
    )
    fixed_names: ClassVar[frozenset[bytes]] = frozenset((b"pragma", b"cache-control", b"expires"))

    @cached_property
    def problems(self) -> Mapping[str, ProblemRow]:
        return torchserve_problems(self.settings.queue_full_status)

    def error_document(self, problem: Problem) -> Any:
        document: dict[str, Any] = {"code": problem.status, "type": problem.kind}
        if problem.message:
            document["message"] = problem.message
        if problem.failure:
            document["failure"] = describe_failure(problem.failure)
        return document

    def routes(self, role: Role) -> Sequence[Route]:
        if role is Role.INFERENCE:
            return self._inference_routes()
        if role is Role.MANAGEMENT:
            return self._management_routes()
        return (
            *_description_routes(is_described=False),
            Route(("GET",), "/metrics", Statistics(), "metrics", "Get metrics of the server."),
        )

    # -- inference ------------------------------------------------------------

    def _inference_routes(self) -> tuple[Route, ...]:
        health = Operation("health", lambda values, path: {}, _write_health, QUICK_S)
        predict = Prediction(headers=(("explain", "False"),), has_url_path=True)
        of_model = Description(of_model=True, title="RESTful API for: {model_name}")
        say = "Predict with the default version of a model."
        say_version = "Predict with one version of a model."
        return (
            *_description_routes(is_described=True),
            Route(ALL_METHODS, "/ping", health, "ping", "Is the server healthy?"),
            Route(ANY, "/predictions/{model_name}", predict, "predictions", say),
            Route(("OPTIONS",), "/predictions/{model_name}", of_model),
            Route(
                ANY,
                "/predictions/{model_name}/{model_version}",
                predict,
                "version_predictions",
                say_version,
            ),
            Route(ANY, "/predictions/{model_name}/{model_version}/{rest:path}", predict),
        )

    # -- management -----------------------------------------------------------

    def _management_routes(self) -> tuple[Route, ...]:
        register = Operation(
            "register",
            self._read_register,
            _write_register,
            PATIENT_S,
            self._register_parameters(),
            takes_json=True,
        )
        scale = Operation("scale", _read_scale, _write_scale, PATIENT_S, _SCALE_PARAMETERS)
        describe = Operation("describe", _read_describe, _write_describe, QUICK_S)
        unregister = Operation("unregister", self._read_unregister, _write_unregister, PATIENT_S)
        set_default = Operation("set_default", _read_subject, _write_set_default, QUICK_S)
        listing = Operation("list", _read_list, _write_list, QUICK_S, _LIST_PARAMETERS)
        of_model = Description(of_model=True, title="RESTful Management API for: {model_name}")
        rows: tuple[tuple[str, str, Operation, str, str], ...] = (
            ("GET", "/models", listing, "listModels", "List registered models."),
            ("POST", "/models", register, "registerModel", "Register a model."),
            ("GET", _MODEL, describe, "describeModel", "Describe the default version."),
            ("PUT", _MODEL, scale, "setAutoScale", "Scale the default version's workers."),
            ("DELETE", _MODEL, unregister, "unregisterModel", "Unregister the default version."),
            ("GET", _VERSION, describe, "version_describeModel", "Describe a version, or `all`."),
            ("PUT", _VERSION, scale, "version_setAutoScale", "Scale a version's workers."),
            (
                "DELETE",
                _VERSION,
                unregister,
                "version_unregisterModel",
                "Unregister a version.",
            ),
            (
                "PUT",
                f"{_VERSION}/set-default",
                set_default,
                "setDefault",
                "Make a version the default.",
            ),
        )
        return (
            *_description_routes(is_described=True),
            *(Route((method,), path, verb, name, say) for method, path, verb, name, say in rows),
            Route(("OPTIONS",), _MODEL, of_model),
        )

    def _register_parameters(self) -> tuple[Parameter, ...]:
        settings = self.settings
        return (
            Parameter("url", "string", "Archive: a name in the model store, or a URL."),
            Parameter("model_name", "string", "Name of the model; default the archive's."),
            Parameter("model_version", "string", "Version; default the archive's, or 1.0."),
            Parameter("handler", "string", "Entry point, like `module:function`."),
            Parameter("runtime", "string", "Runtime of the handler; default the archive's."),
            Parameter("batch_size", "integer", "Most requests in one batch.", minimum=1),
            Parameter("max_batch_delay", "integer", "Wait for a batch, in ms.", minimum=0),
            Parameter(
                "initial_workers",
                "integer",
                "Workers to start.",
                default=settings.default_workers_per_model,
            ),
            Parameter(
                "synchronous",
                "boolean",
                "Answer when the workers are ready.",
                default=settings.default_synchronous,
            ),
            Parameter("response_timeout", "integer", "Longest batch, in seconds.", minimum=1),
            Parameter("startup_timeout", "integer", "Longest load, in seconds.", minimum=1),
            Parameter("s3_sse_kms", "boolean", "The archive is encrypted by S3.", default=False),
        )

    def _read_register(self, values: Values, path: Mapping[str, str]) -> dict[str, Any]:
        self._check_model_api()
        model, version = values["model_name"] or None, values["model_version"] or None
        handler = values["handler"] or None
        # No archive at all is ours: the handler comes from PYTHONPATH.
        if values["url"] is None:
            if handler is None:
                raise InvalidParameter("Parameter url is required.", parameter="url")
            if model is None:
                raise InvalidParameter("Parameter model_name is required.", parameter="model_name")
        if model is not None:
            check_model_name(model)
        if version is not None:
            check_version(version)
        delay_ms = values["max_batch_delay"]
        return {
            "url": values["url"],
            "model": model,
            "version": version,
            "handler": handler,
            "runtime": values["runtime"] or None,
            "batch_size": values["batch_size"],
            "max_batch_delay_s": None if delay_ms is None else delay_ms / 1000,
            "initial_workers": max(0, values["initial_workers"]),
            "synchronous": values["synchronous"],
            "response_timeout_s": _seconds(values["response_timeout"]),
            "startup_timeout_s": _seconds(values["startup_timeout"]),
            "s3_sse_kms": values["s3_sse_kms"],
        }

    def _read_unregister(self, values: Values, path: Mapping[str, str]) -> dict[str, Any]:
        self._check_model_api()
        return _read_subject(values, path)

    def _check_model_api(self) -> None:
        if not self.settings.enable_model_api:
            raise MethodNotAllowed("The model API is switched off: enable_model_api.")


def _description_routes(*, is_described: bool) -> tuple[Route, ...]:
    names = ("apiDescription", "api-description") if is_described else ("", "")
    say = "Get the OpenAPI document."
    return (
        Route(("OPTIONS",), "/", Description(), names[0], say),
        Route(ALL_METHODS, "/api-description", Description(), names[1], say, is_deprecated=True),
    )


def _seconds(value: int | None) -> float | None:
    return None if value is None else float(value)


def _status(text: str, status: int = 200) -> Reply:
    return Reply(status, {"status": text})


def _write_health(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return _status("Healthy") if outcome["is_healthy"] else _status("Unhealthy", 500)


def _write_register(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    if outcome["outcome"] == "scheduled":
        return _SCHEDULED
    if outcome["outcome"] == "partial":
        return _PARTIAL
    said = f'Model "{outcome["model"]}" Version: {outcome["version"]} registered with '
    if outcome["outcome"] == "ready":
        return _status(f"{said}{outcome['workers']} initial workers")
    return _status(f"{said}0 initial workers. Use scale workers API to add workers for the model.")


_SCALE_PARAMETERS: Final = (
    Parameter("min_worker", "integer", "Least workers.", default=1),
    Parameter("max_worker", "integer", "Most workers; default min_worker."),
    Parameter("synchronous", "boolean", "Answer when the workers are ready.", default=False),
    Parameter(
        "timeout",
        "integer",
        "Seconds a worker may take for its request in hand; 0 = none, -1 = no limit.",
        default=-1,
    ),
    Parameter("model_version", "string", "Version, where the path names none."),
)


def _read_subject(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    return {"model": path["model_name"], "version": path.get("model_version")}


def _read_scale(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    least = values["min_worker"]
    most = least if values["max_worker"] is None else values["max_worker"]
    if least < 0:
        raise InvalidParameter("min_worker cannot be negative.", parameter="min_worker")
    if most < least:
        raise InvalidParameter("max_worker cannot be less than min_worker.", parameter="max_worker")
    return {
        "model": path["model_name"],
        "version": path.get("model_version") or values["model_version"] or None,
        "min_workers": least,
        "max_workers": most,
        "synchronous": values["synchronous"],
        "drain_timeout_s": None if values["timeout"] < 0 else float(values["timeout"]),
    }


def _write_scale(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    if outcome["outcome"] == "scheduled":
        return _SCHEDULED
    if outcome["outcome"] == "partial":
        return _PARTIAL
    version = f", version: {arguments['version']}" if arguments["version"] else ""
    return _status(
        f"Workers scaled to {outcome['min_workers']} for model: {arguments['model']}{version}"
    )


def _read_describe(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    version = path.get("model_version")
    is_all = version == "all"
    return {"model": path["model_name"], "version": None if is_all else version, "all": is_all}


def _write_describe(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return Reply(200, [describe_version(record) for record in outcome["versions"]])


def _write_unregister(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return _status(f'Model "{arguments["model"]}" unregistered')


def _write_set_default(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    model, version = arguments["model"], arguments["version"]
    return _status(f'Default version successfully updated for model "{model}" to "{version}"')


_LIST_PARAMETERS: Final = (
    Parameter("limit", "integer", "Most entries, up to 100.", default=_MAX_PAGE),
    Parameter("next_page_token", "integer", "Where the previous page ended.", default=0),
)


def _read_list(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    limit = values["limit"]
    return {
        "limit": limit if 0 <= limit <= _MAX_PAGE else _MAX_PAGE,
        "offset": max(0, values["next_page_token"]),
    }


def _write_list(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    document: dict[str, Any] = {}
    after = arguments["offset"] + arguments["limit"]
    # Also when the page ends exactly at the last model: the peer's rule (3.8).
    if after <= outcome["total"]:
        document["nextPageToken"] = str(after)
    document["models"] = [
        {"modelName": model["model"], "modelUrl": model["url"]} for model in outcome["models"]
    ]
    return Reply(200, document)
