"""What a request is called in logs and answers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable


def _request_ids() -> Callable[[], str]:
    """Ids with the look of a UUID4: random per process, then counted.

    They name requests in logs and answers and are no secret, so a counter
    serves as well as the kernel's randomness at a tenth of the price.
    """
    chosen = random.SystemRandom()
    prefix = (
        f"{chosen.getrandbits(32):08x}-{chosen.getrandbits(16):04x}-"
        f"4{chosen.getrandbits(12):03x}-{0x8000 | chosen.getrandbits(14):04x}-"
    )
    counter = itertools.count(chosen.getrandbits(40))
    return lambda: f"{prefix}{next(counter):012x}"


_new_request_id = _request_ids()


def restart_request_ids() -> None:
    """Call after a fork: two processes must not count on from the same id."""
    global _new_request_id
    _new_request_id = _request_ids()


def choose_request_id(offered: bytes | None) -> str:
    """The client's id if it is 1-128 visible ASCII characters, else a new one."""
    if offered and len(offered) <= 128:
        text = offered.decode("latin-1")
        if text.isascii() and text.isprintable() and " " not in text:
            return text
    return _new_request_id()
