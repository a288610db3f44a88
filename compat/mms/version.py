"""The version of the peer whose conventions this package follows."""

__version__ = "1.1.11"
