"""What archives written for TorchServe import, on top of stoker.

Source: contracts/torchserve.md 7.7.  Importing this package imports no torch.
"""

from .version import __version__

__all__ = ["__version__"]
