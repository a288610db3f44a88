"""`base_handler` as a handler's name, and `BaseHandler` to derive from."""

from stoker.handlers.base import BaseHandler

__all__ = ["BaseHandler"]
