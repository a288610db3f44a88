"""Texts of a batch as they are generated, for transformers' `generate(streamer=...)`."""

from stoker.handlers.batch_streamer import TextIteratorStreamerBatch

__all__ = ["TextIteratorStreamerBatch"]
