"""How many descriptors the process of the tests has open."""

from __future__ import annotations

import gc
import os


def open_descriptors() -> int:
    """
    Without those that only garbage holds: what an earlier test left in a cycle would be
    closed at any time, and a test that counts twice would find fewer than before.
    """
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
