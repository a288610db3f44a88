"""Loading a class by name, and sending pieces of answers."""

from stoker.handlers.modules import import_class
from stoker.handlers.streaming import send_intermediate_predict_response

__all__ = ["import_class", "send_intermediate_predict_response"]
