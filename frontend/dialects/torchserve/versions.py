"""Unregistering a version and choosing the default one: contracts/torchserve.md 3.7, 3.9."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.frontend.dialects.torchserve.model_api import check_model_api
from stoker.frontend.dialects.torchserve.replies import (
    PATIENT_S,
    QUICK_S,
    read_subject,
    status,
)
from stoker.frontend.routes import Operation, Reply, Values
from stoker.settings import Settings


def unregister_operation(settings: Settings) -> Operation:
    def read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
        check_model_api(settings)
        return read_subject(values, path)

    return Operation("unregister", read, _write_unregister, PATIENT_S)


def set_default_operation() -> Operation:
    return Operation("set_default", read_subject, _write_set_default, QUICK_S)


def _write_unregister(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return status(f'Model "{arguments["model"]}" unregistered')


def _write_set_default(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    model, version = arguments["model"], arguments["version"]
    return status(f'Default version successfully updated for model "{model}" to "{version}"')
