"""A process that has imported everything, and forks workers from itself.

An interpreter with our imports takes a tenth of a second to start, with torch
more than one; a fork takes milliseconds and shares the memory of what was
imported.  A template holds no model, no CUDA context and a single thread, and
sees nothing of any request (design section 4).

    supervisor -> template   one SEQPACKET message per worker, msgpack, with two descriptors
        argv[] | env{} | cwd?            + stdout, stderr
    template -> supervisor
        READY                            once, when all imports are done
        pid                              per worker, in order

The worker is a grandchild whose parent has exited, so it becomes the child of
the supervisor, which is its subreaper: who decides over a process also reaps
it, and the death of a template costs no worker.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any, Final

import setproctitle

from stoker.exit_codes import ExitCode
from stoker.heap import let_go_of_files, share_what_exists
from stoker.wire import packing

# What every worker imports; here for the sake of the fork.
from stoker.worker import __main__ as worker_main
from stoker.worker.parent import PARENT_VARIABLE, die_with_parent

READY: Final = b"ready"
#: Arguments and environment of one worker; the kernel allows about as much.
MAX_MESSAGE_BYTES: Final = 1 << 20


class Become(Exception):
    """Leaves the template's loop in the child, to go on as a worker."""

    def __init__(self, order: dict[str, Any], output: list[int]) -> None:
        super().__init__()
        self.order = order
        self.output = output


def main() -> int:
    # The descriptor of the supervisor, and modules to import.  Not argparse, see `arguments.py`.
    descriptor, *preload = sys.argv[1:]
    if not die_with_parent():
        return ExitCode.UNAVAILABLE
    os.environ.pop(PARENT_VARIABLE, None)
    setproctitle.setproctitle(" ".join(["stoker: template", *preload]))
    own_path = _python_path()
    for name in preload:
        importlib.import_module(name)
    gc.collect()
    share_what_exists()
    with socket.socket(fileno=int(descriptor)) as supervisor:
        try:
            supervisor.send(READY)
            let_go_of_files()
            serve(supervisor)
        except Become as become:
            order, output = become.order, become.output
        except ConnectionError:
            # It hung up without reading all we said, READY for one: an end like any other.
            return ExitCode.OK
        else:
            return ExitCode.OK
    _dress(order, output, own_path)
    return worker_main.main()


def serve(supervisor: socket.socket) -> None:
    """Fork a worker per message until the supervisor hangs up.

    Raises:
        Become: in the worker.
    """
    while True:
        try:
            message, output, _, _ = socket.recv_fds(supervisor, MAX_MESSAGE_BYTES, 2)
        except ConnectionResetError:
            return  # it hung up before it read the last pid
        if not message:
            return
        try:
            _fork_worker(supervisor, message, output)
        finally:
            for fd in output:
                os.close(fd)


def _fork_worker(supervisor: socket.socket, message: bytes, output: Sequence[int]) -> None:
    told, tell = os.pipe()
    middle = os.fork()
    if middle:
        os.close(tell)
        with os.fdopen(told, "rb") as pipe:
            worker_pid = pipe.read()
        # Not before: the supervisor may look after a child, not a grandchild.
        os.waitpid(middle, 0)
        supervisor.send(worker_pid)
        return
    os.close(told)
    own_pid = os.getpid()
    if os.fork():
        os._exit(0)
    # A group of its own, before anybody may want to kill it as one.
    os.setsid()
    os.write(tell, str(os.getpid()).encode())
    os.close(tell)
    # Only after the middle process has gone is the supervisor our parent.
    while os.getppid() == own_pid:
        os.sched_yield()
    raise Become(packing.unpack(message), [os.dup(fd) for fd in output])


def take_output(output: Sequence[int]) -> None:
    """Write to these from now on."""
    for fd, source in zip((1, 2), output, strict=True):
        os.dup2(source, fd)
        os.close(source)
    # The old ones believe that they can seek, as the template's could.
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _dress(order: dict[str, Any], output: Sequence[int], own_path: list[str]) -> None:
    """Make this process what the order's command would have started."""
    take_output(output)
    os.environ.clear()
    os.environ.update(order["env"])
    if order["cwd"]:
        os.chdir(order["cwd"])
    sys.argv = ["stoker.worker", *order["argv"]]
    rest = [entry for entry in sys.path if entry not in own_path]
    sys.path[:] = [*_python_path(), *rest]
    importlib.invalidate_caches()
    reseed()


def _python_path() -> list[str]:
    return [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def reseed() -> None:
    """Workers of one template must not draw the same numbers; `random` sees to itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.seed()


if __name__ == "__main__":
    sys.exit(main())
