"""What a workflow's definition means for this server: its graph, and the models to load for it.

Source: contracts/torchserve.md 4.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from stoker.archives.archive import DJL_FUNCTION, ArchiveRequest, ResolvedArchive
from stoker.archives.djl_workflow import OURS, DjlDefinition, DjlModel
from stoker.archives.graph import Graph
from stoker.archives.manifest import DEFAULT_RUNTIME
from stoker.archives.war import WorkflowArchive
from stoker.archives.war_spec import VERSION, WarNode, node_model
from stoker.names import check_model_name
from stoker.supervisor.versions import VersionKey


class NodePlan(NamedTuple):
    """One model to register.

    Attributes:
        source: What to fetch, or what is here already: of a function.
        arguments: As a register call would state them.
        store: Where its archive lies, if not in the model store.
        options: For its handler, over those of its archive.
        is_shared: Other workflows may call the very same model.
    """

    node: str
    model: str
    source: ArchiveRequest | ResolvedArchive
    arguments: dict[str, Any]
    store: Path | None = None
    options: Mapping[str, str] | None = None
    is_shared: bool = False


@dataclass(frozen=True)
class WorkflowPlan:
    """A definition, worked out.

    Attributes:
        content_hash: Of the archive; one use of its copy is the plan's.
        shown: What describe says beside the graph.
        hashes: By node, of what was fetched for it.
        made: The versions that registering has brought.
    """

    key: VersionKey
    url: str
    content_hash: str | None
    graph: Graph
    nodes: tuple[NodePlan, ...]
    shown: dict[str, Any]
    hashes: dict[str, str] = field(default_factory=dict)
    made: list[VersionKey] = field(default_factory=list)


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


def plan_djl(
    definition: DjlDefinition, folder: Path, url: str, key: VersionKey, *, is_unversioned: bool
) -> WorkflowPlan:
    """A definition of DJL's: models are pools that workflows share, functions are its own."""
    models = {name: _pool_name(model) for name, model in definition.models.items()}
    suffix = "" if is_unversioned else f"__{key.version}"
    names = {
        **{name: node_model(key.model, f"{name}{suffix}") for name in definition.functions},
        **models,
    }
    calls = definition.calls
    graph = Graph(
        tuple(replace(node, model=names[node.model]) for node in calls.nodes), calls.outputs
    )
    nodes = [
        *(_djl_model(model, models[name], folder) for name, model in definition.models.items()),
        *(
            _djl_function(name, names[name], handler, folder)
            for name, handler in definition.functions.items()
        ),
    ]
    labels = {pool: name for name, pool in names.items()}
    shown = {"url": url, "is_unversioned": is_unversioned, "labels": labels}
    return WorkflowPlan(key, url, None, graph, tuple(nodes), shown)


def _pool_name(model: DjlModel) -> str:
    """The same for the same model, in whatever workflow it stands."""
    digest = hashlib.sha256(model.identity.encode()).hexdigest()[:8]
    return check_model_name(f"{model.name}-{digest}")


def _djl_model(model: DjlModel, pool: str, folder: Path) -> NodePlan:
    path, store, url = Path(model.url), None, model.url
    if path.is_absolute() and folder in path.parents:
        # Beside the definition, which lies in the store: so does this.
        store, url = path.parent, path.name
    arguments = {"initial_workers": 1, "is_unversioned": model.version is None}
    return NodePlan(
        model.name,
        pool,
        ArchiveRequest(url=url, model=pool, version=model.version),
        {**arguments, **model.settings},
        store,
        model.options,
        is_shared=True,
    )


def _djl_function(name: str, model: str, handler: str, folder: Path) -> NodePlan:
    source = ResolvedArchive(
        model=model,
        version=VERSION,
        handler=handler,
        runtime=DEFAULT_RUNTIME,
        url="",
        # One of our own needs no folder.
        model_dir=None if handler.startswith(OURS) else folder,
        contract=DJL_FUNCTION,
    )
    arguments = {"batch_size": 1, "max_batch_delay_s": 0, "initial_workers": 1}
    return NodePlan(name, model, source, {**arguments, "is_unversioned": True})


def _java_text(value: Any) -> str:
    """As Java prints a parsed YAML document (4.4)."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_java_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_java_text(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
