"""Answers of management verbs that the peers share: `{"status": ...}`, and how long to wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.routes import Reply, Values

#: Answers that come from the supervisor's memory.
QUICK_S: Final = 30.0
#: Answers that may wait for a download, an installation, a model to load.
PATIENT_S: Final = 3600.0


def status(text: str, code: int = 200, reason: str = "") -> Reply:
    return Reply(code, {"status": text}, reason=reason)


def read_subject(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    """The model, and the version if the path names one."""
    return {"model": path["model_name"], "version": path.get("model_version")}
