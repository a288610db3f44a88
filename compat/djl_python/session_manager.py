"""`djl_python.session_manager`, as archives import it."""

from stoker.worker.djl.sessions import SessionManager

__all__ = ["SessionManager"]
