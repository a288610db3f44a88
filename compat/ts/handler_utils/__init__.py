"""Helpers around a handler: timing, micro batching, streaming."""
