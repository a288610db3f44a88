"""A worker that has not been told what to load does not outlive its supervisor."""

from __future__ import annotations

import os
from typing import Final

from stoker.death_signal import die_with

PARENT_VARIABLE: Final = "STOKER_PARENT_PID"
#: Our parent is what watches over a sandbox while it is made, and goes when that is done.
#: A supervisor that is gone before we have something to lose hangs up; that will do.
BEHIND_A_SANDBOX: Final = "0"


def die_with_parent() -> bool:
    """Ask for SIGKILL when the parent ends; False if the expected parent is gone already."""
    expected = os.environ.pop(PARENT_VARIABLE, "")
    if expected == BEHIND_A_SANDBOX:
        return True
    return die_with(int(expected) if expected.isdigit() else None)
