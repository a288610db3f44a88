"""`mms.context`: stoker's own Context under the name archives know."""

from stoker.worker.context import Context, RequestProcessor

__all__ = ["Context", "RequestProcessor"]
