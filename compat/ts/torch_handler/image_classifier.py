"""`image_classifier` as a handler's name, and `ImageClassifier` to derive from."""

from stoker.handlers.image_classifier import ImageClassifier

__all__ = ["ImageClassifier"]
