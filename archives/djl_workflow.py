"""DJL Serving's workflow definitions: models, functions, and expressions over them.

An expression is `[callee, argument, ...]`; what `out` needs is worked out when the
definition is read, so a cycle or a name that means nothing is found then, not when
somebody asks.  Java has no place here: functions are Python, `module:function` in the
definition's folder.

Source: contracts/djl-serving.md 8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stoker.archives.graph import CLIENT, MAX_GRAPH_NODES, Graph, GraphNode, NodeInput
from stoker.archives.plain import NotPlain, plain
from stoker.archives.yaml_document import BadYaml, parse_yaml
from stoker.errors import GraphInvalid, InvalidParameter, WorkflowInvalid
from stoker.names import check_model_name, check_version

#: In a folder, in this order (8.1).
FILE_NAMES: Final = ("workflow.json", "workflow.yml", "workflow.yaml")
SUFFIXES: Final = (".json", ".yml", ".yaml")
MAX_DEFINITION_BYTES: Final = 1 << 20
#: Names that stand for what the peer has built in; models and functions come first.
_ID, _APPLY, _ENSEMBLE, _ADAPTER = "id", "functionsApply", "ensemble", "adapter"
IN, OUT = "in", "out"
#: Functions of our own, in the worker.
OURS: Final = "stoker.worker.djl.builtin:"
ENSEMBLE_HANDLER: Final = f"{OURS}ensemble"
IDENTITY_HANDLER: Final = f"{OURS}identity"
#: Fields of a model that only Java could mean.
_JAVA: Final = ("translator", "translatorFactory")
_FUNCTION: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_MAX_DEPTH: Final = 64
#: What an expression means: a node, what the client sent, or a list of such.
Value = int | list[Any]


@dataclass(frozen=True, slots=True)
class DjlModel:
    """One model of a definition.

    Attributes:
        settings: As a register call would state them, by their names there.
        options: For the handler, over its archive's own.
    """

    name: str
    url: str
    version: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Equal for what is one pool, in whatever workflow it stands."""
        told = [self.url, self.version, dict(self.settings), dict(self.options)]
        return json.dumps(told, sort_keys=True)


@dataclass(frozen=True, slots=True)
class DjlDefinition:
    """A whole definition.

    Attributes:
        models: Those that `out` needs, by their names in it.
        functions: Their handlers, by name; with those of ours that it needs.
        calls: The graph, of nodes whose `model` is a name in `models` or `functions`.
    """

    name: str | None
    version: str | None
    models: Mapping[str, DjlModel]
    functions: Mapping[str, str]
    calls: Graph


def parse_definition(
    text: bytes, url: str, folder: str, parameters: Mapping[str, str] | None = None
) -> DjlDefinition:
    """Read a definition, JSON or YAML.

    Args:
        folder: What `{model_dir}` stands for.
        parameters: What other `{names}` stand for: a template's.

    Raises:
        WorkflowInvalid, GraphInvalid
    """
    if len(text) > MAX_DEFINITION_BYTES:
        raise _invalid("is too large", url)
    known = {**(parameters or {}), "model_dir": folder}
    try:
        filled = text.decode()
    except UnicodeDecodeError:
        raise _invalid("is not UTF-8", url) from None
    for name, value in known.items():
        # Inside a text of JSON or YAML: what it means must not end it.
        filled = filled.replace(f"{{{name}}}", json.dumps(value)[1:-1])
    document = _parsed(filled, url)
    if not isinstance(document, dict):
        raise _invalid("is no object", url)
    return _Reader(document, url).read()


def _parsed(text: str, url: str) -> Any:
    try:
        return plain(json.loads(text))[0]
    except (ValueError, RecursionError, NotPlain):
        pass
    try:
        return parse_yaml(text.encode())[0]
    except BadYaml as error:
        raise _invalid(str(error), url) from None


def find_definition(folder: Path) -> Path | None:
    """The definition that a folder holds, if it holds one."""
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


class _Reader:
    """One document."""

    def __init__(self, document: dict[str, Any], url: str) -> None:
        self._url = url
        self._document = document
        self._models = self._mapping("models")
        self._functions = {
            name: self._function(name, value) for name, value in self._mapping("functions").items()
        }
        self._variables = self._mapping("workflow")
        if "models" not in document:
            raise _invalid("has no models", url)
        self._nodes: list[GraphNode] = []
        self._used_models: dict[str, DjlModel] = {}
        self._used_functions: dict[str, str] = {}
        self._values: dict[str, Value] = {IN: CLIENT}
        self._open: list[str] = []

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self._document.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise _invalid(f"has {key} that are no mapping", self._url)
        return value

    def read(self) -> DjlDefinition:
        out = self._variable(OUT)
        if isinstance(out, list):
            raise self._graph(
                "The workflow did not return an output. Instead it returned an ArrayList"
            )
        if out == CLIENT:
            out = self._call_own(_ID, IDENTITY_HANDLER, [CLIENT])
        return DjlDefinition(
            self._name("name", check_model_name),
            self._name("version", check_version),
            self._used_models,
            self._used_functions,
            Graph(tuple(self._nodes), (out,)),
        )

    def _name(self, key: str, check: Any) -> str | None:
        value = self._document.get(key)
        if value is None or value == "":
            return None
        try:
            return str(check(str(value)))
        except InvalidParameter as error:
            raise _invalid(f"has a bad {key}: {error.message}", self._url) from None

    # -- expressions ----------------------------------------------------------------

    def _variable(self, name: str) -> Value:
        if name in self._values:
            return self._values[name]
        if name in self._open:
            raise self._graph(f"Your workflow contains a cycle with target: {name}")
        if name not in self._variables:
            raise self._graph(f"Expected to find variable but it is not defined: {name}")
        if len(self._open) >= _MAX_DEPTH:
            raise self._graph(f"Your workflow is too deep at: {name}")
        self._open.append(name)
        value = self._values[name] = self._expression(self._variables[name], name)
        self._open.pop()
        return value

    def _argument(self, argument: Any, name: str, depth: int) -> Value:
        if isinstance(argument, str):
            return self._variable(argument)
        return self._expression(argument, name, depth + 1)

    def _expression(self, expression: Any, name: str, depth: int = 0) -> Value:
        if isinstance(expression, str):
            return self._variable(expression)
        if not isinstance(expression, list) or not expression or depth > _MAX_DEPTH:
            raise self._graph(f"The expression of {name} is no call")
        callee, *arguments = expression
        if not isinstance(callee, str):
            raise self._graph(f"The expression of {name} calls something that has no name")
        if callee in self._models or callee in self._functions:
            return self._call(callee, [self._argument(item, name, depth) for item in arguments])
        if callee == _ID:
            if len(arguments) != 1:
                raise self._graph("Expected one argument to id")
            return self._argument(arguments[0], name, depth)
        if callee == _APPLY:
            return self._apply(arguments, name, depth)
        if callee == _ENSEMBLE:
            if len(arguments) != 1:
                raise self._graph("Expected one arguments, the list of items to ensemble")
            return self._call_own(
                _ENSEMBLE, ENSEMBLE_HANDLER, [self._argument(arguments[0], name, depth)]
            )
        if callee == _ADAPTER:
            raise self._graph("Adapters are not served by this release.")
        raise self._graph(f"Could not find find model or function: {callee}")

    def _apply(self, arguments: list[Any], name: str, depth: int) -> Value:
        if len(arguments) != 2 or not isinstance(arguments[0], list):
            raise self._graph(
                "Expected two arguments: the list of functions to run and the input, but found "
                f"{len(arguments)}"
            )
        value = self._argument(arguments[1], name, depth)
        found: list[Any] = []
        for callee in arguments[0]:
            if not isinstance(callee, str) or not (
                callee in self._models or callee in self._functions
            ):
                raise self._graph(f"Could not find find model or function: {callee}")
            found.append(self._call(callee, [value]))
        return found

    def _call(self, callee: str, values: list[Value]) -> int:
        if callee in self._models:
            if len(values) != 1 or isinstance(values[0], list):
                raise self._graph(
                    f"The model or worker type {callee} should have one arg, but has {len(values)}"
                )
            if callee not in self._used_models:
                self._used_models[callee] = self._model(callee)
            source = values[0]
            inputs = (
                NodeInput("", CLIENT)
                if source == CLIENT
                else NodeInput("body", source, keeps_type=True),
            )
            return self._add(callee, inputs, is_function=False)
        return self._call_own(callee, self._functions[callee], values)

    def _call_own(self, callee: str, handler: str, values: list[Value]) -> int:
        self._used_functions[callee] = handler
        inputs: list[NodeInput] = []
        for at, value in enumerate(values):
            for label, source in _labelled(at, value):
                name = label if source == CLIENT else f"{label}body"
                inputs.append(NodeInput(name, source, keeps_type=source != CLIENT))
        return self._add(callee, tuple(inputs), is_function=True)

    def _add(self, callee: str, inputs: tuple[NodeInput, ...], *, is_function: bool) -> int:
        if len(self._nodes) >= MAX_GRAPH_NODES:
            raise self._graph(f"A workflow has at most {MAX_GRAPH_NODES} nodes")
        names = [node.name for node in self._nodes]
        name, count = callee, 1
        while name in names:
            count += 1
            name = f"{callee}#{count}"
        self._nodes.append(
            GraphNode(name, callee, None, inputs, is_function=is_function, fails_by_status=True)
        )
        return len(self._nodes) - 1

    # -- what is called ----------------------------------------------------------------

    def _function(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not _FUNCTION.fullmatch(value):
            raise _invalid(
                f"has the function {name}, which is a Java class; give module:function of a "
                "Python file beside the definition",
                self._url,
            )
        return value

    def _model(self, name: str) -> DjlModel:
        value = self._models[name]
        if isinstance(value, str):
            return DjlModel(self._checked(name), value)
        if not isinstance(value, dict):
            raise _invalid(f"has the model {name}, which is neither a url nor an object", self._url)
        if java := next((key for key in _JAVA if value.get(key)), None):
            raise _invalid(f"has the model {name} with a {java}, which is Java", self._url)
        url = value.get("modelUrl")
        if not isinstance(url, str) or not url:
            raise _invalid(f"has the model {name} without modelUrl", self._url)
        settings: dict[str, Any] = {}
        for key, ours, kind, scale in _SETTINGS:
            if (said := value.get(key)) is not None:
                settings[ours] = self._said(name, key, said, kind, scale)
        if (devices := value.get("loadOnDevices")) is not None:
            named = devices if isinstance(devices, list) else [devices]
            settings["devices"] = ";".join(map(str, named))
        options = {
            str(key): _text(said)
            for part in ("arguments", "options")
            for key, said in self._part(value, part).items()
        }
        version = value.get("version")
        return DjlModel(
            self._checked(name), url, None if version is None else str(version), settings, options
        )

    def _part(self, value: dict[str, Any], key: str) -> dict[str, Any]:
        part = value.get(key)
        return part if isinstance(part, dict) else {}

    def _said(self, name: str, key: str, said: Any, kind: type, scale: float) -> Any:
        if isinstance(said, str) and kind is not str and said.strip().lstrip("-").isdigit():
            said = int(said)
        if kind is str:
            return str(said)
        if type(said) is not int or said < -1:
            raise _invalid(f"has the model {name} with a bad {key}", self._url)
        return said if kind is int else said * scale

    def _checked(self, name: str) -> str:
        try:
            return check_model_name(name)
        except InvalidParameter as error:
            raise _invalid(f"has a bad name: {error.message}", self._url) from None

    def _graph(self, text: str) -> GraphInvalid:
        return GraphInvalid(text, url=self._url)


#: Field of a model, name in a register call, kind, and unit.
_SETTINGS: Final[tuple[tuple[str, str, type, float], ...]] = (
    ("engineName", "engine", str, 1),
    ("queueSize", "queue_capacity", int, 1),
    ("batchSize", "batch_size", int, 1),
    ("maxBatchDelayMillis", "max_batch_delay_s", float, 0.001),
    ("maxIdleSeconds", "max_idle_s", float, 1.0),
    ("minWorkers", "min_workers", int, 1),
    ("maxWorkers", "max_workers", int, 1),
)


def _labelled(at: int, value: Value) -> list[tuple[str, int]]:
    """What tells a function which argument, and which element of it, something is."""
    if not isinstance(value, list):
        return [(f"{at}:", value)]
    # Lists of lists come from lists that are applied to lists: taken as one.
    flat: list[int] = []
    for item in value:
        flat += [source for _, source in _labelled(at, item)]
    return [(f"{at}[{index}]:", source) for index, source in enumerate(flat)]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _invalid(what: str, url: str) -> WorkflowInvalid:
    return WorkflowInvalid(f"The workflow definition {what}.", url=url)
