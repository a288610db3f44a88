"""Listing models, page by page: the same in all three peers.

Source: contracts/torchserve.md 3.8; contracts/mms.md 6.5; contracts/djl-serving.md 4.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.dialects.shared.replies import QUICK_S
from stoker.frontend.dialects.shared.shapes import MODELS
from stoker.frontend.routes import Operation, Outcome, Parameter, Reply, Values

_MAX_PAGE: Final = 100
_PAGE: Final = Outcome(200, "A page of models, by name.", MODELS)
PAGE_PARAMETERS: Final = (
    Parameter("limit", "integer", "Most entries, up to 100.", default=_MAX_PAGE),
    Parameter("next_page_token", "integer", "Where the previous page ended.", default=0),
)


def list_operation() -> Operation:
    return Operation("list", read_page, _write, QUICK_S, (_PAGE,), PAGE_PARAMETERS)


def read_page(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    limit = values["limit"]
    return {
        "limit": limit if 0 <= limit <= _MAX_PAGE else _MAX_PAGE,
        "offset": max(0, values["next_page_token"]),
    }


def next_page(total: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The beginning of a page's document."""
    after = arguments["offset"] + arguments["limit"]
    # Also when the page ends exactly at the last one: the peer's rule (3.8).
    return {"nextPageToken": str(after)} if after <= total else {}


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    document = next_page(outcome["total"], arguments)
    document["models"] = [
        {"modelName": model["model"], "modelUrl": model["url"]} for model in outcome["models"]
    ]
    return Reply(200, document)
