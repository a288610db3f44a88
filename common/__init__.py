"""stoker: a model server for people who run their own machines."""

__version__ = "0.1.0"
