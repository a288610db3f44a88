"""Every setting of stoker, typed, in one frozen record.

Names are TorchServe's keys wherever the peer has one (contracts/torchserve.md
9.3), so a `config.properties` can be read as it is.  How a record comes to be
(defaults < file < environment < flags) is `settings_load.py`'s noun.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


def setting(default: object, doc: str, *, peer: bool = False) -> object:
    """A field with its one-sentence documentation; `peer` marks a TorchServe key."""
    if isinstance(default, (list, dict)):
        raise TypeError("settings are immutable; use a tuple")
    return field(default=default, metadata={"doc": doc, "peer": peer})
