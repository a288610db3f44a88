"""Key-value logging for journald and for people.

    2026-11-22T12:00:00.123Z warning supervisor/processes: worker lost worker=7 exit=SIGKILL

An event is a sentence without numbers, then facts as keys.  Lines go to
standard error, one write each; standard output belongs to what tools wait
for.  structlog is imported with the first line that is really written, so a
process that says nothing does not pay for it.
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

from stoker.settings import Settings

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

MAX_VALUE_CHARACTERS: Final = 4096
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
#: journald reads the syslog priority from a line's prefix.
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_PLAIN: Final = re.compile(r"[\w.,:;/@%+*?!()\[\]{}<>|~^&$#-]+", re.ASCII)

Render = Callable[[str, "EventDict"], str]


class _Logger:
    """Stands in for structlog's logger until something is logged.

    Methods found once are kept in the instance, so a call that the level
    suppresses costs one empty function.
    """

    def __init__(self, room: str) -> None:
        self._room = room

    def __getattr__(self, name: str) -> Any:
        import structlog

        if not structlog.is_configured():
            configure(Settings(), process="")
        method = getattr(structlog.get_logger(room=self._room).bind(), name)
        self.__dict__[name] = method
        return method

    def forget(self) -> None:
        """Look methods up again: the configuration has changed."""
        self.__dict__ = {"_room": self._room}


_loggers: Final[dict[str, _Logger]] = {}


def get_logger(room: str) -> FilteringBoundLogger:
    """The logger of a room; `room` is the noun that speaks, like "dispatch" or "http"."""
    logger: Any = _loggers.setdefault(room, _Logger(room))
    return logger  # type: ignore[no-any-return]


def configure(settings: Settings, process: str, *, fd: int = 2) -> None:
    """Set up logging for this process; may be called again.

    Args:
        process: Who speaks: "supervisor", "frontend", "launcher"; part of
            every line, since the three share a terminal.
        fd: Where lines go.
    """
    import structlog

    level = _LEVELS[settings.log_level]
    is_journal = _is_journal(fd)
    render = (
        _json_renderer(process)
        if settings.log_format == "json"
        else _text_renderer(process, has_time=not is_journal)
    )
    structlog.configure(
        processors=[_Finish(render, has_priority=is_journal)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(fd),
        cache_logger_on_first_use=False,
    )
    for logger in _loggers.values():
        logger.forget()
    _bridge_standard_logging(level)


class _Lines:
    """Writes finished lines; a reader that went away must not stop a server."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def msg(self, line: str) -> None:
        rest = memoryview(line.encode("utf-8", "backslashreplace"))
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            return

    debug = info = warning = error = critical = msg


class _Finish:
    """The one structlog processor: an event becomes a line, or several with a traceback."""

    def __init__(self, render: Render, *, has_priority: bool) -> None:
        self._render = render
        self._has_priority = has_priority

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> str:
        level = "error" if method == "exception" else method
        if trace := _traceback(event.pop("exc_info", None)):
            event["exception"] = trace
        text = self._render(level, event)
        if self._has_priority:
            prefix = f"<{_PRIORITIES.get(level, 6)}>"
            text = "\n".join(prefix + line for line in text.split("\n"))
        return text + "\n"


def _text_renderer(process: str, *, has_time: bool) -> Render:
    def render(level: str, event: EventDict) -> str:
        room = event.pop("room", "")
        sentence = event.pop("event", "")
        trace = event.pop("exception", None)
        parts = [_now()] if has_time else []
        parts.append(level.ljust(7))
        parts.append("/".join(name for name in (process, room) if name) + ":")
        parts.append(_quoted(str(sentence), is_sentence=True))
        parts += [f"{key}={_shown(value)}" for key, value in event.items()]
        text = " ".join(parts)
        if trace:
            # Indented, so that no line of it can pass for an event.
            text += "".join(
                f"\n    {_quoted(line, is_sentence=True)}" for line in trace.split("\n")
            )
        return text

    return render


def _json_renderer(process: str) -> Render:
    def render(level: str, event: EventDict) -> str:
        head = {"timestamp": _now(), "level": level, "process": process, "pid": os.getpid()}
        line = {**head, **{key: _json_value(value) for key, value in event.items()}}
        return json.dumps(line, default=str, ensure_ascii=False)

    return render


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


class _Bridge(logging.Handler):
    """Takes what libraries say through the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        try:
            say = getattr(get_logger(record.name), level if level in _LEVELS else "info")
            say(record.getMessage(), **({"exc_info": record.exc_info} if record.exc_info else {}))
        except Exception:  # a broken log call in a library is not our failure
            self.handleError(record)


def _bridge_standard_logging(level: int) -> None:
    root = logging.getLogger()
    if not any(isinstance(handler, _Bridge) for handler in root.handlers):
        root.addHandler(_Bridge())
    # Libraries are chatty at info; theirs is worth reading when debugging.
    root.setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
