"""What register and scale have in common: answers that come before the workers do (3.1, 3.5)."""

from __future__ import annotations

from typing import Final

from stoker.frontend.dialects.shared.replies import status
from stoker.frontend.dialects.shared.shapes import STATUS
from stoker.frontend.routes import Outcome

SCHEDULED: Final = status("Processing worker updates...", 202)
PARTIAL: Final = status("Workers scaling in progress...", 206)

STAFFING: Final = (
    Outcome(200, "Done; the workers are ready.", STATUS),
    Outcome(202, "Accepted; workers are being started or stopped.", STATUS),
    Outcome(206, "Waited long enough: some workers are still to come.", STATUS),
)
