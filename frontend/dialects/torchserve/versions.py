"""Unregistering a version and choosing the default one: contracts/torchserve.md 3.7, 3.9."""

from __future__ import annotations

from typing import Any

from stoker.frontend.dialects.torchserve.replies import (
    PATIENT_S,
    QUICK_S,
    read_subject,
    status,
)
from stoker.frontend.routes import Operation, Reply


def unregister_operation() -> Operation:
    return Operation("unregister", read_subject, _write_unregister, PATIENT_S)


def set_default_operation() -> Operation:
    return Operation("set_default", read_subject, _write_set_default, QUICK_S)


def _write_unregister(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return status(f'Model "{arguments["model"]}" unregistered')


def _write_set_default(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    model, version = arguments["model"], arguments["version"]
    return status(f'Default version successfully updated for model "{model}" to "{version}"')
