"""Key-value logging for journald and for people.

    2026-11-22T12:00:00.123Z warning supervisor/processes: worker lost worker=7 exit=SIGKILL

An event is a sentence without numbers, then facts as keys.  Lines go to
standard error, one write each; standard output belongs to what tools wait
for.  Only what this needs is here: a logging library costs a process several
megabytes and a tenth of a second of its start.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from stoker.settings import Settings

MAX_VALUE_CHARACTERS: Final = 4096
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_PEERS_LEVELS: Final = {
    "debug": "DEBUG",
    "info": "INFO",
    "warning": "WARN",
    "error": "ERROR",
    "critical": "FATAL",
}
#: journald reads the syslog priority from a line's prefix.
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_PLAIN: Final = re.compile(r"[\w.,:;/@%+*?!()\[\]{}<>|~^&$#-]+", re.ASCII)

#: Level, room, event and facts -> text.
Render = Callable[[str, str, str, dict[str, Any]], str]


class Logger:
    """What one room says; suppressed levels cost a call and a comparison.

    `exc_info` is the one fact with a meaning of its own: an exception, or True
    for the one being handled, whose traceback follows the line.
    """

    __slots__ = ("_room",)

    def __init__(self, room: str) -> None:
        self._room = room

    def debug(self, event: str, /, **facts: Any) -> None:
        if _output.level <= 10:
            _output.write("debug", self._room, event, facts)

    def info(self, event: str, /, **facts: Any) -> None:
        if _output.level <= 20:
            _output.write("info", self._room, event, facts)

    def warning(self, event: str, /, **facts: Any) -> None:
        if _output.level <= 30:
            _output.write("warning", self._room, event, facts)

    def error(self, event: str, /, **facts: Any) -> None:
        if _output.level <= 40:
            _output.write("error", self._room, event, facts)

    def critical(self, event: str, /, **facts: Any) -> None:
        _output.write("critical", self._room, event, facts)

    def exception(self, event: str, /, **facts: Any) -> None:
        """An error, with the traceback of the exception being handled."""
        self.error(event, **{"exc_info": True, **facts})


def get_logger(room: str) -> Logger:
    """The logger of a room; `room` is the noun that speaks, like "dispatch" or "http"."""
    return Logger(room)


def configure(settings: Settings, process: str, *, fd: int = 2) -> None:
    """Set up logging for this process; may be called again.

    Args:
        process: Who speaks: "supervisor", "frontend", "launcher"; part of
            every line, since the three share a terminal.
        fd: Where lines go.
    """
    level = _LEVELS[settings.log_level]
    is_journal = _is_journal(fd)
    render = (
        _json_renderer(process)
        if settings.log_format == "json"
        else _peer_renderer(process)
        if settings.log_format == "ts"
        else _text_renderer(process, has_time=not is_journal)
    )
    _output.set(level, render, fd, has_priority=is_journal)
    _bridge_standard_logging(level)


def _text_renderer(process: str, *, has_time: bool) -> Render:
    def render(level: str, room: str, event: str, facts: dict[str, Any]) -> str:
        trace = facts.pop("exception", None)
        parts = [_now()] if has_time else []
        parts.append(level.ljust(7))
        parts.append("/".join(name for name in (process, room) if name) + ":")
        parts.append(_quoted(str(event), is_sentence=True))
        parts += [f"{key}={_shown(value)}" for key, value in facts.items()]
        text = " ".join(parts)
        if trace:
            # Indented, so that no line of it can pass for an event.
            text += "".join(
                f"\n    {_quoted(line, is_sentence=True)}" for line in trace.split("\n")
            )
        return text

    return render


def _peer_renderer(process: str) -> Render:
    """TorchServe's general pattern, for those who grep it (contracts/torchserve.md 9.6)."""

    def render(level: str, room: str, event: str, facts: dict[str, Any]) -> str:
        trace = facts.pop("exception", None)
        seconds = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
        head = f"{stamp},{int(seconds % 1 * 1000):03d} [{_PEERS_LEVELS[level]:<5}]"
        parts = [f"{head} {process or 'main'} {room or 'stoker'} -"]
        parts.append(_quoted(str(event), is_sentence=True))
        parts += [f"{key}={_shown(value)}" for key, value in facts.items()]
        lines = [" ".join(parts)]
        if trace:
            lines += [f"    {_quoted(line, is_sentence=True)}" for line in trace.split("\n")]
        return "\n".join(lines)

    return render


def _json_renderer(process: str) -> Render:
    def render(level: str, room: str, event: str, facts: dict[str, Any]) -> str:
        line = {
            "timestamp": _now(),
            "level": level,
            "process": process,
            "pid": os.getpid(),
            "room": room,
            "event": str(event),
            **{key: _json_value(value) for key, value in facts.items()},
        }
        return json.dumps(line, default=str, ensure_ascii=False)

    return render


class _Output:
    """Where this process's lines go and how they look."""

    def __init__(self) -> None:
        self.set(_LEVELS["info"], _text_renderer("", has_time=True), 2, has_priority=False)

    def set(self, level: int, render: Render, fd: int, *, has_priority: bool) -> None:
        self.level = level
        self._render = render
        self._fd = fd
        self._has_priority = has_priority

    def write(self, level: str, room: str, event: str, facts: dict[str, Any]) -> None:
        if trace := _traceback(facts.pop("exc_info", None)):
            facts["exception"] = trace
        text = self._render(level, room, event, facts)
        if self._has_priority:
            prefix = f"<{_PRIORITIES[level]}>"
            text = "\n".join(prefix + line for line in text.split("\n"))
        rest = memoryview((text + "\n").encode("utf-8", "backslashreplace"))
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            return  # a reader that went away must not stop a server


def _now() -> str:
    seconds = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{int(seconds % 1 * 1000):03d}Z"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return _quoted(str(value)[:MAX_VALUE_CHARACTERS])


def _json_value(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    return str(value)[: MAX_VALUE_CHARACTERS * 4]


def _quoted(text: str, *, is_sentence: bool = False) -> str:
    """As it is when nothing in it could be misread; else quoted, control characters escaped."""
    if is_sentence:
        return text if text.isprintable() else json.dumps(text)[1:-1]
    if _PLAIN.fullmatch(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _traceback(exc_info: object) -> str | None:
    if not exc_info:
        return None
    if isinstance(exc_info, BaseException):
        error: BaseException | None = exc_info
    elif isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = sys.exc_info()[1]
    if error is None:
        return None
    return "".join(traceback.format_exception(error)).rstrip("\n")


def _is_journal(fd: int) -> bool:
    """JOURNAL_STREAM is inherited; only its device and inode say that `fd` is the journal."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


_output: Final = _Output()


class _Bridge(logging.Handler):
    """Takes what libraries say through the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        try:
            if level not in _LEVELS:
                level = "info"
            if _output.level <= _LEVELS[level]:
                facts = {"exc_info": record.exc_info} if record.exc_info else {}
                _output.write(level, record.name, record.getMessage(), facts)
        except Exception:  # a broken log call in a library is not our failure
            self.handleError(record)


def _bridge_standard_logging(level: int) -> None:
    root = logging.getLogger()
    if not any(isinstance(handler, _Bridge) for handler in root.handlers):
        root.addHandler(_Bridge())
    # Libraries are chatty at info; theirs is worth reading when debugging.
    root.setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
