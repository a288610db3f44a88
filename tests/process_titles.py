"""What processes call themselves, where any of them may end at any moment."""

from __future__ import annotations

import contextlib

import psutil


def title_of(process: psutil.Process) -> str:
    """As `ps` shows it; "" of one that has ended, also while nobody has reaped it."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline()).strip()
    return ""
