"""The names of units."""

from typing import Final

from stoker.worker.metrics import UNITS

__all__ = ["Units"]


class Units:
    """Short names to long ones."""

    def __init__(self) -> None:
        self.units: Final[dict[str | None, str]] = {None: "unit"}
        self.units.update(UNITS)
