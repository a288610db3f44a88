"""What the doctor has to say, and how bad it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """Ordered: the worst one decides the exit code."""

    WORKS = 0
    #: Worth knowing; nothing to do.
    NOTE = 1
    #: Runs, but not as it did.
    DIFFERS = 2
    #: Will not run until somebody does something.
    FAILS = 3

    @property
    def word(self) -> str:
        return self.name.lower()

    @property
    def exit_code(self) -> int:
        """0 for what works, 1 for what differs, 2 for what fails."""
        return max(0, self - Severity.NOTE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one thing.

    Attributes:
        subject: What it is about: a setting, a flag, a file of an archive.
        hint: What to do; "" where nothing is to be done.
    """

    severity: Severity
    subject: str
    text: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "severity": self.severity.word}


def worst(findings: Iterable[Finding]) -> Severity:
    return max((finding.severity for finding in findings), default=Severity.WORKS)


@dataclass(slots=True)
class ArchiveReport:
    """One archive of the model store; model and version are "" where they cannot be known."""

    name: str
    model: str = ""
    version: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def severity(self) -> Severity:
        return worst(self.findings)

    def as_json(self) -> dict[str, Any]:
        return {
            "archive": self.name,
            "model": self.model,
            "version": self.version,
            "severity": self.severity.word,
            "findings": [finding.as_json() for finding in self.findings],
        }


@dataclass(slots=True)
class Report:
    """Everything about one installation."""

    path: str
    files: dict[str, str | None] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    archives: list[ArchiveReport] = field(default_factory=list)

    @property
    def severity(self) -> Severity:
        return max([worst(self.findings), *(archive.severity for archive in self.archives)])

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "severity": self.severity.word,
            "files": self.files,
            "installation": [finding.as_json() for finding in self.findings],
            "archives": [archive.as_json() for archive in self.archives],
        }
