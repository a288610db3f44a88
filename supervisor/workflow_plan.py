"""What a workflow's definition means for this server: its graph, and the models to load for it.

Source: contracts/torchserve.md 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stoker.archives.graph import Graph
from stoker.archives.manifest import DEFAULT_RUNTIME
from stoker.archives.resolve import ArchiveRequest, ResolvedArchive
from stoker.archives.war import WorkflowArchive
from stoker.archives.war_spec import VERSION, WarNode, node_model
from stoker.supervisor.versions import VersionKey


class NodePlan(NamedTuple):
    """One model to register.

    Attributes:
        source: What to fetch, or what is here already: of a function.
        arguments: As a register call would state them.
    """

    node: str
    model: str
    source: ArchiveRequest | ResolvedArchive
    arguments: dict[str, Any]


@dataclass(frozen=True)
class WorkflowPlan:
    """A definition, worked out.

    Attributes:
        content_hash: Of the archive; one use of its copy is the plan's.
        shown: What describe says beside the graph.
        hashes: By node, of what was fetched for it.
    """

    key: VersionKey
    url: str
    content_hash: str | None
    graph: Graph
    nodes: tuple[NodePlan, ...]
    shown: dict[str, Any]
    hashes: dict[str, str] = field(default_factory=dict)


def plan_war(archive: WorkflowArchive, common: dict[str, Any]) -> WorkflowPlan:
    """Args: common: What the register call says of every node."""
    spec = archive.spec
    usual = spec.usual
    return WorkflowPlan(
        key=VersionKey(archive.name, VERSION),
        url=archive.url,
        content_hash=archive.content_hash,
        graph=spec.graph(archive.name),
        nodes=tuple(_node(archive, node, common) for node in spec.nodes),
        shown={
            "url": archive.url,
            "min_workers": usual.min_workers,
            "max_workers": usual.max_workers,
            "batch_size": usual.batch_size,
            "batch_delay_ms": usual.batch_delay_ms,
            "dag": _java_text(dict(spec.dag)),
        },
    )


def _node(archive: WorkflowArchive, node: WarNode, common: dict[str, Any]) -> NodePlan:
    model = node_model(archive.name, node.name)
    arguments = {
        **common,
        "batch_size": node.batch_size,
        "max_batch_delay_s": node.batch_delay_ms / 1000,
        # `min-workers` is only told, as with the peer.
        "initial_workers": node.max_workers,
    }
    source: ArchiveRequest | ResolvedArchive
    if node.is_function:
        source = ResolvedArchive(
            model=model,
            version=VERSION,
            handler=f"{archive.handler}:{node.name}",
            runtime=DEFAULT_RUNTIME,
            url="",
            model_dir=archive.folder,
            content_hash=archive.content_hash,
        )
    else:
        source = ArchiveRequest(url=node.url, model=model)
    return NodePlan(node.name, model, source, arguments)


def _java_text(value: Any) -> str:
    """As Java prints a parsed YAML document (4.4)."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_java_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_java_text(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
