"""A worker that has not been told what to load does not outlive its supervisor."""

from __future__ import annotations

import os
from typing import Final

from stoker.death_signal import die_with

PARENT_VARIABLE: Final = "STOKER_PARENT_PID"


def die_with_parent() -> bool:
    """Ask for SIGKILL when the parent ends; False if the expected parent is gone already."""
    expected = os.environ.pop(PARENT_VARIABLE, "")
    return die_with(int(expected) if expected.isdigit() else None)
