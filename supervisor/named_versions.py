"""What the names in a call mean: a version, all of a model, or the models of a workflow.

Where a dialect's workflows stand beside its models, a call says `or_workflow`:
a name that is no model's may then be a workflow's.
"""

from __future__ import annotations

from typing import Final

from stoker.errors import InvalidParameter, ShuttingDown
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.engine import Engine
from stoker.supervisor.served import Served
from stoker.supervisor.versions import VersionKey, VersionSpec
from stoker.supervisor.workflows import Workflow

#: In `VersionSpec.shown` of a model that is there for a workflow alone: which one.
OWNER: Final = "workflow"


def find_version(engine: Engine, model: str, version: str | None) -> Served:
    """A version that something is to be done with.

    Raises:
        ModelNotFound, VersionNotFound, ShuttingDown.
    """
    if engine.is_stopping:
        raise ShuttingDown("The server is stopping.")
    return engine.registry.find(model, version)


def named_keys(engine: Engine, arguments: Arguments) -> list[VersionKey]:
    """The version that is meant, or with `all` every one.

    Raises:
        ModelNotFound, VersionNotFound, ShuttingDown.
    """
    model, version = arguments.required("model", str), arguments.optional("version", str)
    if means_workflow(engine, model, arguments):
        return _node_keys(engine, model, version)
    if arguments.flag("all") and version is None:
        find_version(engine, model, None)
        return [served.spec.key for served in engine.registry.all_versions(model)]
    return [find_version(engine, model, version).spec.key]


def means_workflow(engine: Engine, name: str, arguments: Arguments) -> bool:
    """May a name that is no model's mean a workflow, and does it?"""
    return (
        arguments.flag("or_workflow")
        and name not in engine.registry.names()
        and name in engine.workflows.names()
    )


def named_workflows(engine: Engine, name: str, version: str | None) -> list[Workflow]:
    """One version, or all.  Raises WorkflowNotFound."""
    known = engine.workflows
    return known.all_versions(name) if version is None else [known.find(name, version)]


def _node_keys(engine: Engine, name: str, version: str | None) -> list[VersionKey]:
    """The models that a workflow's nodes are, each once.  Raises WorkflowNotFound."""
    workflows = named_workflows(engine, name, version)
    nodes = [node for workflow in workflows for node in workflow.graph.nodes]
    models = dict.fromkeys(node.model for node in nodes)
    return [find_version(engine, model, None).spec.key for model in models]


def check_is_no_node(spec: VersionSpec) -> None:
    """Raises InvalidParameter: The model is there for a workflow."""
    if owner := spec.shown.get(OWNER):
        raise InvalidParameter(
            f"Model {spec.model} belongs to workflow {owner}; unregister that.",
            parameter="model_name",
        )
