"""`vision_handler` as a handler's name, and `VisionHandler` to derive from."""

from stoker.handlers.vision import VisionHandler

__all__ = ["VisionHandler"]
