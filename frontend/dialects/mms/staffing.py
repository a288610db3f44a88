"""What register and scale have in common: contracts/mms.md 6.1, 6.2, in the page's words."""

from __future__ import annotations

from typing import Any, Final

from stoker.frontend.dialects.shared.replies import status
from stoker.frontend.dialects.shared.shapes import STATUS
from stoker.frontend.routes import Outcome, Reply

_REPLIES: Final = {
    "scheduled": status("Worker updated", 202),
    "ready": status("Worker scaled"),
    "partial": status("Workers scaling in progress...", 210, "Partial Success"),
}

STAFFING: Final = (
    Outcome(200, "Done; the workers are ready.", STATUS),
    Outcome(202, "Accepted; workers are being started or stopped.", STATUS),
    Outcome(210, "Waited long enough: some workers are still to come.", STATUS),
)


def about_workers(outcome: dict[str, Any]) -> Reply:
    """What became of the workers that were asked for."""
    return _REPLIES[outcome["outcome"]]
