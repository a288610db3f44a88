"""Registering a model, which is a workflow of one node: contracts/djl-serving.md 4.1, 4.2, 9."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from stoker.archives.manifest import DEFAULT_VERSION
from stoker.archives.startup import name_from_url
from stoker.errors import InvalidParameter
from stoker.frontend.dialects.djl.shapes import REGISTERED
from stoker.frontend.dialects.shared.replies import PATIENT_S, status
from stoker.frontend.routes import OTHERS, Operation, Parameter, Reply, Values
from stoker.names import check_model_name, check_version
from stoker.settings import Settings

#: What the peer's Java library, or another program beside it, fetches.
_FOREIGN: Final = re.compile(r"(djl|s3|hdfs|jar|gs)://", re.IGNORECASE)
#: One slash is as good as three there.
_FILE: Final = re.compile(r"file:/(?!/)", re.IGNORECASE)


def register_operation(settings: Settings, kind: str) -> Operation:
    """Of `Model` or `Workflow`, which differ in what is said."""
    return Operation(
        "register",
        _read,
        _writer(kind),
        PATIENT_S,
        REGISTERED,
        _parameters(settings),
        takes_json=kind == "Model",
        takes_others=True,
    )


def _parameters(settings: Settings) -> tuple[Parameter, ...]:
    is_synchronous = settings.default_synchronous
    return (
        Parameter("url", "string", "Archive: a name in the model store, or a URL."),
        Parameter("template", "string", "Workflow template in place of a url."),
        Parameter("model_name", "string", "Name of the model; default the url's."),
        Parameter("model_version", "string", "Version of the model."),
        Parameter("engine", "string", "Engine; default what the archive is for."),
        Parameter("gpu_id", "string", "The GPU to load it on; -1 = CPU."),
        Parameter("device", "string", "Devices: `cpu`, `gpu0`, ..., several with `;`; * = all."),
        Parameter("batch_size", "integer", "Most requests in one batch.", minimum=1),
        Parameter("max_batch_delay", "integer", "Wait for a batch, in ms.", minimum=0),
        Parameter("max_idle_time", "integer", "Idle seconds of an extra worker.", minimum=0),
        Parameter("min_worker", "integer", "Least workers; default 1."),
        Parameter("max_worker", "integer", "Most workers; default min_worker."),
        Parameter("job_queue_size", "integer", "Requests that may wait.", minimum=1),
        Parameter(
            "synchronous",
            "boolean",
            "Answer when the workers are ready.",
            default=True if is_synchronous is None else is_synchronous,
        ),
    )


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    if not values["url"] and values["template"]:
        return _read_template(values)
    url = read_url(values["url"])
    model = values["model_name"] or name_from_url(url)
    version = values["model_version"] or None
    check_model_name(model)
    if version is not None:
        check_version(version)
    delay_ms, idle_s = values["max_batch_delay"], values["max_idle_time"]
    return {
        "url": url,
        "model": model,
        "version": version or DEFAULT_VERSION,
        "is_unversioned": version is None,
        # Without a version it must be the only one of its name.
        "takes_free_name": version is None,
        "engine": values["engine"] or "",
        "devices": values["device"] or values["gpu_id"] or None,
        "batch_size": values["batch_size"],
        "max_batch_delay_s": None if delay_ms is None else delay_ms / 1000,
        "max_idle_s": None if idle_s is None else float(idle_s),
        "min_workers": kept(values["min_worker"]),
        "max_workers": kept(values["max_worker"]),
        "initial_workers": 1,
        "per_device": True,
        "queue_capacity": values["job_queue_size"],
        "synchronous": values["synchronous"],
        "answers_first": True,
        "checks_memory": True,
        # Should the url be that of a definition.
        "workflow": values["model_name"] or None,
    }


def _read_template(values: Values) -> dict[str, Any]:
    """A definition with places for what else the client says (8.4)."""
    name, version = values["model_name"] or None, values["model_version"] or None
    if name is not None:
        check_model_name(name)
    if version is not None:
        check_version(version)
    said = {**values[OTHERS], "model_name": name or ""}
    return {
        "template": values["template"],
        "workflow": name,
        "version": version,
        "parameters": {name: str(value) for name, value in said.items()},
        "synchronous": values["synchronous"],
    }


def read_url(url: str | None) -> str:
    """The address as the archives know it.

    Raises:
        InvalidParameter: There is none, or only a Java server could read it.
    """
    if not url:
        raise InvalidParameter("Parameter url is required.", parameter="url")
    if foreign := _FOREIGN.match(url):
        raise InvalidParameter(
            f"{foreign[1].lower()}:// addresses are read by a library of the Java server; give an "
            "http(s) or file address, or the name of an archive in the model store.",
            parameter="url",
        )
    return _FILE.sub("file:///", url)


def kept(count: int | None) -> int | None:
    """-1 is how clients say that nothing is said."""
    return None if count is None or count < 0 else count


def _writer(kind: str) -> Callable[[dict[str, Any], dict[str, Any]], Reply]:
    def write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
        named = f'{kind} "{outcome["model"]}"'
        if outcome["outcome"] in ("scheduled", "partial"):
            return status(f"{named} registration scheduled.", 202)
        return status(f"{named} registered.")

    return write
