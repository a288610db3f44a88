"""What tests of all kinds share; the modules with it are found beside this file."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from turns import pytest_collection_modifyitems, pytest_runtest_protocol

__all__ = ["pytest_collection_modifyitems", "pytest_runtest_protocol"]

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Under nohup: our servers would go on ignoring it, as they should, and could not be told to
    # read their settings again.  What is handled is not inherited.
    signal.signal(signal.SIGHUP, lambda number, frame: None)


@pytest.fixture
def until() -> Callable[..., Any]:
    from facts import wait_until

    return wait_until
