"""The TorchServe API, as clients of TorchServe 0.12 know it.

Milliseconds and `-1` become seconds and None here, at the door.
"""

from typing import Final

from stoker.frontend.dialects.torchserve.dialect import TorchServe

DIALECT: Final = TorchServe

__all__ = ["DIALECT", "TorchServe"]
