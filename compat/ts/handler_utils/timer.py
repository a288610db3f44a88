"""`timed`: a decorator for the steps of a handler."""

from stoker.handlers.timing import timed

__all__ = ["timed"]
