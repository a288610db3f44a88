"""Envelopes: what stands between a client's format and a handler's rows.

The setting `service_envelope` puts one around every handler.  Beyond the peer,
every envelope here takes whole batches, and what is wrong with one request's
format or rows fails that request alone where it can.

Source: contracts/torchserve.md 7.6.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Final

from stoker.errors import BadHandlerResult
from stoker.handlers.base import body_of
from stoker.handlers.prediction import PredictionException

_BAD_REQUEST: Final = 400


class BaseEnvelope(ABC):
    """Wraps an entry point; subclasses say how to read and how to write.

    Not applied where there is nothing to read, to a describe, whose request has
    no body, nor to what a handler streams.
    """

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        self._entry_point = handle_fn
        self.context: Any = None

    def handle(self, data: Any, context: Any) -> Any:
        self.context = context
        if not data or self._header("describe") == "True":
            return self._entry_point(data, context)
        rows = self.parse_input(data)
        results = self._entry_point(rows, context) if rows else []
        if inspect.iscoroutine(results):
            return self._format_later(results)
        return self.format_output(results) if isinstance(results, list) else results

    async def _format_later(self, handling: Coroutine[Any, Any, Any]) -> Any:
        results = await handling
        return self.format_output(results) if isinstance(results, list) else results

    @abstractmethod
    def parse_input(self, data: list[Any]) -> list[Any]:
        """The handler's rows, from one dict per request."""

    @abstractmethod
    def format_output(self, data: list[Any]) -> list[Any]:
        """One result per request, from the handler's."""

    def _header(self, name: str) -> Any:
        return None if self.context is None else self.context.get_request_header(0, name)


class BodyEnvelope(BaseEnvelope):
    """Rows are the bodies themselves instead of dicts that hold them."""

    def parse_input(self, data: list[Any]) -> list[Any]:
        return [body_of(row) for row in data]

    def format_output(self, data: list[Any]) -> list[Any]:
        return data


class RowsEnvelope(BaseEnvelope):
    """One where a request may hold any number of rows, also none."""

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        super().__init__(handle_fn)
        #: Per request: how many rows it has, or what is wrong with it.
        self._shares: list[int | PredictionException] = []

    def parse_input(self, data: list[Any]) -> list[Any]:
        self._shares = []
        rows: list[Any] = []
        for i, row in enumerate(data):
            try:
                found = self.read_rows(row, i)
            except PredictionException as error:
                self._shares.append(error)
            except RecursionError:
                self._shares.append(PredictionException("The body is too deep.", _BAD_REQUEST))
            else:
                self._shares.append(len(found))
                rows += found
        return rows

    def format_output(self, data: list[Any]) -> list[Any]:
        wanted = sum(share for share in self._shares if isinstance(share, int))
        # A request alone may get more or fewer results than it has rows.
        if len(data) != wanted and len(self._shares) > 1:
            raise BadHandlerResult("number of batch response mismatched")
        formatted: list[Any] = []
        start = 0
        for i, share in enumerate(self._shares):
            if not isinstance(share, int):
                formatted.append(share)
                continue
            end = start + share if len(self._shares) > 1 else len(data)
            results, start = data[start:end], end
            error = next((item for item in results if isinstance(item, Exception)), None)
            formatted.append(self.write_rows(results, i) if error is None else error)
        return formatted

    @abstractmethod
    def read_rows(self, row: Any, i: int) -> list[Any]:
        """The rows of request `i`.  Raises PredictionException."""

    @abstractmethod
    def write_rows(self, results: list[Any], i: int) -> Any:
        """The result of request `i`, from those of its rows."""


class _Instances(RowsEnvelope):
    """`{"instances": [...]}`: every instance is a row."""

    def read_rows(self, row: Any, i: int) -> list[Any]:
        return [_decoded(instance) for instance in document_of(row, "instances")["instances"]]


class JSONEnvelope(_Instances):
    """Instances in, the text `{"predictions": [...]}` out."""

    def write_rows(self, results: list[Any], i: int) -> Any:
        return json.dumps({"predictions": results})


class KServeEnvelope(_Instances):
    """KServe's version 1: instances in, predictions or explanations out."""

    def write_rows(self, results: list[Any], i: int) -> Any:
        is_explain = self._header("explain") == "True"
        return {"explanations" if is_explain else "predictions": results}


def document_of(row: Any, field: str) -> dict[str, Any]:
    """The JSON object that a request's body is, which has the list `field`.

    Raises:
        PredictionException: The client sent anything else: status 400.
    """
    body = body_of(row)
    if isinstance(body, (bytes, bytearray, str)):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            body = None
    if not isinstance(body, dict) or not isinstance(body.get(field), list):
        raise PredictionException(
            f"The body must be a JSON object with a list {field!r}.", _BAD_REQUEST
        )
    return body


def _decoded(value: Any) -> Any:
    """The value with every `{"b64": text}` in it as bytes."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {"b64"}:
        return {name: _decoded(item) for name, item in value.items()}
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise PredictionException("A value under 'b64' is not base64.", _BAD_REQUEST) from None
