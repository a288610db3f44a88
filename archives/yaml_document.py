"""YAML from a stranger, as plain data.

safe_load keeps code out (CVE-2022-1471); it does not keep out documents that
are small to write and endless to read.  So the events are counted before
anything is built of them.

The library is imported with the first document: most servers never see one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from stoker.archives.plain import MAX_DEPTH, MAX_NODES, NotPlain, plain

MAX_YAML_BYTES: Final = 1 << 20
MAX_ALIASES: Final = 16
#: With aliases, merging can multiply what is there; such a document must be small.
_MAX_NODES_WITH_ALIASES: Final = 10_000
#: Sexagesimal and decimal numbers cost the square of their length.
_LONG_NUMBER: Final = re.compile(r"[-+0-9_:.xXoObBa-fA-F]{512,}")


class BadYaml(ValueError):
    """Not YAML, or not of a size and shape that we read."""


def read_yaml(path: Path) -> tuple[Any, list[str]]:
    """Parse the file; also a sentence for each kind of value that had to be changed.

    Raises:
        BadYaml
    """
    try:
        with path.open("rb") as file:
            return parse_yaml(file.read(MAX_YAML_BYTES + 1))
    except OSError as error:
        raise BadYaml(f"cannot be read: {error.strerror}") from None


def parse_yaml(text: bytes) -> tuple[Any, list[str]]:
    """As `read_yaml`, from bytes."""
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise BadYaml("is too large")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(text, loader)
        return plain(yaml.load(text, Loader=loader))
    except BadYaml:
        raise
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadYaml(f"is not YAML{where}: {error.problem}") from None
    except NotPlain as error:
        raise BadYaml(str(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError) as error:
        # TypeError: a list as a key.  ValueError: an impossible date or number.
        raise BadYaml(f"is not YAML: {error}"[:200]) from None


def _check_events(text: bytes, loader: Any) -> None:
    import yaml

    depth = aliases = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        elif isinstance(event, yaml.ScalarEvent) and _LONG_NUMBER.fullmatch(event.value):
            raise BadYaml("holds a number that is too long")
        if depth > MAX_DEPTH:
            raise BadYaml("is nested too deeply")
        if aliases > MAX_ALIASES:
            raise BadYaml("refers to itself too often")
        if nodes > (_MAX_NODES_WITH_ALIASES if aliases else 4 * MAX_NODES):
            raise BadYaml("is too large")
