"""Finding classes in modules, by place or by name."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Classes defined in `module` itself, optionally only those below `parent_class`."""
    return [
        item
        for item in vars(module).values()
        if inspect.isclass(item)
        and item.__module__ == module.__name__
        and (parent_class is None or issubclass(item, parent_class))
    ]


def import_class(class_name: str, module_prefix: str | None = None) -> type:
    """The class called `module.Class`, or `Class` in `module_prefix`.

    Raises:
        ImportError: There is no such module or class.
    """
    parts = [module_prefix] if module_prefix else []
    inner, _, name = class_name.rpartition(".")
    if inner:
        parts.append(inner)
    if not parts or not name:
        raise ImportError(f"no module given for class {class_name!r}")
    module = importlib.import_module(".".join(parts))
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        raise ImportError(f"module {module.__name__} has no class {name!r}")
    return found
