"""`djl_python.encode_decode`, as archives import it."""

from stoker.worker.djl.coding import decode, encode

__all__ = ["decode", "encode"]
