"""Is this the same server going on, or another one that somebody started?

A supervisor that crashed is started again by the one who started the first:
our launcher, which lives on, or systemd, which calls every start of a unit by
another name.  What a configuration says is read as an operator's word when a
server is started, not when a crash is repaired.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from stoker.process_start import boot_id, start_ticks


def launch_id(environ: Mapping[str, str]) -> str:
    """The same for every supervisor of one start, and for no other."""
    parent = os.getppid()
    invocation = environ.get("INVOCATION_ID", "")
    return f"{boot_id()}:{parent}:{start_ticks(parent)}:{invocation}"
