"""`djl_python.inputs`, as archives import it."""

from stoker.worker.djl.inputs import Input

__all__ = ["Input"]
