"""The life cycle of a run, and of a node in it: the tables."""

from __future__ import annotations

import pytest
from workflow_rig import CHAIN

from stoker.supervisor.runs import RUN_MOVES, STEP_MOVES, Run, RunEvent, RunState
from stoker.wire.node_calls import WorkflowRequest


def test_an_ended_run_has_no_way_on():
    """
    A run ends exactly once.
    """
    run = Run(b"j" * 16, CHAIN, WorkflowRequest("r", b"", b""), 1.0, 0, 0.0)
    run.move(RunEvent.FAIL)

    assert run.has_ended
    for event in RunEvent:
        with pytest.raises(AssertionError):
            run.move(event)


def test_every_state_is_in_its_table():
    """
    A word that no table knows would be found on the worst of days.
    """
    assert set(RUN_MOVES) == set(RunState)
    for moves in (RUN_MOVES, STEP_MOVES):
        assert {state for row in moves.values() for state in row.values()} <= set(moves)
