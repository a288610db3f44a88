"""What describe says of a workflow: its definition, and how its nodes are doing just now."""

from __future__ import annotations

from typing import Any

from stoker.archives.graph import CLIENT
from stoker.errors import StokerError
from stoker.supervisor.engine import Engine
from stoker.supervisor.workflows import Workflow


def describe_workflow(engine: Engine, workflow: Workflow) -> dict[str, Any]:
    """One record; nodes stand behind those that they take something from."""
    graph = workflow.graph
    nodes = []
    for index, node in enumerate(graph.nodes):
        sources = [item.source for item in node.inputs]
        nodes.append(
            {
                "name": node.name,
                "model": node.model,
                "version": node.version,
                "is_function": node.is_function,
                "takes_input": CLIENT in sources,
                "is_output": index in graph.outputs,
                "parents": [graph.nodes[parent].name for parent in graph.parents[index]],
                **_live(engine, node.model, node.version),
            }
        )
    return {
        **workflow.shown,
        "workflow": workflow.key.model,
        "version": workflow.key.version,
        "runs": workflow.live,
        "requests": workflow.requests,
        "failures": workflow.failures,
        "nodes": nodes,
    }


def _live(engine: Engine, model: str, version: str | None) -> dict[str, Any]:
    """Queue and workers of a node's model; nothing of one that is gone."""
    try:
        served = engine.registry.find(model, version)
    except StokerError:
        return {"workers": 0, "ready": 0, "queued": 0, "in_hand": 0, "capacity": 0, "deaths": 0}
    crew, pool = served.crew, served.pool
    in_hand = sum(len(batch.jobs) for worker in pool.workers.values() for batch in worker.in_hand)
    return {
        "workers": len(crew.slots.staying),
        "ready": crew.slots.ready_count,
        "queued": len(pool.queue),
        "in_hand": in_hand,
        "capacity": pool.queue.capacity,
        "deaths": crew.losses.count,
    }
