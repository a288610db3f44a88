"""A server whose watchdogs bite after seconds, and whose loops can be stuck by a file."""

from __future__ import annotations

from typing import Final

#: What to run with `python -c` in the place of `stoker`.
SERVE: Final = """
import os, sys
from stoker.cli import child, launcher, main
from stoker.frontend import __main__ as frontend, app
from stoker.supervisor.memory_watch import MemoryWatch

child.WATCHDOG_S, launcher.ABORT_GRACE_S, frontend.STUCK_S = 4.0, 0.2, 2
look, sweep = MemoryWatch.look, app.sweep_connections

def spin_at(name):
    path = os.path.join(os.environ["E2E_GATES"], name)
    if os.path.exists(path):
        os.unlink(path)
        while True:
            pass

def look_or_spin(self, now):
    spin_at("supervisor")
    look(self, now)

async def sweep_or_spin(*about):
    spin_at("frontend")
    await sweep(*about)

MemoryWatch.look, app.sweep_connections = look_or_spin, sweep_or_spin
sys.exit(main.main(sys.argv[1:]))
"""
