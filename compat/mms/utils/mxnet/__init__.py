"""Helpers around MXNet's arrays; each needs MXNet when it is called, not before."""
