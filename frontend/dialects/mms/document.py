"""OpenAPI documents as MMS has them: contracts/mms.md 7.

Defaults are texts, every parameter has a description, and a model's document
has one path, which is the one that is really served (the peer's is misspelt).
"""

from __future__ import annotations

from typing import Any, Final

_ABOUT: Final = (
    "Predictions with the models of this server, and how these are registered, scaled, "
    "described and taken away again."
)
_PREDICTION: Final = "/predictions/"


def as_the_peer_says(document: dict[str, Any], model: str | None) -> dict[str, Any]:
    """The document with the peer's habits."""
    if model is not None:
        return _of_model(document, model)
    info = {"title": document["info"]["title"], "description": _ABOUT, "version": "1.0.0"}
    for methods in document["paths"].values():
        for described in methods.values():
            described["parameters"] = [_parameter(field) for field in described["parameters"]]
    return {**document, "info": info}


def _parameter(field: dict[str, Any]) -> dict[str, Any]:
    schema = dict(field["schema"])
    if "default" in schema:
        default = schema["default"]
        schema["default"] = default if isinstance(default, str) else str(default).lower()
    about = field.get("description") or "Name of the model."
    return {
        "in": field["in"],
        "name": field["name"],
        "description": about,
        "required": field["required"],
        "schema": schema,
    }


def _of_model(document: dict[str, Any], model: str) -> dict[str, Any]:
    path = f"{_PREDICTION}{model}"
    post = {
        **document["paths"][path]["post"],
        "operationId": model,
        "description": f"A prediction with the model {model}.",
        "parameters": [],
    }
    return {**document, "paths": {path: {"post": post}}}
