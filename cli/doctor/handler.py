"""Will a worker find the handler, and everything it imports?

The rules are the worker's (contracts/torchserve.md 7.1), applied to facts that
were parsed (`source`), so nothing here runs anybody's code.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

from stoker.cli.doctor import shim
from stoker.cli.doctor.findings import Finding, Severity

#: `source.Import` and the rest, as they came through JSON.
Facts = dict[str, Any]

_DEFAULT_FUNCTION: Final = "handle"
_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_MOST_NAMES: Final = 12


def judge_handler(text: str, files: dict[str, Facts], *, installs: bool = False) -> list[Finding]:
    """Findings about a handler's name, its entry point, and what it imports.

    Args:
        installs: The archive's requirements will be installed, so what is
            missing here may be there then.
    """
    module, _, function = text.partition(":")
    path = _module_file(module, files)
    if path is None:
        return [_absent(text, module)]
    facts = files[path]
    if facts["error"]:
        return [
            Finding(
                Severity.FAILS,
                path,
                f"is not Python {_PYTHON}: {facts['error']}",
                "port the handler to the interpreter that runs stoker",
            )
        ]
    findings = [_entry_point(path, function, facts)]
    needed = set(_reachable(path, files))
    findings += _shim_findings(files, needed)
    findings += _package_findings(files, needed, installs=installs)
    findings += [
        Finding(Severity.DIFFERS, name, f"is not Python {_PYTHON}: {files[name]['error']}")
        if name not in needed
        else Finding(Severity.FAILS, name, f"is not Python {_PYTHON}: {files[name]['error']}")
        for name in files
        if files[name]["error"] and name != path
    ]
    return findings


def _module_file(module: str, files: dict[str, Facts]) -> str | None:
    """Where the worker's import finds it: the archive's root, or the folder it was given in."""
    folder, _, last = module.rpartition("/")
    parts = last.removesuffix(".py").split(".")
    for base in ([], folder.split("/") if folder else []):
        for tail in ([f"{parts[-1]}.py"], [parts[-1], "__init__.py"]):
            path = "/".join([*base, *parts[:-1], *tail])
            if path in files:
                return path
    return None


def _absent(text: str, module: str) -> Finding:
    name = module.rpartition("/")[2].removesuffix(".py")
    if shim.has_handler(name):
        return Finding(Severity.WORKS, text, "is built in")
    if name in shim.PEERS_HANDLERS:
        return Finding(
            Severity.FAILS,
            text,
            "is a built-in handler of TorchServe that stoker does not have",
            "put a handler of your own into the archive",
        )
    if _is_installed(name.partition(".")[0]):
        return Finding(Severity.WORKS, text, "is not in the archive, but installed here")
    return Finding(
        Severity.FAILS,
        text,
        "is neither in the archive nor installed here",
        "add it to the archive, or to the PYTHONPATH of the server",
    )


# -- the entry point ----------------------------------------------------------


def _entry_point(path: str, function: str, facts: Facts) -> Finding:
    functions, classes = facts["functions"], facts["classes"]
    wanted = function or _DEFAULT_FUNCTION
    if wanted in functions:
        if functions[wanted]:
            return _async(path, wanted)
        return Finding(Severity.WORKS, path, f"function {wanted}")
    if function and function in classes:
        return _of_class(path, function, classes[function])
    if wanted in facts["names"] or wanted in classes:
        return Finding(Severity.WORKS, path, f"{wanted}, as it is assigned or imported there")
    if function:
        return Finding(
            Severity.WORKS if len(classes) == 1 else Severity.FAILS,
            path,
            f"has no {function}"
            + (f", so its only class {next(iter(classes))} is used" if len(classes) == 1 else ""),
        )
    if len(classes) == 1:
        ((name, class_facts),) = classes.items()
        return _of_class(path, name, class_facts)
    named = ", ".join(classes) or "none"
    return Finding(
        Severity.FAILS,
        path,
        f"has no function {wanted} and not exactly one class, but {named}",
        "TorchServe refuses it too; name one as module:name",
    )


def _of_class(path: str, name: str, facts: Facts) -> Finding:
    methods = facts["methods"]
    if methods.get(_DEFAULT_FUNCTION):
        return _async(path, f"{name}.handle")
    if _DEFAULT_FUNCTION in methods or facts["bases"]:
        return Finding(Severity.WORKS, path, f"class {name}")
    return Finding(Severity.FAILS, path, f"class {name} has no method handle and no base class")


def _async(path: str, name: str) -> Finding:
    return Finding(
        Severity.WORKS,
        path,
        f"{name} is async",
        "requests are handled together where model-config.yaml has asyncCommunication: true",
    )


# -- imports ------------------------------------------------------------------


def _reachable(start: str, files: dict[str, Facts]) -> Iterator[str]:
    """Files of the archive that importing the handler imports, it included."""
    seen = {start}
    waiting = [start]
    while waiting:
        path = waiting.pop()
        yield path
        for found in files[path].get("imports") or ():
            for name in _own_files(found, path, files):
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)


def _own_files(found: dict[str, Any], importer: str, files: dict[str, Facts]) -> Iterator[str]:
    """Which files of the archive an import means."""
    module = found["module"]
    dots = len(module) - len(module.lstrip("."))
    folder = importer.split("/")[:-1]
    base = folder[: len(folder) - dots + 1] if dots else []
    parts = [part for part in module[dots:].split(".") if part]
    endings = [[], *([name] for name in found["names"] or ())]
    starts = [base] if dots else [base, folder]
    for start in starts:
        for end in endings:
            for depth in range(1, len(parts) + len(end) + 1):
                head = [*start, *[*parts, *end][:depth]]
                for path in ("/".join(head) + ".py", "/".join([*head, "__init__.py"])):
                    if path in files:
                        yield path


def _shim_findings(files: dict[str, Facts], needed: set[str]) -> Iterator[Finding]:
    for path, found in _all_imports(files):
        if found["module"].partition(".")[0] not in shim.PACKAGES:
            continue
        if lost := shim.missing(found["module"], found["names"]):
            is_fatal = path in needed and not found["is_guarded"] and not found["is_lazy"]
            yield Finding(
                Severity.FAILS if is_fatal else Severity.DIFFERS,
                f"{path}:{found['line']}",
                f"imports {', '.join(lost)}, which stoker does not have"
                + _when(found, path in needed),
            )


def _package_findings(
    files: dict[str, Facts], needed: set[str], *, installs: bool
) -> Iterator[Finding]:
    """Packages that are nowhere: one finding for all that stop a load, one for the rest."""
    own = {path.split("/")[0].removesuffix(".py") for path in files}
    own |= {path.split("/")[-1].removesuffix(".py") for path in files}
    fatal: dict[str, None] = {}
    later: dict[str, None] = {}
    for path, found in _all_imports(files):
        top = found["module"].partition(".")[0]
        if not top or top in own or top in shim.PACKAGES or _is_installed(top):
            continue
        if path in needed and not found["is_guarded"] and not found["is_lazy"]:
            fatal[top] = None
        else:
            later[top] = None
    for names, severity, text in (
        (fatal, Severity.FAILS, "not installed here, and needed to load the handler"),
        (later.keys() - fatal.keys(), Severity.DIFFERS, "not installed here, and perhaps needed"),
    ):
        if names:
            yield Finding(
                Severity.NOTE if installs else severity,
                "imports",
                f"{_listed(sorted(names))}: {text}",
                "its requirements may bring them"
                if installs
                else "install into the Python that runs stoker",
            )


def _all_imports(files: dict[str, Facts]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, facts in files.items():
        for found in facts.get("imports") or ():
            yield path, found


def _when(found: dict[str, Any], is_needed: bool) -> str:
    if not is_needed:
        return " (in a file that the handler does not import)"
    if found["is_guarded"]:
        return " (it expects that this may fail)"
    return " (when it is called)" if found["is_lazy"] else ""


def _listed(names: list[str]) -> str:
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _is_installed(top: str) -> bool:
    """Looked for, not imported."""
    if top in sys.stdlib_module_names:
        return True
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False


def derives_from_ours(text: str, files: dict[str, Facts]) -> bool:
    """Does a base class of ours load the weights, as far as names tell?"""
    path = _module_file(text.partition(":")[0], files)
    if path is None:
        return True
    imported = _names_from_shim(files[path].get("imports") or ())
    bases = {
        base
        for facts in (files[path].get("classes") or {}).values()
        for base in facts["bases"]
        if "_load_pickled_model" not in facts["methods"]
    }
    return any(base.rpartition(".")[2] in imported for base in bases)


def _names_from_shim(imports: Iterable[dict[str, Any]]) -> set[str]:
    return {
        name
        for found in imports
        if found["module"].startswith((shim.BUILT_IN, "stoker.handlers"))
        for name in found["names"] or ()
    }
