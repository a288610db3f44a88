"""The doctor's report for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from stoker.cli.doctor.findings import ArchiveReport, Finding, Report, Severity

_WIDTH = 7


def lines(report: Report) -> Iterator[str]:
    yield report.path
    yield from _findings(report.findings)
    for archive in report.archives:
        yield ""
        yield f"{archive.name}{_who(archive)}: {_verdict(archive.severity)}"
        yield from _findings(archive.findings)
    yield ""
    yield _summary(report)


def _findings(findings: list[Finding]) -> Iterator[str]:
    # The worst first; in the order they were found among equals.
    for finding in sorted(findings, key=lambda each: -each.severity):
        yield f"  {finding.severity.word:<{_WIDTH}}  {finding.subject}: {_plain(finding.text)}"
        if finding.hint:
            yield f"  {'':<{_WIDTH}}    -> {_plain(finding.hint)}"


def _who(archive: ArchiveReport) -> str:
    return f"  {archive.model} {archive.version}" if archive.model else ""


def _verdict(severity: Severity) -> str:
    return {
        Severity.DIFFERS: "works, with differences",
        Severity.FAILS: "will not work",
    }.get(severity, "works")


def _summary(report: Report) -> str:
    counts = Counter(_verdict(archive.severity) for archive in report.archives)
    archives = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    own = _verdict(max((f.severity for f in report.findings), default=Severity.WORKS))
    return f"installation: {own}; archives: {archives or 'none found'}"


def _plain(text: str) -> str:
    """An archive chooses some of these words; it must not move the cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)
