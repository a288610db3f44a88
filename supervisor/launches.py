"""Is this the same server going on, or another one that somebody started?

A supervisor that crashed is started again by the one who started the first:
our launcher, which lives on.  (systemd calls every start of a unit by another
name, also the repair of a crash.)  What a configuration says is an operator's
word when a server is started, not when a crash is repaired.  A server that was
told to stop has ended, whoever starts the next one.
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
