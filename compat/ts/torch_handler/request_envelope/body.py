"""`body` as a service envelope."""

from stoker.handlers.envelopes import BodyEnvelope

__all__ = ["BodyEnvelope"]
