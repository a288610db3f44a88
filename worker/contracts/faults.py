"""What a handler did wrong, as the error its clients get and the lines its log gets.

Clients get a fixed sentence: the traceback is for the worker's log alone.

Source: contracts/torchserve.md 1.6, the handler rows.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

from stoker.errors import (
    BadHandlerResult,
    DeviceOutOfMemory,
    HandlerFailed,
    HandlerOutOfMemory,
    HandlerRefused,
    ResponseTooLarge,
    StokerError,
)
from stoker.handlers.prediction import PredictionException
from stoker.worker.contracts.values import Unserialisable

OUT_OF_RESOURCES = "Out of resources"
PREDICTION_FAILED = "Prediction failed"
NO_LIST = "Invalid model predict output"
WRONG_LENGTH = "number of batch response mismatched"
UNSUPPORTED = "Unsupported model output data type."
DEFAULT_REFUSAL_STATUS = 500
#: How libraries say it that have no class for it.
_NO_ROOM: Final = (
    "CUDA out of memory",
    "HIP out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_LOST: Final = (
    "device-side assert",
    "illegal memory access",
    "misaligned address",
    "unspecified launch failure",
    "uncorrectable ECC error",
)


def fault_of(error: BaseException) -> StokerError:
    """The error that answers requests whose handling raised `error`."""
    if isinstance(error, PredictionException):
        return HandlerRefused(str(error.message), status=_status(error.error_code))
    if isinstance(error, (BadHandlerResult, ResponseTooLarge)):
        return error
    if isinstance(error, Unserialisable):
        return BadHandlerResult(UNSUPPORTED)
    if is_device_out_of_memory(error):
        return DeviceOutOfMemory(OUT_OF_RESOURCES)
    if is_out_of_memory(error):
        return HandlerOutOfMemory(OUT_OF_RESOURCES)
    return HandlerFailed(PREDICTION_FAILED)


def is_out_of_memory(error: BaseException) -> bool:
    """The contract's rule: whatever names CUDA counts."""
    return (
        isinstance(error, MemoryError) or "CUDA" in _text(error) or is_device_out_of_memory(error)
    )


def is_device_out_of_memory(error: BaseException) -> bool:
    """The device has no room for this much at once; for less it may."""
    kind = type(error)
    if kind.__name__ == "OutOfMemoryError" and kind.__module__.startswith("torch"):
        return True
    text = _text(error)
    return any(sign in text for sign in _NO_ROOM)


def is_device_lost(error: BaseException) -> bool:
    """Nothing that this process asks of the device will work any more."""
    text = _text(error)
    return "CUDA" in text and any(sign in text for sign in _LOST)


def free_device_memory() -> None:
    """What a failed try has left in torch's own store goes back to the device."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def too_large(limit_bytes: int) -> ResponseTooLarge:
    return ResponseTooLarge("The answer is larger than max_response_size.", limit_bytes=limit_bytes)


def report(error: BaseException, request_ids: Sequence[str]) -> None:
    """Write what happened to the worker's log, with the ids it happened to.

    The frames of the worker itself are left out: the handler's author can do
    nothing about them.
    """
    ids = ",".join(request_ids)
    if isinstance(error, (PredictionException, BadHandlerResult, ResponseTooLarge, Unserialisable)):
        text = f"stoker: {_text(error)} [requests {ids}]\n"
    else:
        frames = error.__traceback__
        if frames is not None and frames.tb_next is not None:
            frames = frames.tb_next
        trace = "".join(traceback.format_exception(type(error), error, frames))
        text = f"stoker: {PREDICTION_FAILED} [requests {ids}]\n{trace}"
    sys.stderr.write(text)


def report_division(size: int) -> None:
    sys.stderr.write(
        f"stoker: the device has no memory for a batch of {size}; it is handled in halves\n"
    )


def report_lost_device() -> None:
    sys.stderr.write("stoker: this process has lost its device and ends; another one follows\n")


def _status(code: Any) -> int:
    """A status a client can get; a handler may have said anything."""
    try:
        status = int(code)
    except (TypeError, ValueError):
        return DEFAULT_REFUSAL_STATUS
    return status if 100 <= status <= 599 else DEFAULT_REFUSAL_STATUS


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return type(error).__name__
