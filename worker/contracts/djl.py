"""The djl contract: requests to one `Input`, an `Output` to answers.

`handle(inputs)` is called once without contents, to load the model, and then
for every batch; several requests come as one Input (`worker/djl/inputs.py`).
What goes wrong in a handler is an answer, not an error of ours: 424 with a
JSON document, 507 for want of memory.

Source: contracts/djl-serving.md 13.1-13.5, 14.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from stoker.errors import BadHandlerResult, InvalidParameter, StokerError
from stoker.wire.arena_reader import ArenaReader
from stoker.wire.frames import WorkJob
from stoker.wire.payloads import ADAPTERS_HEADER
from stoker.worker.answers import CHUNK, FINAL, AnswerRow, error_row
from stoker.worker.contracts import faults
from stoker.worker.djl.adapters import Adapters
from stoker.worker.djl.inputs import CONTENT_TYPE, DATA, Input, join
from stoker.worker.djl.outputs import OK, Output, to_bytes
from stoker.worker.in_hand import BatchInHand
from stoker.worker.request import Request

Function = Callable[[Input], Any]

NO_CONTENT: Final = (204, "No content")
OUT_OF_MEMORY: Final = 507
#: What a form's parts keep, and any other body is called otherwise (`data`).
_WHOLE_BODY: Final = "body"
_FORMS: Final = ("multipart/form-data", "application/x-www-form-urlencoded")
#: SageMaker lets clients send one header, with properties in it.
_ATTRIBUTES: Final = "x-amzn-sagemaker-custom-attributes"
_BATCH_KEY: Final = re.compile(r"batch_(\d+)(?:\..*)?", re.DOTALL)
_ADAPTER: Final = "adapter"
#: Names another function for one request; clients may not.
_FUNCTION: Final = "handler"


class DjlContract:
    """Calls the function of one loaded `model.py`.

    Args:
        standing: Properties of every call, stronger than the request's own.
        adapters: Of a model that takes any.
        is_dynamic: The handler deals with names of adapters that were not registered.
    """

    def __init__(
        self,
        function: Function,
        standing: Mapping[str, str],
        in_hand: BatchInHand,
        *,
        max_response_bytes: int,
        arena: ArenaReader | None = None,
        adapters: Adapters | None = None,
        is_dynamic: bool = False,
    ) -> None:
        self._function = function
        self._standing = standing
        self._in_hand = in_hand
        self._max_response_bytes = max_response_bytes
        self._arena = arena
        self._adapters = adapters
        self._is_dynamic = is_dynamic
        #: The handler raised SystemExit, or its device is lost: answer, then let
        #: the process end.
        self.wants_exit = False

    def answer(self, jobs: Sequence[WorkJob]) -> list[AnswerRow]:
        """Run the handler on `jobs` and return the last row of each that still needs one."""
        if self._adapters is not None:
            self._adapters.catch_up()
        readable: list[WorkJob] = []
        inputs: list[Input] = []
        rows: list[AnswerRow] = []
        for job in jobs:
            try:
                request = Request(job.payload, job.job_id, self._arena)
                found = self._input(request)
                said = None if self._adapters is None else self._look_at_adapters(request, found)
                if said is not None:
                    rows += self._rows([job], said)
                    continue
                inputs.append(found)
            except StokerError as error:
                # Damaged, its client has left, or it asks for what it may not.
                rows.append(error_row(job.job_id, error))
            else:
                readable.append(job)
        if not readable:
            return rows
        if rows:
            self._in_hand.narrow(readable)
        try:
            return rows + self._answer(readable, inputs)
        except (BadHandlerResult, ValueError, TypeError, KeyError) as error:
            faults.report(error, [str(item.get_property("requestId")) for item in inputs])
            bad = error if isinstance(error, BadHandlerResult) else BadHandlerResult(str(error))
            return rows + [error_row(job.job_id, bad) for job in readable]

    # -- in ---------------------------------------------------------------------

    def _input(self, request: Request) -> Input:
        found = Input()
        kind = ""
        for name, value in request.headers.items():
            if not isinstance(value, str):
                continue
            lowered = name.lower()
            if lowered == _ATTRIBUTES:
                for attribute in value.split(";"):
                    key, is_said, text = attribute.partition("=")
                    if is_said:
                        found.properties[key.strip()] = text.strip()
                continue
            found.properties[name] = value
            if lowered == CONTENT_TYPE:
                kind = value.partition(";")[0].strip().lower()
        if _FUNCTION in found.properties:
            raise InvalidParameter("The handler can't be overridden in a request", parameter="")
        found.properties["requestId"] = request.request_id
        for name, value in self._standing.items():
            found.properties[name] = value
        parameters = request.parameters()
        for i, (name, _, body) in enumerate(parameters):
            is_whole = name == _WHOLE_BODY and i == len(parameters) - 1 and kind not in _FORMS
            found.content.add(DATA if is_whole else name, body)
        return found

    def _look_at_adapters(self, request: Request, found: Input) -> Output | None:
        """The answer to a call of the adapters API, or about an adapter that nobody knows."""
        assert self._adapters is not None
        content = {
            key: bytes(value).decode("utf-8", "replace")
            for key, value in found.content
            if key is not None and key != DATA
        }
        if (verb := found.get_property(ADAPTERS_HEADER)) is not None:
            return self._adapters.answer(verb, content, request.headers)
        named = content.get(_ADAPTER)
        if named is None or named in self._adapters or self._is_dynamic:
            return None
        return Output().error(f"The adapter {named} has not been registered")

    # -- the call ---------------------------------------------------------------

    def _answer(self, jobs: Sequence[WorkJob], inputs: list[Input]) -> list[AnswerRow]:
        called = join(inputs)
        if len(inputs) > 1:
            for name, value in self._standing.items():
                called.properties[name] = value
        output = self._call(called, inputs)
        if output is None:
            return [self._row(job, FINAL, NO_CONTENT, None, [], b"") for job in jobs]
        if output.stream is not None:
            return self._stream(jobs, output)
        rows = self._rows(jobs, output)
        if output.last_word is not None:
            self._in_hand.send_rows(rows)
            rows = []
            self._say_last_word(output.last_word)
        return rows

    def _call(self, called: Input, inputs: list[Input]) -> Output | None:
        """What the handler says; what it raised as the Output that tells of it."""
        try:
            output = self._function(called)
        except BaseException as error:
            faults.report(error, [str(item.get_property("requestId")) for item in inputs])
            if faults.is_device_lost(error):
                faults.report_lost_device()
                self.wants_exit = True
            self.wants_exit = self.wants_exit or isinstance(error, SystemExit)
            return failure_output(error)
        if output is None or isinstance(output, Output):
            return output
        return Output().error(f"Invalid output type: {type(output)}")

    def _say_last_word(self, last_word: Callable[[], Any]) -> None:
        try:
            last_word()
        except Exception as error:
            faults.report(error, [])

    # -- out --------------------------------------------------------------------

    def _rows(self, jobs: Sequence[WorkJob], output: Output) -> list[AnswerRow]:
        head, kind, flat = _head(output)
        if len(jobs) == 1 or head[0] >= 300:
            body = _joined(output.content.get_values())
            return [self._row(job, FINAL, head, kind, flat, body) for job in jobs]
        bodies = _split(output, len(jobs))
        return [
            self._row(job, FINAL, head, kind, flat, body)
            for job, body in zip(jobs, bodies, strict=True)
        ]

    def _row(
        self,
        job: WorkJob,
        row_kind: int,
        head: tuple[int, str],
        content_type: str | None,
        flat: list[str],
        body: bytes,
    ) -> AnswerRow:
        if len(body) > self._max_response_bytes:
            return error_row(job.job_id, faults.too_large(self._max_response_bytes))
        return [job.job_id, row_kind, head[0], head[1], content_type, flat, body]

    def _stream(self, jobs: Sequence[WorkJob], output: Output) -> list[AnswerRow]:
        """Send piece after piece; before the first one a failure still has a status."""
        assert output.stream is not None
        if len(jobs) > 1:
            raise BadHandlerResult("A stream cannot answer several requests; use batch_size=1.")
        job = jobs[0]
        head, kind, flat = _head(output)
        pieces, formatter = output.stream
        has_begun = False
        tail = b""
        try:
            for piece in pieces:
                if self._in_hand.is_cancelled():
                    break
                row = self._row(job, CHUNK, head, kind, flat, to_bytes(formatter(piece)))
                if row[1] != CHUNK:
                    return [row]
                self._in_hand.send_rows([row])
                has_begun = True
        except Exception as error:
            faults.report(error, [])
            failed = failure_output(error)
            if not has_begun:
                return self._rows(jobs, failed)
            tail = _joined(failed.content.get_values())
        finally:
            if callable(close := getattr(pieces, "close", None)):
                with contextlib.suppress(Exception):
                    close()
        rows = [self._row(job, FINAL, head, kind, flat, tail)]
        if output.last_word is not None:
            self._in_hand.send_rows(rows)
            rows = []
            self._say_last_word(output.last_word)
        return rows


def _head(output: Output) -> tuple[tuple[int, str], str | None, list[str]]:
    """Status and reason, content type, and the other headers.  Raises TypeError, ValueError."""
    code = int(output.code)
    kind = None
    flat: list[str] = []
    for name, value in output.properties.items():
        if name.lower() == CONTENT_TYPE:
            kind = str(value)
        else:
            flat += (str(name), str(value))
    # The contract's reason of a 200 is always the usual one (3.4).
    return (code, "" if code == OK else str(output.message)), kind, flat


def _split(output: Output, size: int) -> list[bytes]:
    """A body for each request of a batch.  Raises BadHandlerResult: not exactly one each."""
    content = output.content
    if content.size() != size:
        raise BadHandlerResult(
            f"Batch output size mismatch, expected: {size}, actual: {content.size()}"
        )
    bodies: list[bytes | None] = [None] * size
    for key, value in content:
        match = _BATCH_KEY.fullmatch(key or "")
        index = int(match[1]) if match else size
        if index >= size or bodies[index] is not None:
            raise BadHandlerResult(f"Unexpected batch output key: {key}")
        bodies[index] = to_bytes(value)
    return [body for body in bodies if body is not None]


def _joined(values: Iterable[Any]) -> bytes:
    return b"".join(map(to_bytes, values))


def failure_output(error: BaseException) -> Output:
    """What clients are told of what a handler raised."""
    text = str(error) or type(error).__name__
    if faults.is_out_of_memory(error):
        return Output().error(text, OUT_OF_MEMORY)
    return Output().error(text)
