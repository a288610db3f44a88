"""Ready-made handlers and their base class; torch is imported when a model loads, not before."""

from stoker.handlers.base import BaseHandler
from stoker.handlers.image_classifier import ImageClassifier
from stoker.handlers.micro_batching import MicroBatching
from stoker.handlers.prediction import PredictionException
from stoker.handlers.streaming import send_intermediate_predict_response
from stoker.handlers.timing import timed
from stoker.handlers.vision import VisionHandler

__all__ = [
    "BaseHandler",
    "ImageClassifier",
    "MicroBatching",
    "PredictionException",
    "VisionHandler",
    "send_intermediate_predict_response",
    "timed",
]
