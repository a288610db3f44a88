"""The other ranks of a worker, as rank 0 sees them.

A worker of several processes (`parallelType`, torchrun) is one worker to the
supervisor: rank 0 speaks with it, starts the others, gives them each batch if
they are to handle it too, and ends when one of them ends, because what is left
of a group can only hang in its next collective call.  All of them are in rank
0's process group and are killed with it.

    supervisor -- rank 0 -- socket pair -- rank 1
                        \\-- socket pair -- rank 2 ...

Source: contracts/torchserve.md 6.3, 6.5, 8.9.  There is no torchrun process:
its environment is what handlers read, its restarts are the supervisor's.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from stoker.exit_codes import ExitCode
from stoker.wire.frames import LoadFailed
from stoker.wire.loading import RANK_VARIABLES
from stoker.worker.rank_link import BATCH, FAILED, LOAD, LOADED, RankLink
from stoker.worker.request import Request

#: For ranks whose worker leaves: they hold nothing that anybody waits for.
LEAVE_S: Final = 3.0


class Ranks:
    """Ranks 1 and up.

    Args:
        tell: Passes a rank's failure to load to the supervisor; called from
            a thread while the main one loads, and the process ends after it.
    """

    def __init__(self, count: int, label: str, tell: Callable[[LoadFailed], None]) -> None:
        self._tell = tell
        self._links: dict[int, RankLink] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._all_loaded = threading.Event()
        self._is_leaving = False
        for rank in range(1, count):
            self._start(rank, label)
        self._watcher = threading.Thread(target=self._watch, name="ranks", daemon=True)

    def _start(self, rank: int, label: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "stoker.worker.rank"]
            command += ["--fd", str(theirs.fileno()), "--parent", str(os.getpid())]
            command += ["--rank", str(rank), "--label", f"{label} rank {rank}"]
            self._processes[rank] = subprocess.Popen(
                command,
                env={**os.environ, **dict.fromkeys(RANK_VARIABLES, str(rank))},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._links[rank] = RankLink(ours)

    def load(self, spec: dict[str, Any]) -> None:
        """Let all begin: rank 0's own load may wait for theirs."""
        for link in self._links.values():
            link.send(LOAD, spec)
        self._watcher.start()

    def wait_loaded(self) -> None:
        """The supervisor's startup timeout is the deadline, and shows where we are."""
        self._all_loaded.wait()

    def broadcast(self, requests: Sequence[Request]) -> None:
        """Give a batch to all; bodies from shared memory go along, it may be freed before."""
        payloads = [request.pack() for request in requests]
        for link in self._links.values():
            link.send(BATCH, payloads)

    def leave(self) -> None:
        """Let all end.  Who does not is killed with our process group."""
        self._is_leaving = True
        for link in self._links.values():
            link.hang_up()
        for process in self._processes.values():
            try:
                process.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()

    # -- the thread that watches them ------------------------------------------

    def _watch(self) -> None:
        loaded: set[int] = set()
        with selectors.DefaultSelector() as selector:
            for rank, link in self._links.items():
                selector.register(link, selectors.EVENT_READ, rank)
            while not self._is_leaving:
                for key, _ in selector.select():
                    message = self._links[key.data].receive()
                    if message is None:
                        self._lose(key.data)
                        return
                    if message[0] == FAILED:
                        self._fail(LoadFailed(*message[1:]))
                    elif message[0] == LOADED:
                        loaded.add(key.data)
                if len(loaded) == len(self._links):
                    self._all_loaded.set()

    def _fail(self, failure: LoadFailed) -> None:
        """The main thread may be waiting for that rank in a call that nothing ends."""
        if not self._is_leaving:
            self._tell(failure)
            os._exit(ExitCode.LOAD_FAILED)

    def _lose(self, rank: int) -> None:
        if self._is_leaving:
            return
        status = self._processes[rank].wait()
        how = f"signal {-status}" if status < 0 else f"exit {status}"
        os.write(2, f"stoker: rank {rank} of this worker has ended: {how}\n".encode())
        os._exit(ExitCode.FAILURE)
