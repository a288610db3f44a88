"""Where handlers of MMS 0.x find their base class; what needs MXNet is not in it."""

from typing import Any

from .model_service import SingleNodeService

__all__ = ["SingleNodeService"]

_NEED_MXNET = ("MXNetBaseService", "GluonImperativeBaseService", "check_input_shape")


def __getattr__(name: str) -> Any:
    if name in _NEED_MXNET:
        raise ImportError(
            f"{__name__}.{name} runs a model with MXNet, which stoker's shim does not; derive "
            "from SingleNodeService and load the model in initialize"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
