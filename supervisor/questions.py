"""Management verbs that only ask: answered at once, and nothing changes.

`control.py` says what each takes and answers.  Numbers are those of now; what
frontends have counted comes with the question.

Source: contracts/torchserve.md 3.5 to 3.8; docs/workflows.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from stoker.clock import Clock
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import Value
from stoker.supervisor.descriptions import Describer, is_pending, status_of
from stoker.supervisor.engine import Engine
from stoker.supervisor.metrics import Metrics
from stoker.supervisor.named_versions import OWNER, means_workflow, named_workflows
from stoker.supervisor.served import Served
from stoker.supervisor.workflow_descriptions import describe_workflow
from stoker.supervisor.workflows import Workflow


class Questions:
    """Answers them from what the engine and the metrics know.

    Args:
        loaded_at_start: Names of models; it grows while the supervisor starts.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        describer: Describer,
        metrics: Metrics,
        loaded_at_start: Collection[str],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._describer = describer
        self._metrics = metrics
        self._loaded_at_start = loaded_at_start

    # -- models ---------------------------------------------------------------

    def describe(self, arguments: Arguments) -> Value:
        model = arguments.required("model", str)
        if means_workflow(self._engine, model, arguments):
            asked = {**arguments.stated(("version",)), "workflow": model, "models": True}
            return {"workflows": self.describe_workflow(Arguments(asked))["versions"]}
        registry = self._engine.registry
        if arguments.flag("all"):
            versions = registry.all_versions(model)
        else:
            versions = [registry.find(model, arguments.optional("version", str))]
        return {"versions": self._describer.describe(versions, self._clock.now())}

    def list_models(self, arguments: Arguments) -> Value:
        limit, offset = arguments.required("limit", int), arguments.required("offset", int)
        registry = self._engine.registry
        names = [name for name in registry.names() if not self._is_node(name)]
        flows = set(self._engine.workflows.names()) if arguments.flag("workflows") else set()
        names = sorted({*names, *flows})
        models: list[Value] = []
        for name in names[max(0, offset) :][: max(0, limit)]:
            if name in flows:
                models.append({"model": name, "versions": self._workflow_states(name)})
                continue
            spec = registry.find(name).spec
            model: Value = {"model": name, "version": spec.version, "url": spec.shown["url"]}
            if arguments.flag("all_versions"):
                model["versions"] = self._states(registry.all_versions(name))
            models.append(model)
        return {"total": len(names), "models": models}

    def _states(self, versions: Iterable[Served]) -> list[Value]:
        now = self._clock.now()
        return [
            {
                "model": served.spec.model,
                "version": served.spec.version,
                "url": served.spec.shown["url"],
                "status": status_of(served, now),
                "is_pending": is_pending(served),
                "is_unversioned": served.spec.shown["is_unversioned"],
            }
            for served in versions
        ]

    def _is_node(self, model: str) -> bool:
        """Is it there for a workflow alone?  Such models are not listed (4.4)."""
        return OWNER in self._engine.registry.find(model).spec.shown

    def health(self, arguments: Arguments) -> Value:
        now = self._clock.now()
        registry = self._engine.registry
        models = {name: registry.find(name).crew.is_healthy(now) for name in registry.names()}
        value: Value = {
            "is_healthy": all(models.values()),
            "has_ready_worker": any(served.pool.workers for served in registry),
            "wanted_workers": sum(served.crew.min_workers for served in registry),
            "running_workers": sum(served.crew.slots.running_count for served in registry),
            "models": models,
        }
        if arguments.flag("all_versions"):
            value["versions"] = self._states(registry)
        return value

    def ready(self, arguments: Arguments) -> Value:
        """Of a version: does a worker take its jobs?  Of the server: would it take any?"""
        engine = self._engine
        model = arguments.optional("model", str)
        if model is not None:
            served = engine.registry.find(model, arguments.optional("version", str))
            # One that sleeps is woken by the first request, which nobody would send it else.
            takes = bool(served.pool.workers) or served.crew.is_asleep
            return {"is_ready": takes and not engine.is_stopping}
        is_loading = any(
            served.spec.is_loaded_at_startup and served.crew.is_loading
            for served in engine.registry
        )
        return {"is_ready": not (is_loading or engine.is_stopping)}

    def startup_models(self, arguments: Arguments) -> Value:
        return {"models": list(self._loaded_at_start)}

    # -- workflows ------------------------------------------------------------

    def describe_workflow(self, arguments: Arguments) -> Value:
        name, version = arguments.required("workflow", str), arguments.optional("version", str)
        found = named_workflows(self._engine, name, version)
        return {"versions": [self._workflow(each, arguments) for each in found]}

    def _workflow(self, workflow: Workflow, arguments: Arguments) -> Value:
        """Args: arguments: With `models`, everything about its nodes' models as well."""
        record = describe_workflow(self._engine, workflow)
        if arguments.flag("models"):
            record["models"] = self._node_models(workflow)
        return record

    def _node_models(self, workflow: Workflow) -> list[Value]:
        registry = self._engine.registry
        nodes = {node.model: node for node in workflow.graph.nodes}
        known = [registry.find(node.model, node.version) for node in nodes.values()]
        described = self._describer.describe(known, self._clock.now())
        return [{**each, "model": _label(workflow, each["model"])} for each in described]

    def list_workflows(self, arguments: Arguments) -> Value:
        limit, offset = arguments.required("limit", int), arguments.required("offset", int)
        workflows = self._engine.workflows
        names = workflows.names()
        shown = [workflows.find(name) for name in names[max(0, offset) :][: max(0, limit)]]
        return {
            "total": len(names),
            "workflows": [
                {"workflow": each.key.model, "version": each.key.version, "url": each.shown["url"]}
                for each in shown
            ],
        }

    def _workflow_states(self, name: str) -> list[Value]:
        """Its versions, as `_states` has those of models; each with its nodes' models."""
        found = []
        for workflow in self._engine.workflows.all_versions(name):
            models = dict.fromkeys(node.model for node in workflow.graph.nodes)
            known = [self._engine.registry.find(model) for model in models]
            found.append(
                {
                    "model": name,
                    "version": workflow.key.version,
                    "is_unversioned": workflow.shown.get("is_unversioned", False),
                    "nodes": [
                        {**state, "model": f"{name}:{_label(workflow, state['model'])}"}
                        for state in self._states(known)
                    ],
                }
            )
        return found

    # -- numbers --------------------------------------------------------------

    def statistics(self, arguments: Arguments) -> Value:
        now = self._clock.now()
        self._metrics.take_report(arguments.mapping("report"), now)
        return self._metrics.statistics(now)

    def report(self, arguments: Arguments) -> Value:
        self._metrics.take_report(arguments.mapping("report"), self._clock.now())
        return {}


def _label(workflow: Workflow, model: str) -> str:
    """What the definition calls a node's model."""
    label: str = workflow.shown.get("labels", {}).get(model, model)
    return label
