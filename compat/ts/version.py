"""The version of the peer whose conventions this package follows."""

__version__ = "0.12.0"
