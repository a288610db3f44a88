"""The peer's ready-made service for images, which is MXNet's."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "MXNetVisionService":
        raise ImportError(
            f"{__name__}.{name} runs a model with MXNet, which stoker's shim does not; derive "
            "from SingleNodeService and load the model in initialize"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
