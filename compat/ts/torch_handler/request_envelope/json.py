"""`json` as a service envelope."""

from stoker.handlers.envelopes import JSONEnvelope

__all__ = ["JSONEnvelope"]
