"""`djl_python.outputs`, as archives import it."""

from stoker.worker.djl.outputs import Output

__all__ = ["Output"]
