"""`kserve` as a service envelope."""

from stoker.handlers.envelopes import KServeEnvelope

__all__ = ["KServeEnvelope"]
