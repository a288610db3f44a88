"""What archives written for Multi Model Server import, on top of stoker.

Source: contracts/mms.md 10.7.  Importing this package imports neither MXNet nor numpy.
"""

from .version import __version__

__all__ = ["__version__"]
