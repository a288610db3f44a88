"""The torchserve contract: requests to `data`, results to answers, faults to errors.

What the peer does to a whole batch this does to one item where it can: an
element that cannot be encoded, is too large, or is an exception fails its own
request, and its neighbours get their results.  What breaks the call itself
(an exception, no list, wrong length) still fails every request of the batch,
but for one: a batch too large for the device's memory is handled in halves.

Beyond the peer, a handler may stream without a helper: by being a generator
that yields one list per step (one piece for each request; what it returns at
the end, if anything, is the last piece), or by returning a list in which some
elements are generators of pieces.

Source: contracts/torchserve.md 2.4, 2.6, 2.7 and 1.6 (the handler rows).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import GeneratorType
from typing import Any, Final, NoReturn

from stoker.errors import BadHandlerResult, StokerError
from stoker.wire.arena_reader import ArenaReader
from stoker.wire.frames import WorkJob
from stoker.worker.answers import CHUNK, ERROR, FINAL, AnswerRow, error_row
from stoker.worker.context import CONTENT_TYPE, Context, RequestProcessor
from stoker.worker.contracts import faults, values
from stoker.worker.in_hand import BatchInHand
from stoker.worker.request import Request

STREAM_NEXT: Final = "ts_stream_next"

Entry = Callable[[Any, Context], Any]
Broadcast = Callable[[Sequence[Request]], None]


class TorchServeContract:
    """Calls one loaded handler the way archives written for the peer expect.

    Args:
        may_try_twice: The handler may be given a request again that it failed with.
        broadcast: Gives a batch to the worker's other ranks, just before rank 0 handles it.
    """

    def __init__(
        self,
        entry: Entry,
        context: Context,
        in_hand: BatchInHand,
        *,
        decode_request: bool,
        max_response_bytes: int,
        may_try_twice: bool = True,
        arena: ArenaReader | None = None,
        broadcast: Broadcast | None = None,
    ) -> None:
        self._entry = entry
        self._broadcast = broadcast
        self._arena = arena
        self._context = context
        self._in_hand = in_hand
        self._decode_request = decode_request
        self._max_response_bytes = max_response_bytes
        self._may_try_twice = may_try_twice
        self._jobs: Sequence[WorkJob] = ()
        self._has_streamed = False
        # Items that had their last word while the batch was still running.
        self._ended: set[int] = set()
        #: The handler raised SystemExit, or its device is lost: answer, then let
        #: the process end.
        self.wants_exit = False
        context.attach(in_hand)
        context.cl_socket = PieceSocket(self)

    def answer(self, jobs: Sequence[WorkJob]) -> list[AnswerRow]:
        """Run the handler on `jobs` and return the last row of each that still needs one."""
        arena = self._arena
        try:
            requests = [Request(payload, job_id, arena) for job_id, payload in jobs]
        except StokerError:
            return self._answer_readable(jobs)
        return self._answer(jobs, requests)

    def _answer(self, jobs: Sequence[WorkJob], requests: list[Request]) -> list[AnswerRow]:
        context = self._context
        decode_request = self._decode_request
        self._jobs = jobs
        rows: list[AnswerRow] | None
        try:
            data = [values.read(request, decode_request) for request in requests]
            if self._broadcast is not None:
                self._broadcast(requests)
            context.begin_batch(requests)
            results = self._entry(data, context)
            if type(results) is not list:
                results = self._listed(results)
            if len(results) != len(jobs):
                raise BadHandlerResult(faults.WRONG_LENGTH)
            if GeneratorType in map(type, results):
                results = self._run_item_generators(results)
            if self._has_streamed or context.stopping_criteria is not None:
                self._mark_end(results)
            rows = [self._row(i, result, FINAL) for i, result in enumerate(results)]
        except BaseException as error:
            rows = None if self._may_divide(error) else self._fail_all(error, requests)
        if rows is None:
            # Only now: the error held on to all that its frames had allocated.
            return self._answer_halves(jobs, requests)
        if self._has_streamed:
            rows = [row for i, row in enumerate(rows) if i not in self._ended]
            self._ended.clear()
            self._has_streamed = False
        return rows

    # -- faults ----------------------------------------------------------------

    def _answer_readable(self, jobs: Sequence[WorkJob]) -> list[AnswerRow]:
        """A payload is damaged or its client has left: fail it alone and answer the rest."""
        readable: list[WorkJob] = []
        requests: list[Request] = []
        rows: list[AnswerRow] = []
        for job in jobs:
            try:
                requests.append(Request(job.payload, job.job_id, self._arena))
            except StokerError as error:
                rows.append(error_row(job.job_id, error))
            else:
                readable.append(job)
        if readable:
            self._in_hand.narrow(readable)
            rows += self._answer(readable, requests)
        return rows

    def _may_divide(self, error: BaseException) -> bool:
        """Whether fewer at a time might fit where all together did not."""
        return (
            len(self._jobs) > 1
            and self._may_try_twice
            and not self._has_streamed
            and self._broadcast is None
            and faults.is_device_out_of_memory(error)
        )

    def _answer_halves(self, jobs: Sequence[WorkJob], requests: list[Request]) -> list[AnswerRow]:
        """The device has no room for the batch: one that does not fit alone fails alone."""
        faults.report_division(len(jobs))
        rows: list[AnswerRow] = []
        middle = len(jobs) // 2
        for part in (slice(None, middle), slice(middle, None)):
            faults.free_device_memory()
            self._in_hand.narrow(jobs[part])
            rows += self._answer(jobs[part], requests[part])
        return rows

    def _fail_all(self, error: BaseException, requests: Sequence[Request]) -> list[AnswerRow]:
        faults.report(error, [request.request_id for request in requests])
        if faults.is_device_lost(error):
            faults.report_lost_device()
            self.wants_exit = True
        self.wants_exit = self.wants_exit or isinstance(error, SystemExit)
        fault = faults.fault_of(error)
        return [error_row(job.job_id, fault) for job in self._jobs]

    def _fail_item(self, i: int, error: Exception) -> AnswerRow:
        faults.report(error, [self._context.get_request_id(i) or ""])
        return error_row(self._jobs[i].job_id, faults.fault_of(error))

    # -- results ---------------------------------------------------------------

    def _row(self, i: int, result: Any, kind: int) -> AnswerRow:
        if type(result) is bytes:
            body = result
        else:
            try:
                body = values.write(result)
            except Exception as error:
                return self._fail_item(i, error)
        if len(body) > self._max_response_bytes:
            return self._fail_item(i, faults.too_large(self._max_response_bytes))
        processors = self._context.touched_processors
        processor = None if processors is None else processors[i]
        if processor is None:
            return [self._jobs[i][0], kind, 200, "", None, [], body]
        return self._dressed_row(i, kind, processor, body)

    def _dressed_row(
        self, i: int, kind: int, processor: RequestProcessor, body: bytes
    ) -> AnswerRow:
        """A row with the status and headers that the handler asked for."""
        try:
            status = int(processor.get_response_status_code())
        except (TypeError, ValueError) as error:
            return self._fail_item(i, error)
        reason = str(processor.get_response_status_phrase() or "")
        content_type = None
        flat: list[str] = []
        for name, value in processor.get_response_headers().items():
            if name.lower() == CONTENT_TYPE:
                content_type = str(value)
            else:
                flat += (str(name), str(value))
        return [self._jobs[i][0], kind, status, reason, content_type, flat, body]

    def _listed(self, results: Any) -> list[Any]:
        """A list out of what is not exactly one: a generator is run to its end."""
        if isinstance(results, GeneratorType):
            results = self._run_batch_generator(results)
        if not isinstance(results, list):
            raise BadHandlerResult(faults.NO_LIST)
        return results

    # -- streaming -------------------------------------------------------------

    def send_step(self, pieces: Any) -> None:
        """Send one piece for each request now.

        Raises:
            BadHandlerResult: Not exactly one piece per request.
        """
        if not isinstance(pieces, list):
            raise BadHandlerResult(faults.NO_LIST)
        if len(pieces) != len(self._jobs):
            raise BadHandlerResult(faults.WRONG_LENGTH)
        self._send(CHUNK, enumerate(pieces))

    def _send(self, kind: int, pieces: Iterable[tuple[int, Any]]) -> None:
        """Send pieces now; one that cannot be sent ends its request with an error."""
        if not self._has_streamed:
            self._has_streamed = True
            for i in range(len(self._jobs)):
                self._context.set_response_header(i, STREAM_NEXT, "true")
        rows = []
        for i, piece in pieces:
            if i not in self._ended:
                row = self._row(i, piece, kind)
                if row[1] == ERROR or kind == FINAL:
                    self._ended.add(i)
                rows.append(row)
        if rows:
            self._in_hand.send_rows(rows)

    def _mark_end(self, results: Sequence[Any]) -> None:
        """Say in `ts_stream_next` whether more is to come (2.7, 7.3)."""
        criteria = self._context.stopping_criteria
        for i, result in enumerate(results):
            is_last = True if criteria is None else criteria[i](result)
            if is_last is not None:
                self._context.set_response_header(i, STREAM_NEXT, "false" if is_last else "true")

    def _run_batch_generator(self, steps: GeneratorType[Any, Any, Any]) -> Any:
        """Every step is a list of pieces; the return value, if any, holds the last ones."""
        nothing = [b""] * len(self._jobs)
        try:
            while not self._in_hand.is_cancelled():
                self.send_step(next(steps))
        except StopIteration as end:
            return nothing if end.value is None else end.value
        finally:
            steps.close()
        return nothing

    def _run_item_generators(self, results: Sequence[Any]) -> list[Any]:
        """Take turns among the elements that are generators; the others wait for the end.

        A request whose generator ends, fails, or is not wanted any more gets
        its last word at once, while its neighbours go on.
        """
        results = list(results)
        live = {i: item for i, item in enumerate(results) if isinstance(item, GeneratorType)}
        try:
            while live:
                pieces: list[tuple[int, Any]] = []
                for i, item in list(live.items()):
                    if self._in_hand.is_cancelled(i):
                        self._retire(live, results, i, b"")
                        continue
                    try:
                        pieces.append((i, next(item)))
                    except StopIteration as end:
                        last = b"" if end.value is None else end.value
                        self._retire(live, results, i, last)
                    except Exception as error:
                        self._retire(live, results, i, error)
                self._send(CHUNK, pieces)
        finally:
            for item in live.values():
                item.close()
        return results

    def _retire(
        self, live: dict[int, GeneratorType[Any, Any, Any]], results: list[Any], i: int, last: Any
    ) -> None:
        live.pop(i).close()
        results[i] = last
        self._context.set_response_header(i, STREAM_NEXT, "false")
        self._send(FINAL, [(i, last)])


class PieceSocket:
    """`context.cl_socket`: what `send_intermediate_predict_response` sends through."""

    def __init__(self, contract: TorchServeContract) -> None:
        self._contract = contract

    def __deepcopy__(self, memo: dict[int, Any]) -> PieceSocket:
        # A copied context still belongs to the same worker.
        return self

    def send_step(self, pieces: Any) -> None:
        self._contract.send_step(pieces)

    def sendall(self, data: bytes) -> NoReturn:
        """What the peer's raw socket offered; its bytes would mean nothing here."""
        raise NotImplementedError(
            "use send_intermediate_predict_response(...) from ts.handler_utils.utils or "
            "stoker.handlers instead of writing to context.cl_socket"
        )
