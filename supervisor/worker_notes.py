"""What the log is told of the workers of one version."""

from __future__ import annotations

from stoker.supervisor.actions import Action, Note
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.workers import Worker


class WorkerNotes:
    """The same keys in every event, so that a worker's life can be found."""

    def __init__(self, spec: VersionSpec, actions: list[Action]) -> None:
        self._model = spec.model
        self._version = spec.version
        self._actions = actions

    def add(self, level: str, event: str, worker: Worker, **facts: object) -> None:
        self._actions.append(
            Note(
                level,
                event,
                {
                    "model": self._model,
                    "version": self._version,
                    "worker": worker.slot,
                    "worker_pid": worker.pid,
                    **facts,
                },
            )
        )
