"""How a worker process ends, in a number its supervisor can read."""

from __future__ import annotations

import enum


class WorkerExit(enum.IntEnum):
    """Exit statuses of `python -m stoker.worker`; above 128 it was a signal."""

    #: Told to leave, or SIGTERM: the batch in hand was answered, batches not begun were left.
    LEFT = 0
    #: Started by hand or with arguments that make no sense.
    USAGE = 64
    #: The handler could not be loaded; LoadFailed was sent.
    LOAD_FAILED = 65
    #: The supervisor did not answer or did not read within the deadline.
    SUPERVISOR_GONE = 69
    #: A bug in the worker itself; the traceback is on stderr.
    INTERNAL = 70
    #: The supervisor sent a frame that is not ours.
    PROTOCOL = 76
    #: The handler raised SystemExit; its batch was answered first.
    HANDLER_EXITED = 77
