"""Devices as DJL Serving names them: `*`, `cpu`, `-1`, `gpu0`, `0`, several with `;`.

Source: contracts/djl-serving.md 6.3.
"""

from __future__ import annotations

import re
from typing import Final

from stoker.errors import InvalidParameter

_GPU: Final = re.compile(r"(?:gpu)?([0-9]{1,3})", re.IGNORECASE)
_CPU: Final = frozenset({"cpu", "-1"})
#: Every GPU, or the CPU where there is none.
ALL: Final = "*"


def parse_devices(text: str) -> tuple[str | None, tuple[int, ...]]:
    """The kind, None for whatever there is, and which of them, () for all.

    Raises:
        InvalidParameter: It names none, or CPU and GPUs together.
    """
    named = [part.strip().lower() for part in text.split(";") if part.strip()]
    if not named or named == [ALL]:
        return None, ()
    if _CPU.issuperset(named):
        return "cpu", ()
    indices: dict[int, None] = {}
    for name in named:
        match = _GPU.fullmatch(name)
        if match is None:
            raise _bad(text, "is no cpu and no gpuN" if name not in _CPU else "names CPU and GPUs")
        indices[int(match[1])] = None
    return "gpu", tuple(indices)


def _bad(text: str, why: str) -> InvalidParameter:
    return InvalidParameter(f"Parameter device {text[:40]!r} {why}.", parameter="device")
