"""A real server for every module; see `live_fixtures.py`."""

from __future__ import annotations

from live_fixtures import *  # noqa: F403
