"""How a worker ended, in words."""

from __future__ import annotations

import signal

import pytest

from stoker.supervisor.exits import ExitStatus


@pytest.mark.parametrize(
    ("status", "words", "likely"),
    [
        (ExitStatus(137, None), "exit 137", "out of memory"),
        (ExitStatus(None, signal.SIGSEGV), "SIGSEGV", "crash in native code"),
        (ExitStatus(None, signal.SIGABRT, is_ours=True), "SIGABRT", None),
        (ExitStatus(None, 40), "signal 40", None),
        (ExitStatus(0, None), "exit 0", None),
        (ExitStatus(None, None), "unknown", None),
    ],
)
def test_ends_have_words(status: ExitStatus, words: str, likely: str | None) -> None:
    """
    On call at night, `SIGKILL, likely out of memory` beats -9.
    """
    assert status.describe() == words
    assert status.likely() == likely
