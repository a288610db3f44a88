"""`python -P -m stoker.cli.doctor.source ROOT [WEIGHTS...]`: facts about an archive, as JSON.

A process of its own, because parsing a stranger's file can take all memory or
overrun the parser's stack: it sets limits on itself, can write no file, and
whoever started it has a deadline.  Python files are parsed, never compiled to
code or imported; pickles are read instruction by instruction, never loaded.
"""

from __future__ import annotations

import ast
import json
import os
import pickletools
import resource
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

MAX_FILES: Final = 500
MAX_FILE_BYTES: Final = 1 << 20
MAX_MEMORY_BYTES: Final = 2 << 30
MAX_CPU_S: Final = 30
MAX_PICKLE_BYTES: Final = 16 << 20
MAX_PICKLE_OPERATIONS: Final = 2_000_000
MAX_GLOBALS: Final = 200
#: A file of the older torch format is several pickles in a row; the model is the fourth.
_PICKLES: Final = 4
_IMPORT_ERRORS: Final = frozenset({"ImportError", "ModuleNotFoundError", "Exception"})


class Import(NamedTuple):
    """One import.

    Attributes:
        names: Of `from module import names`; None for `import module`.
        is_lazy: Inside a function: an error shows when that is called.
        is_guarded: Inside a `try` that expects the error, or for type checkers alone.
    """

    module: str
    names: list[str] | None
    line: int
    is_lazy: bool
    is_guarded: bool


def main(argv: list[str]) -> int:
    _limit_ourselves()
    warnings.simplefilter("ignore")  # invalid escapes in strings are not our business
    root = Path(argv[0])
    facts = {
        "files": {name: _facts_of(path) for name, path in _python_files(root)},
        "weights": {name: _weights_of(root / name) for name in argv[1:]},
    }
    sys.stdout.write(json.dumps(facts))
    return 0


def _limit_ourselves() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _python_files(root: Path) -> Iterator[tuple[str, Path]]:
    left = MAX_FILES
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                if not left:
                    return
                left -= 1
                yield str(path.relative_to(root)), path


# -- Python -------------------------------------------------------------------


def _facts_of(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        text = file.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        return {"error": f"is larger than {MAX_FILE_BYTES} bytes"}
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return {"error": f"line {error.lineno}: {error.msg}"}
    except (ValueError, RecursionError, MemoryError) as error:
        return {"error": f"cannot be parsed: {error or type(error).__name__}"}
    classes = {}
    functions: dict[str, bool] = {}
    names: set[str] = set()
    for node in _module_level(tree):
        if isinstance(node, ast.ClassDef):
            classes[node.name] = _class_facts(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions[node.name] = isinstance(node, ast.AsyncFunctionDef)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(each.asname or each.name.partition(".")[0] for each in node.names)
    return {
        "error": None,
        "imports": [found._asdict() for found in _imports(tree)],
        "classes": classes,
        "functions": functions,
        "names": sorted(names),
    }


def _class_facts(node: ast.ClassDef) -> dict[str, Any]:
    methods = {
        item.name: isinstance(item, ast.AsyncFunctionDef)
        for item in node.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {"bases": [ast.unparse(base)[:200] for base in node.bases], "methods": methods}


def _module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported, outside functions and classes."""
    stack: list[ast.AST] = list(reversed(tree.body))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


def _imports(tree: ast.Module) -> Iterator[Import]:
    stack: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while stack:
        node, is_lazy, is_guarded = stack.pop()
        if isinstance(node, ast.Import):
            for each in node.names:
                yield Import(each.name, None, node.lineno, is_lazy, is_guarded)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names = [each.name for each in node.names]
            yield Import(module, names, node.lineno, is_lazy, is_guarded)
        elif isinstance(node, ast.Try):
            guards = is_guarded or any(map(_expects_import_errors, node.handlers))
            stack += [(child, is_lazy, guards) for child in node.body]
            rest = [*node.handlers, *node.orelse, *node.finalbody]
            # What a handler imports instead is needed only where the first way fails.
            stack += [(child, is_lazy, guards) for child in rest]
        else:
            is_lazy = is_lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            guards = is_guarded or (isinstance(node, ast.If) and _is_for_checkers(node.test))
            stack += [(child, is_lazy, guards) for child in ast.iter_child_nodes(node)]


def _expects_import_errors(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in _IMPORT_ERRORS for kind in kinds)


def _is_for_checkers(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


# -- weights ------------------------------------------------------------------


def _weights_of(path: Path) -> dict[str, Any]:
    """What kind of file it is; for torch's own pickles, what they would import."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic.startswith(b"PK\x03\x04"):
                return _zipped_weights(file)
            if magic.startswith(b"\x80"):
                return {"kind": "eager", "globals": _globals(file, _PICKLES)}
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        return {"kind": "unreadable", "reason": str(error)[:200]}
    return {"kind": "other"}


def _zipped_weights(file: IO[bytes]) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            return {"kind": "torchscript"}
        data = next((name for name in names if name.endswith("/data.pkl")), None)
        if data is None:
            return {"kind": "other"}
        with archive.open(data) as pickled:
            return {"kind": "eager", "globals": _globals(pickled, 1)}


def _globals(file: IO[bytes], pickles: int) -> list[str]:
    """`module.name` of everything that unpickling would look up."""
    import io

    stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    found: dict[str, None] = {}
    texts: list[str] = []
    left = MAX_PICKLE_OPERATIONS
    for _ in range(pickles):
        try:
            for operation, argument, _position in pickletools.genops(stream):
                left -= 1
                if not left or len(found) >= MAX_GLOBALS:
                    return sorted(found)
                if operation.name == "GLOBAL":
                    found[str(argument).replace(" ", ".", 1)] = None
                elif operation.name == "STACK_GLOBAL":
                    found[".".join(texts[-2:])] = None
                elif "UNICODE" in operation.name or operation.name in ("STRING", "BINSTRING"):
                    texts = [*texts[-3:], str(argument)]
        except (ValueError, IndexError):  # the end, or what follows the pickles
            break
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
