"""`BaseEnvelope`, to derive from."""

from stoker.handlers.envelopes import BaseEnvelope

__all__ = ["BaseEnvelope"]
