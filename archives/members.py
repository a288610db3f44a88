"""Writing the members of a hostile archive into a fresh folder.

Nothing an archive says about itself is believed: names are judged part by
part, no existing file is ever opened, no link is ever made, and every byte is
counted as it is written.  Both formats (`unzip`, `untar`) only feed this.

Source: contracts/torchserve.md 3.2.7, 11 (CVE-2023-48299).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from stoker.errors import ArchiveUnreadable

CHUNK_BYTES: Final = 1 << 20
MAX_PART_BYTES: Final = 255
MAX_NAME_BYTES: Final = 2048
MAX_PARTS: Final = 64


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What an archive may cost us at most.

    `max_ratio` compares everything written with the size of the archive, and
    counts only beyond `free_bytes`: a few megabytes of zeros are no attack.
    """

    max_files: int = 100_000
    max_unpacked_bytes: int = 64 << 30
    max_member_bytes: int = 64 << 30
    max_ratio: float = 200.0
    free_bytes: int = 256 << 20


class BadMember(ValueError):
    """A member name that may not become a path."""


def member_parts(name: str) -> tuple[str, ...]:
    """Split a member name into safe path parts; `()` stands for the root itself.

    Raises:
        BadMember: absolute, with `..`, a backslash, a drive, a control
            character, or unreasonably long.
    """
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise BadMember("a name is too long")
    if name.startswith("/") or (len(name) > 1 and name[1] == ":" and name[0].isalpha()):
        raise BadMember("a name is absolute")
    if "\\" in name:
        raise BadMember("a name has a backslash")
    if any(char < " " or char == "\x7f" for char in name):
        raise BadMember("a name has a control character")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise BadMember("a name leads out of the archive")
    if len(parts) > MAX_PARTS:
        raise BadMember("a name is nested too deeply")
    if any(len(os.fsencode(part)) > MAX_PART_BYTES for part in parts):
        raise BadMember("a name is too long")
    return parts


@dataclass(frozen=True, slots=True)
class Contents:
    """What was written: enough to notice later that something is missing."""

    files: int
    total_bytes: int


class MemberWriter:
    """Puts members below `root`, which must be fresh, empty and ours alone.

    Every refusal is an ArchiveUnreadable whose message is the contract's and
    whose `details.reason` says in words what was wrong.
    """

    def __init__(
        self,
        root: Path,
        url: str,
        archive_bytes: int,
        limits: UnpackLimits,
        should_stop: Callable[[], bool],
    ) -> None:
        self._root = root
        self._url = url
        self._limits = limits
        self._should_stop = should_stop
        self._allowed_bytes = min(
            limits.max_unpacked_bytes,
            max(limits.free_bytes, int(archive_bytes * limits.max_ratio)),
        )
        self._members = 0
        self._files = 0
        self._total_bytes = 0
        self._padding_bytes = 0
        self._directories: set[tuple[str, ...]] = {()}

    @property
    def contents(self) -> Contents:
        return Contents(self._files, self._total_bytes)

    @property
    def max_files(self) -> int:
        return self._limits.max_files

    def refuse(self, reason: str) -> NoReturn:
        raise unreadable(self._url, reason)

    def add_directory(self, name: str) -> None:
        self._count()
        self._make_directories(self._parts(name))

    def add_file(
        self, name: str, chunks: Iterator[bytes], size: int, *, is_executable: bool = False
    ) -> None:
        """Write one file from `chunks`; the `size` that the archive claims must turn out true."""
        self._count()
        parts = self._parts(name)
        if not parts:
            self.refuse("a file has no name")
        self._make_directories(parts[:-1])
        if parts in self._directories:
            self.refuse("a file and a folder have the same name")
        path = self._root.joinpath(*parts)
        # O_EXCL also refuses a name that differs by case where the file system folds it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            handle = os.open(path, flags, 0o700 if is_executable else 0o600)
        except FileExistsError:
            self.refuse("two members have the same name")
        written = 0
        with open(handle, "wb", buffering=0) as file:
            for chunk in chunks:
                written += len(chunk)
                self._spend(len(chunk), written)
                file.write(chunk)
        if written != size:
            self.refuse("a member is not as long as the archive says")
        self._files += 1

    def spend_padding(self, size: int) -> None:
        """Count unpacked bytes that are no member's, so that padding has an end too."""
        self._padding_bytes += size
        self._check_total()

    def _parts(self, name: str) -> tuple[str, ...]:
        try:
            return member_parts(name)
        except BadMember as error:
            self.refuse(str(error))

    def _count(self) -> None:
        self._members += 1
        if self._members > self._limits.max_files:
            self.refuse("too many members")

    def _make_directories(self, parts: tuple[str, ...]) -> None:
        for depth in range(1, len(parts) + 1):
            head = parts[:depth]
            if head in self._directories:
                continue
            if len(self._directories) > self._limits.max_files:
                self.refuse("too many folders")
            try:
                os.mkdir(self._root.joinpath(*head), 0o700)
            except FileExistsError:
                self.refuse("a file and a folder have the same name")
            self._directories.add(head)

    def _spend(self, size: int, written: int) -> None:
        self._total_bytes += size
        if written > self._limits.max_member_bytes:
            self.refuse("a member is too large")
        self._check_total()

    def _check_total(self) -> None:
        total = self._total_bytes + self._padding_bytes
        if total > self._limits.max_unpacked_bytes:
            self.refuse("the unpacked archive is too large")
        if total > self._allowed_bytes:
            self.refuse("the compression ratio is that of a bomb")
        if self._should_stop():
            self.refuse("unpacking was stopped")


def unreadable(url: str, reason: str) -> ArchiveUnreadable:
    """The one error of unpacking (contract 1.6), with the reason for the log."""
    return ArchiveUnreadable(f"Failed to save model: {url}", url=url, reason=reason)
