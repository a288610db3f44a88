"""What all pools of one supervisor share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stoker.shares import Budget
from stoker.supervisor.actions import Action
from stoker.supervisor.jobs import Heard, Job
from stoker.supervisor.quarantine import Contents


@dataclass(frozen=True, slots=True)
class Commons:
    """One for all of them, from the engine.

    Attributes:
        jobs: Every job that has not ended, by id, so that a re-sent id is
            recognised and a cancel finds its job.
        actions: Where decisions are put.
        heard: Where what ends the calls of workflows' nodes is put (`workflow_runs.py`).
        next_batch_id: Batch ids grow over the whole supervisor.
        budget: What the payloads of all pools may take.
        contents: Reads the requests that are suspected to kill workers, and
            the headers of those that belong to sequences.
    """

    jobs: dict[bytes, Job]
    actions: list[Action]
    heard: list[Heard]
    next_batch_id: Callable[[], int]
    budget: Budget
    contents: Contents | None
