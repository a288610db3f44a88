"""Sending pieces of answers before the handler returns.

Source: contracts/torchserve.md 2.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def send_intermediate_predict_response(
    ret: list[Any],
    req_id_map: Mapping[int, str] | None,
    message: str,
    code: int,
    context: Any,
) -> None:
    """Send one piece for each request of the batch now.

    `ret` has one element per request, encoded like a result.  The other
    arguments are the peer's: `req_id_map` is `context.request_ids`, and the
    first piece's status comes from `context.set_response_status`.
    """
    context.cl_socket.send_step(ret)
