"""TorchServe's workflow specification: a YAML file of models and a graph.

Source: contracts/torchserve.md 4.2.  Globals count for the models that come
after them in the file, as with the peer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from stoker.archives.graph import CLIENT, MAX_GRAPH_NODES, Graph, GraphNode, NodeInput
from stoker.errors import GraphInvalid, InvalidParameter, WorkflowInvalid
from stoker.names import check_model_name

#: Of functions, and of workflows, which have none of their own.
VERSION: Final = "1.0"
_MAX_NUMBER: Final = 1 << 31
#: Key in the file, and the least it may say.
_NUMBERS: Final = {
    "min-workers": ("min_workers", 0),
    "max-workers": ("max_workers", 0),
    "batch-size": ("batch_size", 1),
    "max-batch-delay": ("batch_delay_ms", 0),
    "retry-attempts": ("retries", 0),
    "timeout-ms": ("timeout_ms", 1),
}


@dataclass(frozen=True, slots=True)
class WarNode:
    """One model or function, or what holds for all that say nothing else.

    Attributes:
        url: Of the model's archive; None for a function.
    """

    name: str = ""
    url: str | None = None
    min_workers: int = 1
    max_workers: int = 1
    batch_size: int = 1
    batch_delay_ms: int = 50
    retries: int = 1
    timeout_ms: int = 10_000

    @property
    def is_function(self) -> bool:
        return self.url is None


@dataclass(frozen=True, slots=True)
class WarSpec:
    """A whole specification.

    Attributes:
        usual: What holds where a node says nothing.
        nodes: Those of the graph, each behind its parents.
        parents: By node.
        dag: As it was written, for describe.
    """

    usual: WarNode
    nodes: tuple[WarNode, ...]
    parents: Mapping[str, tuple[str, ...]]
    dag: Mapping[str, Any]

    def graph(self, workflow: str) -> Graph:
        """The graph, of models called `{workflow}__{node}` (4.2)."""
        index = {node.name: at for at, node in enumerate(self.nodes)}
        made: list[GraphNode] = []
        children = {parent for parents in self.parents.values() for parent in parents}
        for node in self.nodes:
            parents = self.parents[node.name]
            if not parents:
                inputs: tuple[NodeInput, ...] = (NodeInput("", CLIENT),)
            elif len(parents) == 1:
                inputs = (NodeInput("body", index[parents[0]]),)
            else:
                inputs = tuple(NodeInput(parent, index[parent]) for parent in parents)
            made.append(
                GraphNode(
                    node.name,
                    node_model(workflow, node.name),
                    None,
                    inputs,
                    node.retries,
                    node.timeout_ms / 1000,
                    node.is_function,
                )
            )
        leaves = [at for at, node in enumerate(self.nodes) if node.name not in children]
        return Graph(tuple(made), tuple(leaves))


def node_model(workflow: str, node: str) -> str:
    """The model that a node becomes.  Raises InvalidParameter for an impossible name."""
    return check_model_name(f"{workflow}__{node}")


def read_war_spec(document: Any, url: str) -> WarSpec:
    """Raises WorkflowInvalid, GraphInvalid."""
    if not isinstance(document, dict):
        raise _invalid("The workflow specification is no mapping.", url)
    models, dag = document.get("models"), document.get("dag")
    if not isinstance(models, dict):
        raise _invalid("The workflow specification has no models.", url)
    if not isinstance(dag, dict) or not dag:
        raise _invalid("The workflow specification has no dag.", url)
    usual, known = _read_models(models, url)
    edges = _read_edges(dag, url)
    names = list(dict.fromkeys([*edges, *(child for row in edges.values() for child in row)]))
    if len(names) > MAX_GRAPH_NODES:
        raise _invalid(f"A workflow has at most {MAX_GRAPH_NODES} nodes.", url)
    parents = _checked_parents(names, edges, url)
    function = WarNode(batch_delay_ms=0, retries=usual.retries, timeout_ms=usual.timeout_ms)
    nodes: list[WarNode] = []
    for name in _sorted(names, parents, url):
        node = known.get(name, replace(function, name=name))
        if node.is_function and not name.isidentifier():
            raise _invalid(f"Node {name} is neither a model nor the name of a function.", url)
        nodes.append(node)
    return WarSpec(usual, tuple(nodes), parents, dag)


def _read_models(models: dict[str, Any], url: str) -> tuple[WarNode, dict[str, WarNode]]:
    """What holds for all, and each model's own; in the order of the file."""
    usual = WarNode()
    known: dict[str, WarNode] = {}
    for key, value in models.items():
        if key in _NUMBERS:
            usual = replace(usual, **_number(key, value, url))
            continue
        if not isinstance(value, dict):
            raise _invalid(f"Model {key} of the workflow is no mapping.", url)
        address = value.get("url")
        if not isinstance(address, str) or not address:
            raise _invalid(f"Model {key} of the workflow has no url.", url)
        said: dict[str, Any] = {}
        for name in _NUMBERS.keys() & value.keys():
            said |= _number(name, value[name], url)
        known[_name(key, url)] = replace(usual, name=key, url=address, **said)
    return usual, known


def _number(key: str, value: Any, url: str) -> dict[str, Any]:
    field, least = _NUMBERS[key]
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if type(value) is not int or not least <= value <= _MAX_NUMBER:
        raise _invalid(f"{key} of the workflow must be a number of at least {least}.", url)
    return {field: value}


def _read_edges(dag: dict[str, Any], url: str) -> dict[str, list[str]]:
    """Children by node; nothing and blanks among them do not count (4.2)."""
    edges: dict[str, list[str]] = {}
    for name, value in dag.items():
        children = value if isinstance(value, list) else [value]
        row = edges.setdefault(_name(name, url), [])
        for child in children:
            if child is None or (isinstance(child, str) and not child.strip()):
                continue
            row.append(_name(child, url))
    return edges


def _name(value: Any, url: str) -> str:
    try:
        return check_model_name(value if isinstance(value, str) else str(value))
    except InvalidParameter:
        raise _invalid(
            f"A node of the workflow cannot be called {str(value)[:80]!r}.", url
        ) from None


def _checked_parents(
    names: list[str], edges: dict[str, list[str]], url: str
) -> dict[str, tuple[str, ...]]:
    """Parents by node.  Raises GraphInvalid, with the peer's words."""
    parents: dict[str, dict[str, None]] = {name: {} for name in names}
    seen: set[tuple[str, str]] = set()
    for name, row in edges.items():
        for child in row:
            if child == name:
                raise GraphInvalid("Self loop exception", url=url)
            if (child, name) in seen:
                raise GraphInvalid("loop exception", url=url)
            seen.add((name, child))
            parents[child][name] = None
    if sum(not row for row in parents.values()) != 1:
        raise GraphInvalid("DAG should have only one start node", url=url)
    return {name: tuple(row) for name, row in parents.items()}


def _sorted(names: list[str], parents: Mapping[str, tuple[str, ...]], url: str) -> list[str]:
    """Each behind its parents.  Raises GraphInvalid when there is a way round."""
    placed: dict[str, None] = {}
    left = list(names)
    while left:
        ready = [name for name in left if all(parent in placed for parent in parents[name])]
        if not ready:
            raise GraphInvalid("Not a valid DAG", url=url)
        placed.update(dict.fromkeys(ready))
        left = [name for name in left if name not in placed]
    return list(placed)


def _invalid(text: str, url: str) -> WorkflowInvalid:
    return WorkflowInvalid(text, url=url)
