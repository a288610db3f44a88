"""What a soak does to the processes of a server, one fault at a time, by seed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil
from live_server import Server
from process_titles import title_of

#: Requests under way when the process at their other end is killed are cut, also a moment later.
CUT_S = 1.0


@dataclass
class Faults:
    """Chooses a fault, does it, and counts."""

    server: Server
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    frontends_killed_at: list[float] = field(default_factory=list)

    def strike(self) -> str:
        """Returns the name of what was done; "" if there was nothing to do it to."""
        names = [name for name, weight in WEIGHTS for _ in range(weight)]
        name = self.chance.choice(names)
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if KINDS[name](self):
                self.done[name] += 1
                return name
        return ""

    def was_cut(self, since: float) -> bool:
        return any(at >= since - CUT_S for at in self.frontends_killed_at)

    def of_role(self, title: str) -> list[psutil.Process]:
        return [process for process in self.server.tree() if title_of(process).startswith(title)]

    def hit(self, processes: Sequence[psutil.Process], number: int) -> bool:
        if not processes:
            return False
        os.kill(self.chance.choice(processes).pid, number)
        return True

    def kill_frontend(self) -> bool:
        # Noted before and after: a client may see its end in between.
        self.frontends_killed_at.append(time.monotonic())
        # With a number: the others' master has none, and each successor has the next.
        found = self.hit(self.of_role("stoker: frontend "), signal.SIGKILL)
        self.frontends_killed_at.append(time.monotonic())
        return found


def _killer(title: str, number: int) -> Callable[[Faults], bool]:
    return lambda faults: faults.hit(faults.of_role(title), number)


KINDS: dict[str, Callable[[Faults], bool]] = {
    "worker killed": _killer("stoker: worker", signal.SIGKILL),
    "worker stopped": _killer("stoker: worker", signal.SIGSTOP),
    "worker aborted": _killer("stoker: worker", signal.SIGABRT),
    "supervisor killed": _killer("stoker: supervisor", signal.SIGKILL),
    "template killed": _killer("stoker: template", signal.SIGKILL),
    "frontend killed": Faults.kill_frontend,
}
WEIGHTS = [
    ("worker killed", 8),
    ("worker stopped", 2),
    ("worker aborted", 2),
    ("supervisor killed", 4),
    ("template killed", 1),
    ("frontend killed", 3),
]
