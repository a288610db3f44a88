"""Ready-made handlers and their base class; torch is imported when a model loads, not before."""

from stoker.handlers.prediction import PredictionException
from stoker.handlers.streaming import send_intermediate_predict_response

__all__ = ["PredictionException", "send_intermediate_predict_response"]
