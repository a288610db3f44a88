"""What a log4j2 file (`--log-config`) means here: a level, and lines or JSON.

Where its appenders write and what their patterns look like stays ours; that
much is said, so that nobody waits for a file that never comes.  The document
is read with a bare expat parser and no document type: nothing in it can make
us open another file or unfold entities.

Source: contracts/torchserve.md 9.1, 9.6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.parsers import expat

from stoker.errors import SettingsError

MAX_FILE_BYTES: Final = 1024 * 1024
#: The logger of the peer's own classes; its level is what people turn.
_PEERS_LOGGER: Final = "org.pytorch.serve"
_LEVELS: Final = {
    "all": "debug",
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "error": "error",
    "fatal": "error",
    "off": "error",
}
_JSON_LAYOUTS: Final = ("jsonlayout", "jsontemplatelayout")


@dataclass(slots=True)
class LogConfig:
    """What was understood.

    Attributes:
        level: A value for `log_level`; None where the file names none we know.
        is_json: Some appender writes JSON.
        appenders: Names of what writes elsewhere than to the console; not followed.
        loggers: Names of loggers with a level of their own; not followed.
    """

    level: str | None = None
    is_json: bool = False
    appenders: list[str] = field(default_factory=list)
    loggers: list[str] = field(default_factory=list)


def read_log4j2(path: Path) -> LogConfig:
    """Raises SettingsError when there is no such file, or it is not plain XML."""
    if not path.is_file():
        raise SettingsError(f"--log-config file not found: {path}", setting="log_config")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise _bad(path, f"is larger than {MAX_FILE_BYTES} bytes")
    reader = _Reader()
    try:
        reader.parser.Parse(content, True)
    except _HasDoctype:
        raise _bad(path, "has a document type, which is not read") from None
    except (expat.ExpatError, ValueError) as error:
        raise _bad(path, f"is not XML: {error}") from None
    return reader.found


def _bad(path: Path, what: str) -> SettingsError:
    return SettingsError(f"log_config {path} {what}", setting="log_config", source=str(path))


class _HasDoctype(Exception):
    pass


class _Reader:
    """Element names may be written in any case, as log4j2 reads them."""

    def __init__(self) -> None:
        self.found = LogConfig()
        self._path: list[str] = []
        self._has_peers_level = False
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._begin
        self.parser.EndElementHandler = self._end

    def _refuse(self, *_: object) -> None:
        raise _HasDoctype

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.lower()
        parent = self._path[-1] if self._path else ""
        self._path.append(tag)
        name = attributes.get("name", "")
        if parent == "appenders" and tag != "console":
            self.found.appenders.append(name or tag)
        elif tag in _JSON_LAYOUTS:
            self.found.is_json = True
        elif tag in ("root", "asyncroot"):
            if not self._has_peers_level:
                self.found.level = _level(attributes) or self.found.level
        elif tag in ("logger", "asynclogger"):
            if name != _PEERS_LOGGER:
                self.found.loggers.append(name)
            elif level := _level(attributes):
                self._has_peers_level = True
                self.found.level = level

    def _end(self, _tag: str) -> None:
        self._path.pop()


def _level(attributes: dict[str, str]) -> str | None:
    return _LEVELS.get(attributes.get("level", "").lower())
