"""Unregistering a version and choosing the default one: contracts/torchserve.md 3.7, 3.9."""

from __future__ import annotations

from typing import Any, Final

from stoker.frontend.dialects.shared.replies import PATIENT_S, QUICK_S, read_subject, status
from stoker.frontend.dialects.shared.shapes import STATUS
from stoker.frontend.routes import Operation, Outcome, Reply

_DONE: Final = Outcome(200, "Done.", STATUS)


def unregister_operation() -> Operation:
    return Operation("unregister", read_subject, _write_unregister, PATIENT_S, (_DONE,))


def set_default_operation() -> Operation:
    return Operation("set_default", read_subject, _write_set_default, QUICK_S, (_DONE,))


def _write_unregister(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return status(f'Model "{arguments["model"]}" unregistered')


def _write_set_default(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    model, version = arguments["model"], arguments["version"]
    return status(f'Default version successfully updated for model "{model}" to "{version}"')
