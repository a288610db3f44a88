"""A workflow's graph: which model or function is called with what, and whose answers come out.

Both notations (`war_spec.py`, `djl_workflow.py`) become this.  Nodes stand in an
order in which each comes after those it takes its inputs from, so a graph that
exists has no cycle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

#: More nodes than anybody draws; a run keeps a few words for each.
MAX_GRAPH_NODES: Final = 256
#: The source of an input that is what the client sent.
CLIENT: Final = -1


class NodeInput(NamedTuple):
    """One input of a node.

    Attributes:
        name: Of the parameter it becomes; of CLIENT, what is put before the names of the
            client's own parameters.
        source: Index of the node whose answer it is, CLIENT, or a constant text.
        keeps_type: The answer's content type comes along.
    """

    name: str
    source: int | str
    keeps_type: bool = False


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One call of a model or function.

    Attributes:
        name: As the workflow's author calls it; errors say it.
        model: The registered model that is called.
        version: None: its default version.
        retries: Tries after the first one.
        fails_by_status: An answer with a status of 400 and more is its failure, and the
            workflow's answer; else it is an answer like any other.
        timeout_s: Of one try, from the moment its inputs are there; None: none of its own.
    """

    name: str
    model: str
    version: str | None
    inputs: tuple[NodeInput, ...]
    retries: int = 0
    timeout_s: float | None = None
    is_function: bool = False
    fails_by_status: bool = False


@dataclass(frozen=True)
class Graph:
    """Nodes, and the indices of those whose answers are the workflow's.

    Raises:
        ValueError: A node takes something from itself or from one that comes later.
    """

    nodes: tuple[GraphNode, ...]
    outputs: tuple[int, ...]
    #: By node: the nodes it waits for, and those that wait for it.
    parents: tuple[tuple[int, ...], ...] = field(init=False)
    children: tuple[tuple[int, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.nodes) <= MAX_GRAPH_NODES:
            raise ValueError(f"a workflow has between 1 and {MAX_GRAPH_NODES} nodes")
        parents: list[tuple[int, ...]] = []
        children: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            sources = [item.source for item in node.inputs if isinstance(item.source, int)]
            own = tuple(dict.fromkeys(source for source in sources if source != CLIENT))
            if not all(0 <= source < index for source in own):
                raise ValueError(f"node {node.name} takes something that is not there yet")
            for source in own:
                children[source].append(index)
            parents.append(own)
        if not self.outputs or not all(0 <= out < len(self.nodes) for out in self.outputs):
            raise ValueError("a workflow's answer is that of a node")
        object.__setattr__(self, "parents", tuple(parents))
        object.__setattr__(self, "children", tuple(tuple(item) for item in children))
