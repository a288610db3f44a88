"""What tests of all kinds share; the modules with it are found beside this file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from turns import pytest_collection_modifyitems, pytest_runtest_protocol

__all__ = ["pytest_collection_modifyitems", "pytest_runtest_protocol"]


@pytest.fixture
def until() -> Callable[..., Any]:
    from facts import wait_until

    return wait_until
