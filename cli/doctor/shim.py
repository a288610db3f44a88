"""What of the peers' packages a handler may import here.

Read from the files that stand in for it, so that the answer cannot be out of
date; they are parsed, not imported.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path
from typing import Final

#: The packages whose imports are judged here.
PACKAGES: Final = frozenset({"ts", "mms"})
BUILT_IN: Final = "ts.torch_handler"
#: Names that mean "built in" for the peer's archiver (6.1).
PEERS_HANDLERS: Final = frozenset(
    {
        "base_handler",
        "text_classifier",
        "image_classifier",
        "object_detector",
        "image_segmenter",
        "dali_image_classifier",
        "vllm_handler",
        "trt_llm_handler",
    }
)


def missing(module: str, names: list[str] | None) -> list[str]:
    """What `import module` or `from module import names` would not find."""
    path = _path_of(module)
    if path is None:
        return [module]
    if names is None:
        return []
    offered = _names_of(path)
    return [
        f"{module}.{name}"
        for name in names
        if name != "*" and name not in offered and _path_of(f"{module}.{name}") is None
    ]


def has_handler(name: str) -> bool:
    return _path_of(f"{BUILT_IN}.{name}") is not None


@functools.cache
def _root() -> Path:
    spec = importlib.util.find_spec("stoker.compat")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _path_of(module: str) -> Path | None:
    path = _root().joinpath(*module.split("."))
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.is_file():
            return found
    return None


@functools.cache
def _names_of(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(each.asname or each.name for each in node.names)
        elif isinstance(node, ast.Assign):
            names.update(each.id for each in node.targets if isinstance(each, ast.Name))
    return frozenset(names)
