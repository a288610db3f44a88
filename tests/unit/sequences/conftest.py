"""Requests of sequences, on the stage of `stage.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stoker.supervisor.sequences import SequencePolicy
from stoker.wire.sequence_labels import DEFAULT_HEADERS

POLICY = SequencePolicy(max_idle_s=10.0, timeout_s=0.0, max_open=8, max_waiting=2)


def label_of(name: str, *, start: bool = False, end: bool = False, more: str = "") -> bytes:
    """What a request says of its sequence."""
    lines = ["ts_other", more]
    lines += [DEFAULT_HEADERS.name, name] if name else []
    lines += [DEFAULT_HEADERS.start, "true"] if start else []
    lines += [DEFAULT_HEADERS.end, "true"] if end else []
    return "\n".join(lines).encode()


@pytest.fixture
def policy() -> SequencePolicy:
    return POLICY


@pytest.fixture
def serve(stage):
    def serve(**spec: Any):
        spec = {"sequences": POLICY, "workers": 2, **spec}
        return stage.serve(**spec)

    return serve


@pytest.fixture
def make_ask() -> Callable[[Any], Callable[..., bytes]]:
    """For tests that have stages of their own."""

    def make_ask(stage: Any) -> Callable[..., bytes]:
        def ask(name: str = "", *, flags: int = 0, ends_turn: bool = True, **label: Any) -> bytes:
            body = label_of(name, **label)
            job_id: bytes = stage.submit(body=body, flags=flags, ends_turn=ends_turn)
            return job_id

        return ask

    return make_ask


@pytest.fixture
def ask(stage, make_ask):
    """One request of a sequence."""
    return make_ask(stage)
