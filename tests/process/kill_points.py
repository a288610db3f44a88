"""A small supervisor that is killed at seeded points, again and again, in one folder.

    python -P kill_points.py FOLDER SEED POINTS

The real `Control`, `Engine` and journal with workers that are played; every
life is a fork of this process, so it costs milliseconds.  A life restores what
is stored, says what it shows, makes one management call, and is killed with
SIGKILL on the way:

    line     before a seeded line of our code that handles calls or state
    step     at a seeded instruction inside SQLite

What the next life shows must be the state before the call or the one after it,
as a plain model says; after it, if the call was answered.  Prints one JSON
object that counts what happened; the first violation ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from stoker.clock import MonotonicClock
from stoker.errors import StokerError
from stoker.metrics_config import PACKAGED
from stoker.settings.load import load
from stoker.supervisor import actions as a
from stoker.supervisor.calls import Caller
from stoker.supervisor.control import Control
from stoker.supervisor.deaths import Exit
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.host_fencing import find_fencing
from stoker.supervisor.journal_place import JournalPlace
from stoker.supervisor.metrics import Metrics
from stoker.supervisor.versions import Failure

#: Files whose lines are points.
WATCHED: Final = (
    "absent_versions.py",
    "control.py",
    "desired.py",
    "journal.py",
    "journal_file.py",
    "journal_place.py",
    "journal_tables.py",
    "kept_arguments.py",
    "register_calls.py",
    "registrations.py",
    "restoring.py",
    "startup_loads.py",
    "unsettled_versions.py",
    "version_archives.py",
    "version_calls.py",
)
KEYS: Final = [("a", "1.0"), ("a", "2.0"), ("b", "1.0")]
#: Model -> (default, version -> (min, max)).
State = dict[str, Any]
Call = tuple[str, dict[str, Any]] | None


class Life:
    """One life of the server, with workers that load at once or never."""

    def __init__(self, folder: Path) -> None:
        flags = [
            part
            for name in ("runtime", "state", "cache", "log")
            for part in (f"--{name}-dir", str(folder / name))
        ]
        self._settings = load(flags, {})
        places = DevicePlaces(())
        self.engine = Engine(places, 9000, 1 << 30)
        self._places = places
        self._clock = MonotonicClock()
        self._answered: asyncio.Future[Any] | None = None

    async def run(self, call: Call, out: int, counting: Counting) -> None:
        counting.begin("restore")
        await self.start()
        say(out, "shows", shown(self.engine))
        if call is not None:
            counting.begin("call")
            outcome = await self.ask(*call)
            is_error = isinstance(outcome, StokerError)
            say(out, "refused" if is_error else "answered", outcome.code if is_error else "")
        await self.close()

    async def start(self) -> None:
        self._place = place = JournalPlace(self._settings, "one launch")
        self._journal = await place.open()
        self._control = Control(
            self._settings,
            self.engine,
            self._places,
            self._clock,
            self._journal,
            Metrics(self.engine, self._settings, PACKAGED, self._settings.log_dir),
            self._answer,
            self._end_turn,
            find_fencing(self._settings),
        )
        await self._control.start(
            goes_on=place.goes_on, keep_aside=place.keep_aside, progress=lambda: None
        )

    async def ask(self, verb: str, arguments: dict[str, Any]) -> Any:
        """What a call is answered."""
        self._answered = asyncio.get_running_loop().create_future()
        self._control.call(Caller(b"12345678", 1), verb, arguments)
        self._end_turn()
        return await asyncio.wait_for(self._answered, 20)

    async def close(self) -> None:
        await self._control.close()
        await self._journal.close()
        self._place.close()

    def _answer(self, caller: Caller, outcome: Any) -> None:
        assert self._answered is not None
        self._answered.set_result(outcome)

    def _end_turn(self) -> None:
        for action in self.engine.take_actions():
            now = self._clock.now()
            loop = asyncio.get_running_loop()
            match action:
                case a.Spawn(worker_id):
                    self.engine.worker_spawned(worker_id, 1000 + worker_id)
                    self._soon(loop, self.engine.worker_said_hello, worker_id, now)
                case a.SendLoad(worker_id, spec):
                    if spec.loading["handler"] == "bad":
                        failure = Failure("It cannot load.", "ImportError: bad")
                        self._soon(loop, self.engine.worker_load_failed, worker_id, failure, now)
                        self._soon(loop, self.engine.worker_exited, worker_id, Exit("exit 1"), now)
                    else:
                        self._soon(loop, self.engine.worker_loaded, worker_id, now)
                case a.SendLeave(worker_id) | a.Kill(worker_id):
                    self._soon(loop, self.engine.worker_exited, worker_id, Exit("exit 0"), now)
                case a.Resolve(call, outcome):
                    self._control.resolve(call, outcome)
                case a.Release(spec):
                    self._control.release(spec)

    def _soon(self, loop: asyncio.AbstractEventLoop, event: Any, *facts: Any) -> None:
        def happen() -> None:
            if self.engine.worker(facts[0]) is not None:
                event(*facts)
            self._end_turn()

        loop.call_soon(happen)


def shown(engine: Engine) -> State:
    """What clients can see of the desired state."""
    registry = engine.registry
    return {
        name: {
            "default": registry.default_version(name),
            "versions": {
                served.spec.version: [served.crew.min_workers, served.crew.max_workers]
                for served in registry.all_versions(name)
            },
        }
        for name in registry.names()
    }


def say(out: int, what: str, value: Any) -> None:
    os.write(out, json.dumps([what, value]).encode() + b"\n")


# -- what should be ---------------------------------------------------------------------


def choose(seed: random.Random, state: State) -> tuple[str, dict[str, Any]]:
    """A call that can succeed as often as not."""
    model, version = seed.choice(KEYS)
    low = seed.randint(0, 3)
    verb = seed.choice(["register", "register", "scale", "unregister", "set_default"])
    if verb == "register":
        return verb, {
            "model": model,
            "version": version,
            "handler": seed.choice(["good", "good", "bad"]),
            "initial_workers": seed.randint(0, 2),
            "synchronous": seed.random() < 0.5,
            "batch_size": seed.randint(1, 8),
        }
    known = [(m, v) for m, of in state.items() for v in of["versions"]]
    if known and seed.random() < 0.9:
        model, version = seed.choice(known)
    if verb == "scale":
        workers = {"min_workers": low, "max_workers": low + seed.randint(0, 1)}
        return verb, {"model": model, "version": version, **workers}
    return verb, {"model": model, "version": version}


def after(state: State, verb: str, asked: dict[str, Any]) -> State:
    """The state when the call has succeeded; the same state when it cannot."""
    state = json.loads(json.dumps(state))
    model, version = asked["model"], asked["version"]
    known = state.get(model)
    versions = known["versions"] if known else {}
    if verb == "register":
        count = asked["initial_workers"]
        if version in versions or (asked["handler"] == "bad" and asked["synchronous"] and count):
            return state
        known = state.setdefault(model, {"default": version, "versions": {}})
        known["versions"][version] = [count, count]
    elif version not in versions:
        return state
    elif verb == "scale":
        versions[version] = [asked["min_workers"], asked["max_workers"]]
    elif verb == "set_default":
        state[model]["default"] = version
    elif state[model]["default"] != version or len(versions) == 1:
        del versions[version]
        if not versions:
            del state[model]
    return state


# -- dying ------------------------------------------------------------------------------


class Counting:
    """Counts points of one kind in one phase, and kills this process at the chosen one."""

    def __init__(self, kind: str, phase: str, at: int | None) -> None:
        self.count = 0
        self._kind = kind
        self._phase = phase
        self._at = at
        self._is_begun = False
        self._lock = threading.Lock()

    def begin(self, phase: str) -> None:
        self._is_begun = phase == self._phase

    def hit(self) -> None:
        if not self._is_begun:
            return
        with self._lock:
            self.count += 1
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        if self._kind == "line":
            threading.settrace(self._trace)
            sys.settrace(self._trace)
        elif self._kind == "step":
            connect = sqlite3.connect

            def watched(*args: Any, **more: Any) -> sqlite3.Connection:
                connection = connect(*args, **more)
                connection.set_progress_handler(lambda: self.hit() or 0, 1)  # type: ignore[func-returns-value]
                return connection

            sqlite3.connect = watched  # type: ignore[assignment]

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename.rpartition("/")[2] not in WATCHED:
            return None
        if event == "line":
            self.hit()
        return self._trace


class Told(NamedTuple):
    """What a life said, whether it was killed, and how many points it passed."""

    lines: list[list[Any]]
    was_killed: bool
    points: int


def live(folder: Path, call: Call, counting: Counting) -> Told:
    """One life, in a process of its own."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(read)
        code = 1
        try:
            counting.install()
            asyncio.run(Life(folder).run(call, write, counting))
            sys.settrace(None)
            say(write, "points", counting.count)
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with open(read) as said:
        lines = [json.loads(line) for line in said.read().split("\n")[:-1]]
    _, status = os.waitpid(pid, 0)
    was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert was_killed or status == 0, f"a life ended with {status}: {call}"
    points = lines.pop()[1] if lines and lines[-1][0] == "points" else 0
    return Told(lines, was_killed, points)


def main(folder: Path, number: int, wanted: int) -> dict[str, int]:
    for name in ("runtime", "state", "cache", "log"):
        (folder / name).mkdir(mode=0o700)
    seed = random.Random(number)
    counts: Counter[str] = Counter()
    #: The longest way seen so far, by kind and phase.
    lengths = {(kind, phase): 50 for kind in ("line", "step") for phase in ("call", "restore")}
    state: State = {}
    possible: list[State] = [state]
    while counts["killed"] < wanted:
        kind, phase = seed.choice(["line", "step"]), seed.choice(["call", "call", "restore"])
        at = None if seed.random() < 0.1 else seed.randint(1, lengths[kind, phase])
        call = choose(seed, state)
        told = live(folder, call, Counting(kind, phase, at))
        if told.points:
            lengths[kind, phase] = max(lengths[kind, phase], told.points)
        words = [word for word, _ in told.lines]
        if words:
            state = told.lines[0][1]
            assert state in possible, f"shows {state}, should be one of {possible}"
            later = after(state, *call)
            possible = {
                "shows": [state, later],
                "answered": [later],
                "refused": [state],
            }[words[-1]]
            counts["could change"] += later != state
            counts["killed before the answer"] += words[-1] == "shows" and later != state
        counts["killed"] += told.was_killed
        counts[f"killed at a {kind} of a {phase}"] += told.was_killed
    told = live(folder, None, Counting("none", "", None))
    assert told.lines[0][1] in possible, f"shows {told.lines[0][1]}, not one of {possible}"
    return dict(counts)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
