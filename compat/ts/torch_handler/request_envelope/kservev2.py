"""`kservev2` as a service envelope."""

from stoker.handlers.kserve_v2 import KServev2Envelope

__all__ = ["KServev2Envelope"]
