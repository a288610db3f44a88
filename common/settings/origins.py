"""Where a setting's value came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from.

    Attributes:
        kind: "default", "derived", "file", "environment" or "flag".
        file: The file's path; "" for other kinds.
        line: Its line, counted from 1; 0 for other kinds.
        text: The variable, the flag, or what it was derived from.
    """

    kind: str
    file: str = ""
    line: int = 0
    text: str = ""

    def __str__(self) -> str:
        if self.kind == "file":
            return f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.kind} {self.text}" if self.text else self.kind
