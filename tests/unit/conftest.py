"""Stages for the engine, and jobs for what is below it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from stage import FRONTEND, START, Contents, Stage
from workflow_rig import DIAMOND, Rig

from stoker.archives.graph import Graph
from stoker.supervisor.jobs import Job

JobFactory = Callable[..., Job]


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def make_stage() -> type[Stage]:
    """For tests that need many."""
    return Stage


@pytest.fixture
def rig(stage: Stage) -> Callable[..., Rig]:
    """A stage with a workflow on it."""

    def make(graph: Graph = DIAMOND, **spec: Any) -> Rig:
        return Rig(stage, graph, **spec)

    return make


@pytest.fixture
def contents() -> Contents:
    return Contents()


@pytest.fixture
def make_job() -> JobFactory:
    """Jobs that arrive one after the other."""
    numbers = itertools.count(1)

    def make(*, deadline: float = float("inf"), arrived_at: float = START, flags: int = 0) -> Job:
        number = next(numbers)
        job_id = FRONTEND + number.to_bytes(8, "big")
        return Job(job_id, b"payload", deadline, arrived_at, number, flags)

    return make
