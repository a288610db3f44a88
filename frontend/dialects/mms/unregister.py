"""Unregistering a model, with all versions it may have: contracts/mms.md 6.4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.frontend.dialects.shared.replies import PATIENT_S, status
from stoker.frontend.dialects.shared.shapes import STATUS
from stoker.frontend.routes import Operation, Outcome, Reply, Values


def unregister_operation() -> Operation:
    done = Outcome(200, "Done.", STATUS)
    return Operation("unregister", _read, _write, PATIENT_S, (done,))


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    return {"model": path["model_name"], "version": None, "all": True}


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return status(f'Model "{arguments["model"]}" unregistered')
