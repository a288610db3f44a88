"""What a handler may ask its worker: the torchserve contract's Context.

One object lives as long as the worker, because handlers keep things on it.
What belongs to a batch is swapped before each call and built only when asked
for: an ordinary handler reads none of it.

Source: contracts/torchserve.md 7.2 and 7.3.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stoker.worker.request import Request

if TYPE_CHECKING:
    from stoker.worker.in_hand import BatchInHand

CONTENT_TYPE = "content-type"


class RequestProcessor:
    """One request's headers, and what the handler says about its response."""

    def __init__(self, request_header: Mapping[str, Any] | None = None) -> None:
        self._status_code = 200
        self._reason_phrase: str | None = None
        self._response_header: dict[str, str] = {}
        self._request_header: Mapping[str, Any] = {} if request_header is None else request_header

    def get_request_property(self, key: str) -> Any:
        return self._request_header.get(key)

    def get_request_properties(self) -> Mapping[str, Any]:
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self._status_code = code
        self._reason_phrase = reason_phrase

    def get_response_status_code(self) -> int:
        return self._status_code

    def get_response_status_phrase(self) -> str | None:
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        return self._response_header

    def get_response_header(self, key: str) -> str | None:
        return self._response_header.get(key)


class Context:
    """Handed to `initialize(context)` and `handle(data, context)`.

    Accepts any further attribute and keeps it between calls.  The arguments
    are the peer's, so that users' own unit tests can build one.

    Attributes:
        cl_socket: The way out for intermediate results; only
            `send_intermediate_predict_response` should touch it.
        stopping_criteria: None, or one callable per request (7.3).
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str | None,
        manifest: dict[str, Any] | None,
        batch_size: int,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: Any = None,
        model_yaml_config: dict[str, Any] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self._system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.model_yaml_config: dict[str, Any] = (
            {} if model_yaml_config is None else model_yaml_config
        )
        self._metrics = metrics
        self.stopping_criteria: list[Callable[[Any], bool | None]] | None = None
        self.cl_socket: Any = None
        self.header_key_sequence_id = _sequence_header("ID")
        self.header_key_sequence_start = _sequence_header("START")
        self.header_key_sequence_end = _sequence_header("END")
        self._requests: Sequence[Request] = ()
        self._request_ids: dict[int, str] | None = None
        self._request_processor: list[RequestProcessor | None] | None = None
        self._in_hand: BatchInHand | None = None

    def begin_batch(self, requests: Sequence[Request]) -> None:
        """Swap the request-scoped parts; called by the worker alone."""
        self._requests = requests
        self._request_ids = None
        self._request_processor = None

    def for_request(self) -> Context:
        """One for a request that is handled while others are.

        What is set on it stays with it; what handlers have put on ours is there, and shared.
        """
        twin = copy.copy(self)
        if hasattr(self._metrics, "request_ids_of"):
            twin.metrics = copy.copy(self._metrics)
            twin.metrics.request_ids_of(twin)
        return twin

    def attach(self, in_hand: BatchInHand) -> None:
        """Let handlers notice that their clients have left."""
        self._in_hand = in_hand

    # -- the model ---------------------------------------------------------

    @property
    def system_properties(self) -> dict[str, Any]:
        return self._system_properties

    @property
    def metrics(self) -> Any:
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Any) -> None:
        self._metrics = metrics

    # -- the batch ---------------------------------------------------------

    @property
    def request_ids(self) -> dict[int, str] | None:
        if self._request_ids is None and self._requests:
            self._request_ids = {i: r.request_id for i, r in enumerate(self._requests)}
        return self._request_ids

    @request_ids.setter
    def request_ids(self, request_ids: dict[int, str] | None) -> None:
        self._request_ids = request_ids

    @property
    def request_processor(self) -> list[RequestProcessor | None] | None:
        if self._request_processor is None and self._requests:
            self._request_processor = [RequestProcessor(r.headers) for r in self._requests]
        return self._request_processor

    @request_processor.setter
    def request_processor(self, processors: list[RequestProcessor | None] | None) -> None:
        self._request_processor = processors

    @property
    def touched_processors(self) -> list[RequestProcessor | None] | None:
        """None when nobody asked for any: all responses are plain 200s."""
        return self._request_processor

    @property
    def deadline(self) -> float | None:
        """`time.monotonic()` after which nobody wants the answers.

        The clients' own deadlines if all of the batch have one, and never later
        than `response_timeout` allows; that starts anew with every piece of a
        stream.  None between batches.
        """
        return None if self._in_hand is None else self._in_hand.deadline()

    @property
    def cancelled(self) -> bool:
        """True once every client of this batch has left; worth asking between steps."""
        return self._in_hand is not None and self._in_hand.is_cancelled()

    def is_cancelled(self, idx: int) -> bool:
        """True once the client of one request has left."""
        return self._in_hand is not None and self._in_hand.is_cancelled(idx)

    # -- one request ---------------------------------------------------------

    def _processor(self, idx: int) -> RequestProcessor | None:
        processors = self.request_processor
        return None if processors is None else processors[idx]

    def get_request_id(self, idx: int = 0) -> str | None:
        request_ids = self.request_ids
        return None if request_ids is None else request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        processor = self._processor(idx)
        return None if processor is None else processor.get_request_property(key)

    def get_all_request_header(self, idx: int) -> Mapping[str, Any]:
        processor = self._processor(idx)
        return {} if processor is None else processor.get_request_properties()

    def get_sequence_id(self, idx: int) -> Any:
        return self.get_request_header(idx, self.header_key_sequence_id)

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, CONTENT_TYPE, value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.get_response_headers(idx).get(CONTENT_TYPE)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        processor = self._processor(idx)
        if processor is not None:
            processor.report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for processor in self.request_processor or ():
            if processor is not None:
                processor.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        processor = self._processor(idx)
        if processor is None:
            return 200, ""
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        processor = self._processor(idx)
        if processor is not None:
            processor.add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        processor = self._processor(idx)
        return {} if processor is None else processor.get_response_headers()


def _sequence_header(part: str) -> str:
    return os.environ.get(f"TS_REQUEST_SEQUENCE_{part}", f"ts_request_sequence_{part.lower()}")
