"""What tests of all kinds share; the modules with it are found beside this file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def until() -> Callable[..., Any]:
    from facts import wait_until

    return wait_until
