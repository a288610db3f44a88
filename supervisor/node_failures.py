"""What the failure of a node's call means: it is tried again, or the client is told.

Source: docs/workflows.md; contracts/torchserve.md 4.3.
"""

from __future__ import annotations

from typing import Final

from stoker.errors import DeadlineExceeded, StokerError, WorkflowNodeFailed
from stoker.supervisor.runs import Run, RunState

#: Trying again cannot help: the request or the server is what it is.
NOT_AGAIN: Final = frozenset(
    {
        "model_not_found",
        "version_not_found",
        "quarantined",
        "shutting_down",
        "unregistered",
        "cancelled",
    }
)


def is_late(run: Run, error: StokerError, now: float) -> bool:
    """Did the deadline of the run pass, not only that of the call?"""
    return now >= run.deadline and error.code == DeadlineExceeded.code


def may_try_again(run: Run, index: int, error: StokerError, now: float) -> bool:
    """As often as the node allows, and while the client has seen nothing of an answer."""
    return (
        run.steps[index].tries <= run.node(index).retries
        and not is_late(run, error, now)
        and error.code not in NOT_AGAIN
        and run.state is RunState.RUNNING
    )


def told_of(run: Run, index: int, error: StokerError, workflow: str, now: float) -> StokerError:
    """What the client is told of an error that ends its run: which node, and why."""
    node = run.node(index).name
    facts = {"workflow": workflow, "node": node, "request_id": run.request.request_id}
    if is_late(run, error, now):
        return DeadlineExceeded(
            f"The deadline passed while node {node} was at work.", model=workflow, **facts
        )
    return WorkflowNodeFailed(
        f"Node {node} of workflow {workflow} failed: {error.message or error.code}",
        **facts,
        tries=run.steps[index].tries,
        cause=error.code,
        reason=error.message,
        status=error.details.get("status"),
    )
