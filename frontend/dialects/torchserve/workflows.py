"""Workflows, as clients of TorchServe manage and ask them: contracts/torchserve.md 4.3, 4.4."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from stoker.errors import BadHandlerResult
from stoker.frontend.dialects.shared.listing import PAGE_PARAMETERS, next_page, read_page
from stoker.frontend.dialects.shared.replies import PATIENT_S, QUICK_S, status
from stoker.frontend.dialects.shared.shapes import STATUS
from stoker.frontend.dialects.torchserve.shapes import WORKFLOW_LIST, WORKFLOWS
from stoker.frontend.routes import (
    ALL_METHODS,
    ANY,
    Operation,
    Outcome,
    Parameter,
    Prediction,
    Reply,
    Route,
    Values,
)
from stoker.frontend.workflow_picture import SVG_TYPE, draw_workflow
from stoker.names import check_model_name
from stoker.settings import Settings
from stoker.wire.payloads import Answer, AnswerKind, unpack_parts

_JSON: Final = "application/json"
_DONE: Final = Outcome(200, "Done.", STATUS)
_WORKFLOW: Final = "/workflows/{workflow_name}"


def workflow_management_routes(settings: Settings) -> tuple[Route, ...]:
    rows: tuple[tuple[str, str, Operation, str, str], ...] = (
        ("GET", "/workflows", _list(), "listWorkflows", "List registered workflows."),
        ("POST", "/workflows", _register(), "registerWorkflow", "Register a workflow."),
        ("GET", _WORKFLOW, _describe(), "describeWorkflow", "Describe a workflow."),
        ("DELETE", _WORKFLOW, _unregister(), "unregisterWorkflow", "Unregister a workflow."),
    )
    changes = ("register_workflow", "unregister_workflow")
    return tuple(
        Route((method,), path, verb, name, say)
        for method, path, verb, name, say in rows
        if settings.enable_model_api or verb.verb not in changes
    )


def workflow_inference_routes() -> tuple[Route, ...]:
    serves = Prediction(of_workflow=True, reshape=as_the_peer_answers)
    path = "/wfpredict/{workflow_name}"
    return (
        Route(ANY, path, serves, "wfpredict", "Predict with a workflow."),
        Route(ALL_METHODS, f"{path}/{{rest:path}}", serves),
    )


# -- answers ---------------------------------------------------------------------------


def as_the_peer_answers(answer: Answer) -> Answer:
    """Always 200 and JSON by its type; what several leaves say, by their names (4.3).

    Raises:
        BadHandlerResult: One of several leaves did not answer with a JSON object.
    """
    body = answer.body
    if answer.kind is AnswerKind.PARTS:
        body = _merged(body)
    kind = AnswerKind.CHUNK if answer.kind is AnswerKind.CHUNK else AnswerKind.FINAL
    attempts = [pair for pair in answer.headers if pair[0].startswith("x-stoker-")]
    return Answer(answer.job_id, kind, 200, "", _JSON, attempts, body)


def _merged(parts: bytes) -> bytes:
    bodies: dict[str, bytes] = {}
    for name, body in unpack_parts(parts):
        bodies[name] = bodies.get(name, b"") + body
    merged = {}
    for name, body in bodies.items():
        try:
            merged[name] = json.loads(body)
        except (ValueError, RecursionError):
            merged[name] = None
        if not isinstance(merged[name], dict):
            raise BadHandlerResult(f"Node {name} did not answer with a JSON object.")
    return json.dumps(merged, ensure_ascii=False).encode("utf-8", "replace")


# -- managing ---------------------------------------------------------------------------


def _register() -> Operation:
    parameters = (
        Parameter("url", "string", "Archive: a name in the workflow store, or a URL."),
        Parameter("workflow_name", "string", "Name of the workflow; default the archive's."),
        Parameter("response_timeout", "integer", "Longest batch of a node, in s.", minimum=1),
        Parameter("startup_timeout", "integer", "Longest load of a node, in s.", minimum=1),
        Parameter("s3_sse_kms", "boolean", "The archive is encrypted by S3.", default=False),
    )

    def read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
        name = values["workflow_name"] or None
        if name is not None:
            check_model_name(name)
        return {
            "url": values["url"],
            "workflow": name,
            "response_timeout_s": _seconds(values["response_timeout"]),
            "startup_timeout_s": _seconds(values["startup_timeout"]),
            "s3_sse_kms": values["s3_sse_kms"],
        }

    def write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
        name = outcome["workflow"]
        return status(f"Workflow {name} has been registered and scaled successfully.")

    return Operation(
        "register_workflow", read, write, PATIENT_S, (_DONE,), parameters, takes_json=True
    )


def _seconds(value: int | None) -> float | None:
    return None if value is None else float(value)


def _unregister() -> Operation:
    def write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
        return status(f'Workflow "{arguments["workflow"]}" unregistered')

    return Operation("unregister_workflow", _read_name, write, PATIENT_S, (_DONE,))


def _read_name(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    return {"workflow": path["workflow_name"]}


def _list() -> Operation:
    def write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
        document = next_page(outcome["total"], arguments)
        document["workflows"] = [
            {"workflowName": each["workflow"], "workflowUrl": each["url"]}
            for each in outcome["workflows"]
        ]
        return Reply(200, document)

    page = Outcome(200, "A page of workflows, by name.", WORKFLOW_LIST)
    return Operation("list_workflows", read_page, write, QUICK_S, (page,), PAGE_PARAMETERS)


def _describe() -> Operation:
    parameters = (
        Parameter("graph", "string", "`svg`: a picture of its nodes and how they are doing."),
    )

    def read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
        return {"workflow": path["workflow_name"], "graph": values["graph"]}

    def write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
        if arguments["graph"] == "svg":
            return Reply(200, draw_workflow(outcome["versions"][0]), SVG_TYPE)
        return Reply(200, [_document(record) for record in outcome["versions"]])

    outcomes = (
        Outcome(200, "The workflow.", WORKFLOWS),
        Outcome(200, "Its picture.", None, SVG_TYPE),
    )
    return Operation("describe_workflow", read, write, QUICK_S, outcomes, parameters)


def _document(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "workflowName": record["workflow"],
        "workflowUrl": record["url"],
        "minWorkers": record["min_workers"],
        "maxWorkers": record["max_workers"],
        "batchSize": record["batch_size"],
        "maxBatchDelay": record["batch_delay_ms"],
        "workflowDag": record["dag"],
    }
