"""Both collections, page by page; a page counts endpoints, of which each may have versions.

Unlike the peer's, a page of workflows without a successor has no token: clients
that ask until there is none would never end.

Source: contracts/djl-serving.md 4.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.dialects.djl.describe import status_word
from stoker.frontend.dialects.djl.shapes import MODELS, WORKFLOWS
from stoker.frontend.dialects.shared.replies import QUICK_S
from stoker.frontend.routes import Operation, Outcome, Parameter, Reply, Values

_MAX_PAGE: Final = 100
_PARAMETERS: Final = (
    Parameter("limit", "integer", "Most entries, up to 100.", default=_MAX_PAGE),
    Parameter("next_page_token", "integer", "Where the previous page ended.", default=0),
)
#: A list has no word for healthy; what is not pending and has not failed is ready.
_LISTED: Final = {"PENDING": "PENDING", "FAILED": "FAILED"}


def list_models_operation() -> Operation:
    page = Outcome(200, "A page of models, by name.", MODELS)
    return Operation("list", _read, _write_models, QUICK_S, (page,), _PARAMETERS)


def list_workflows_operation() -> Operation:
    page = Outcome(200, "A page of workflows, by name.", WORKFLOWS)
    return Operation("list", _read, _write_workflows, QUICK_S, (page,), _PARAMETERS)


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    limit = values["limit"]
    return {
        "limit": limit if 0 <= limit <= _MAX_PAGE else _MAX_PAGE,
        "offset": max(0, values["next_page_token"]),
        "all_versions": True,
        "workflows": True,
    }


def _page(outcome: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    after = arguments["offset"] + arguments["limit"]
    return {"nextPageToken": str(after)} if after < outcome["total"] else {}


def _write_models(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    models = []
    for state in _model_states(outcome):
        item = {"modelName": state["model"]}
        if not state["is_unversioned"]:
            item["version"] = state["version"]
        item["modelUrl"] = state["url"]
        item["status"] = _LISTED.get(status_word(state), "READY")
        models.append(item)
    return Reply(200, {**_page(outcome, arguments), "models": models})


def _write_workflows(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    workflows = []
    for state in _states(outcome):
        item = {"workflowName": state["model"]}
        if not state["is_unversioned"]:
            item["version"] = state["version"]
        workflows.append(item)
    return Reply(200, {**_page(outcome, arguments), "workflows": workflows})


def _states(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    return [state for model in outcome["models"] for state in model["versions"]]


def _model_states(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a workflow, its nodes' models in its place."""
    return [node for state in _states(outcome) for node in state.get("nodes", [state])]
