"""The deprecated home of `send_intermediate_predict_response`."""

import warnings
from typing import Any

from stoker.handlers import streaming

__all__ = ["send_intermediate_predict_response"]


def send_intermediate_predict_response(*args: Any, **kwargs: Any) -> None:
    """Use the one in `ts.handler_utils.utils`."""
    warnings.warn(
        "import send_intermediate_predict_response from ts.handler_utils.utils",
        PendingDeprecationWarning,
        stacklevel=2,
    )
    streaming.send_intermediate_predict_response(*args, **kwargs)
