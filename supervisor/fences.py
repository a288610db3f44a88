"""How the workers of a version are fenced.

    off          nothing of this
    rlimits      no new privileges, bounded files and memory, no core dumps
    bubblewrap   the same, in namespaces of its own where little is to be seen;
                 where it cannot be had: rlimits as a separate user, or not at all

`worker_user` makes any of them a user's who may not read what the server may.

Source: issue "Nothing is lost", promise 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OFF: Final = "off"
RLIMITS: Final = "rlimits"
BUBBLEWRAP: Final = "bubblewrap"


@dataclass(frozen=True, slots=True)
class Fence:
    """How the workers of one version are fenced.

    Attributes:
        kind: OFF (with a user of its own), RLIMITS or BUBBLEWRAP.
        memory_bytes: Address space of a worker; 0 for any.
        user: Whom workers run as; "" for the server's own user.
        has_network: False only in namespaces.
        instead: Why this is not the bubblewrap that was asked for; "" if it was not, or is.
    """

    kind: str
    memory_bytes: int = 0
    user: str = ""
    has_network: bool = True
    instead: str = ""
