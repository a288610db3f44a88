"""`djl_python.session`, as archives import it."""

from stoker.worker.djl.sessions import Session

__all__ = ["Session"]
