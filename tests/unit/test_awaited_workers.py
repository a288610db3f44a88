"""Workers of a supervisor that died, until they come back or are not waited for any more."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S
from stoker.supervisor.jobs import SENT_AGAIN
from stoker.supervisor.ladder import RETURN_GRACE_S
from stoker.supervisor.orphans import Orphan, Orphans
from stoker.supervisor.versions import VersionKey

WORKER = 7


@pytest.fixture
def inherit(stage: Any) -> Any:
    """Serve a version with one orphan of a predecessor's."""

    def serve(orphan: Orphan, **spec: Any) -> VersionKey:
        stage.engine.numbers.inherit(Orphans(lambda _: "echo", [("echo", orphan)]), WORKER, 9000)
        key = stage.register(max_attempts=2, **spec)
        stage.scale(key, 1)
        return key

    return serve


def orphan(*, has_loaded: bool = True, alone_since: float | None = None) -> Orphan:
    return Orphan(WORKER, 9000, 4007, (), has_loaded, alone_since)


def test_one_that_had_loaded_is_waited_for_as_long_as_a_batch_may_take(stage, inherit):
    """
    It may be stopped, or its handler may hang; how long it may take to load
    is of no interest any more.
    """
    inherit(orphan(), response_timeout_s=5.0, startup_timeout_s=600.0)

    stage.advance(5.0)
    assert stage.signals(WORKER) == []
    stage.advance(2 * SWEEP_S)

    assert stage.signals(WORKER) == ["Abort"]


def test_one_that_was_loading_is_waited_for_as_long_as_that_may_take(stage, inherit):
    inherit(orphan(has_loaded=False), response_timeout_s=5.0, startup_timeout_s=60.0)

    stage.advance(59.0)
    assert stage.signals(WORKER) == []
    stage.advance(1.0 + 2 * SWEEP_S)

    assert stage.signals(WORKER) == ["Abort"]


def test_the_next_supervisor_does_not_begin_to_wait_anew(stage, inherit):
    """
    Where supervisors keep dying a stopped worker would hold up its requests for ever.
    """
    inherit(orphan(alone_since=stage.now - 4.0), response_timeout_s=5.0)

    stage.advance(RETURN_GRACE_S + 2 * SWEEP_S)

    assert stage.signals(WORKER) == ["Abort"]


def test_however_long_it_was_missed_it_has_a_moment_to_find_us(stage, inherit):
    """
    A supervisor that was not there for an hour is no fault of the worker's.
    """
    inherit(orphan(alone_since=stage.now - 3600.0), response_timeout_s=5.0)

    stage.advance(RETURN_GRACE_S - SWEEP_S)

    assert stage.signals(WORKER) == []


def test_what_was_sent_again_waits_only_for_one_that_had_loaded(stage, inherit):
    """
    Who never loaded was never given a job, so nothing can have been begun there.
    """
    key = inherit(orphan(has_loaded=False))
    job_id = stage.submit(flags=SENT_AGAIN)

    assert stage.served(key).pool.queue.pending == 1

    stage.engine.worker_came_back(WORKER, [], stage.now)
    stage.end_turn()
    assert stage.sent() == [[job_id]]


def test_what_waited_for_it_is_tried_by_its_replacement(stage, inherit):
    key = inherit(orphan(), response_timeout_s=5.0)
    job_id = stage.submit(flags=SENT_AGAIN)
    stage.advance(5.0 + 2 * SWEEP_S)
    assert stage.served(key).pool.queue.pending == 0

    stage.exit(WORKER, "SIGKILL")
    (fresh,) = [spawn.worker_id for spawn in stage.took(a.Spawn)]
    stage.load(fresh)

    assert stage.sent() == [[job_id]]
