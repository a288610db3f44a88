"""A process that has loaded a model, and forks the workers of that model from itself.

What the handler loaded is there once, however many workers there are, and a
worker that replaces a dead one is there in milliseconds.  It is a template
(`template.py`, which draws how it is talked to) with a model in it:

    supervisor -> parent   a sealed file, in place of the first message: the LOAD
    parent -> supervisor
        READY                                 once, when the model is loaded
        code | message | last_line            instead, and the end: it cannot be

The model is loaded without a device and for batches of one; a worker tells the
handler's context what it got instead, when it is told what to load.

A fork copies memory, and one thread: a handler that started threads, or has a
context on a GPU, is refused with that reason rather than left to hang.

Source: contracts/mms.md 1, 13.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import setproctitle

from stoker.exit_codes import ExitCode
from stoker.heap import share_what_exists
from stoker.wire import packing
from stoker.wire.frames import LoadFailed
from stoker.wire.loading import LoadSpec
from stoker.worker import __main__ as worker_main
from stoker.worker.context import Context
from stoker.worker.fence import FENCE_VARIABLE, raise_fence_if_asked
from stoker.worker.load import Loaded, load, load_failure, make_context
from stoker.worker.parent import PARENT_VARIABLE, die_with_parent
from stoker.worker.template import READY, Become, reseed, serve, take_output

MAX_LOAD_BYTES: Final = 16 << 20
_FDS: Final = Path("/proc/self/fd")
_GPU: Final = "/dev/nvidia"


class Preloaded(NamedTuple):
    """A model that is there already."""

    context: Context
    loaded: Loaded


def main() -> int:
    # The descriptor of the supervisor, that of what to load, and a label for `ps`.
    descriptor, load_descriptor, label = sys.argv[1:]
    if not die_with_parent():
        return ExitCode.UNAVAILABLE
    os.environ.pop(PARENT_VARIABLE, None)
    setproctitle.setproctitle(f"stoker: preload {label}")
    with open(int(load_descriptor), "rb") as file:
        spec = LoadSpec.from_wire(packing.unpack(file.read(MAX_LOAD_BYTES)))
    with socket.socket(fileno=int(descriptor)) as supervisor:
        try:
            # User code runs here, too.
            raise_fence_if_asked()
            preloaded = _preload(spec)
            gc.collect()
            share_what_exists()
            supervisor.send(READY)
            serve(supervisor)
        except Become as become:
            order, output = become.order, become.output
        except _Refused as refused:
            supervisor.send(packing.pack(list(refused.failure)))
            return ExitCode.LOAD_FAILED
        except ConnectionError:
            return ExitCode.OK  # it is not wanted any more
        else:
            return ExitCode.OK
    _become_worker(order, output)
    return worker_main.main(preloaded)


class _Refused(Exception):
    def __init__(self, failure: LoadFailed) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _preload(spec: LoadSpec) -> Preloaded:
    """Raises _Refused."""
    context = make_context(spec)
    try:
        loaded = load(spec, context)
    except BaseException as error:
        raise _Refused(load_failure(spec, error)) from None
    if reason := why_not_forked():
        said = f"preload_model: the handler {reason}; register the model without preload_model."
        sys.stderr.write(f"stoker: {said}\n")
        raise _Refused(LoadFailed("load_failed", said, said))
    return Preloaded(context, loaded)


def why_not_forked(fds: Iterable[Path] | None = None) -> str:
    """What of the loaded handler a fork would not survive; "" for nothing."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "has initialised CUDA, which a fork cannot use"
    if any(_leads_to(path, _GPU) for path in (_FDS.iterdir() if fds is None else fds)):
        return "holds a GPU, which a fork cannot use"
    own = threading.main_thread()
    others = sorted(thread.name for thread in threading.enumerate() if thread is not own)
    if others:
        return f"has started threads ({', '.join(others)[:200]}), which a fork does not have"
    return ""


def _leads_to(path: Path, beginning: str) -> bool:
    try:
        return os.readlink(path).startswith(beginning)
    except OSError:  # the one that the folder was read with
        return False


def _become_worker(order: dict[str, Any], output: list[int]) -> None:
    """The order's command line, variables and pipes; folder and path are the model's already."""
    take_output(output)
    os.environ.clear()
    os.environ.update(order["env"])
    # It has been raised, for good, before the model was loaded.
    os.environ.pop(FENCE_VARIABLE, None)
    sys.argv = ["stoker.worker", *order["argv"]]
    reseed()


if __name__ == "__main__":
    sys.exit(main())
