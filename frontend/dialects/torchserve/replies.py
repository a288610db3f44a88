"""What verbs have in common: `{"status": ...}`, and answers that come later (1.5, 3.1, 3.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.routes import Reply, Values

#: Answers that come from the supervisor's memory.
QUICK_S: Final = 30.0
#: Answers that may wait for a download, an installation, a model to load.
PATIENT_S: Final = 3600.0

SCHEDULED: Final = Reply(202, {"status": "Processing worker updates..."})
PARTIAL: Final = Reply(206, {"status": "Workers scaling in progress..."})


def status(text: str, code: int = 200) -> Reply:
    return Reply(code, {"status": text})


def read_subject(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    """The model, and the version if the path names one."""
    return {"model": path["model_name"], "version": path.get("model_version")}
