"""A program of ours that runs in a fork of this process, as if it had been executed.

Importing it takes a tenth of a second and more, and some megabytes: it is done
once, in the launcher.  A process that is forked afterwards shares what was
imported, and a successor of one that crashed serves milliseconds later.

What `exec` would have made new is made new by hand: descriptors, signals, the
process group, standard input and environment.  The launcher has one
thread and none of the things that do not survive a fork: no loop, no zmq
context, no connection.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from stoker.death_signal import die_with
from stoker.exit_codes import ExitCode
from stoker.heap import share_what_exists

_FIRST_OWN_FD: Final = 3


class Program:
    """A module with a `serve(*arguments, environ)` that returns an exit code.

    It may also have a `prepare(*arguments)`: to import what it will need for those.
    """

    def __init__(self, module: str, *arguments: object) -> None:
        self._module = module
        self._arguments = arguments

    def load(self) -> None:
        """Import it, once.  What exists then is shared by all that is forked from here on."""
        if self._module in sys.modules:
            return
        # Importing makes objects that stay, so collecting meanwhile is for nothing.
        gc.disable()
        try:
            module = importlib.import_module(self._module)
            if hasattr(module, "prepare"):
                module.prepare(*self._arguments)
        finally:
            gc.enable()
        share_what_exists()

    def fork(self, environ: Mapping[str, str]) -> int:
        """Run it in a process of its own; returns the pid.

        The process leads a group, gets SIGTERM when this one dies, has
        nothing open but standard output and error, and no other environment.

        Raises:
            OSError: The system refuses another process.
        """
        self.load()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal between fork and reset would be handled as if we had got it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self._live(parent, mask, environ)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Both sides do it: whoever comes second finds it done.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid

    def _live(
        self, parent: int, mask: set[signal.Signals] | set[int], environ: Mapping[str, str]
    ) -> NoReturn:
        """The child's whole life.  It never returns to what lies below on the stack."""
        status = int(ExitCode.FAILURE)
        try:
            os.setpgid(0, 0)
            if not die_with(parent, signal.SIGTERM):
                os._exit(ExitCode.OK)
            _close_descriptors()
            _reset_signals()
            os.environ.clear()
            os.environ.update(environ)
            sys.argv = [self._module]
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            status = self._run()
        except BaseException:
            traceback.print_exc()
        finally:
            # Threads are not waited for: who started any has ended them by now.
            os._exit(status)

    def _run(self) -> int:
        """What the interpreter does around a script."""
        serve: Callable[..., int] = sys.modules[self._module].serve
        try:
            status = _as_status(serve(*self._arguments, dict(os.environ)))
        except SystemExit as leaving:
            status = _as_status(leaving.code)
        except BaseException:
            traceback.print_exc()
            status = int(ExitCode.FAILURE)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        return status


def _close_descriptors() -> None:
    """All but standard output and error; objects that had them belong to frames that never run."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= _FIRST_OWN_FD:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _reset_signals() -> None:
    """Handlers do not survive an `exec`; what is ignored (nohup's SIGHUP) does."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def _as_status(code: object) -> int:
    if code is None:
        return int(ExitCode.OK)
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return int(ExitCode.FAILURE)
