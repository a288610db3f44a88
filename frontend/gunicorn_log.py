"""gunicorn's own lines, as lines of ours."""

from __future__ import annotations

import logging
from typing import Any, Final

from gunicorn.glogging import Logger

from stoker.logs import get_logger

_LEVELS: Final = {
    # What they call information is detail to whoever runs this server.
    logging.DEBUG: "debug",
    logging.INFO: "debug",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "error",
}


class _Forwarder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._log = get_logger("gunicorn")

    def emit(self, record: logging.LogRecord) -> None:
        speak = getattr(self._log, _LEVELS.get(record.levelno, "info"))
        speak(record.getMessage().rstrip(), exc_info=record.exc_info or None)


class GunicornLog(Logger):  # type: ignore[misc]
    """A logger class for gunicorn that writes through stoker.logs."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for spoken in (self.error_log, self.access_log):
            spoken.handlers = [_Forwarder()]
            spoken.setLevel(logging.INFO)
