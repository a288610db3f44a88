"""`MicroBatching`: a handler's steps, overlapped on parts of a batch."""

from stoker.handlers.micro_batching import MicroBatching

__all__ = ["MicroBatching"]
