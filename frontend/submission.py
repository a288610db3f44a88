"""From a request to a job and from its answer to a response head.

Shared by the two ways a prediction can go: the short one (`express.py`) and
the one through Falcon (`predictions.py`).

Source: contracts/torchserve.md 2.3, 2.5-2.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stoker.clock import Clock
from stoker.errors import BadHandlerResult, InvalidParameter
from stoker.frontend.asynchronous import DETOURS
from stoker.frontend.bodies import may_be_form, read_parameters
from stoker.frontend.dialect import Dialect
from stoker.frontend.exchange import Exchange
from stoker.frontend.header_lines import FRAMING_NAMES, header_line
from stoker.frontend.lanes import TURNS, Key, Lanes
from stoker.frontend.limits import Limits
from stoker.frontend.routes import Prediction
from stoker.wire.frames import JobFlag
from stoker.wire.link import Link
from stoker.wire.payloads import Answer, Parameter, header_block, pack_request
from stoker.wire.pending import Pending

#: Below it, an answer says nothing about how well we are.
FIRST_WATCHED: Final = 424
#: Taking a form apart takes so long for one of this size that others would notice.
LARGE_FORM_BYTES: Final = 64 * 1024
#: A workflow's, so that a lane of its is none of a model of the same name.
NO_VERSION: Final = ""


def is_large_form(exchange: Exchange) -> bool:
    return exchange.received_bytes > LARGE_FORM_BYTES and may_be_form(exchange.content_type)


class Submission:
    """How one kind of prediction route becomes a job."""

    def __init__(
        self,
        link: Link,
        lanes: Lanes,
        dialect: Dialect,
        limits: Limits,
        clock: Clock,
        kind: Prediction,
    ) -> None:
        self._link = link
        self._lanes = lanes
        self._limits = limits
        self._clock = clock
        self._flags = JobFlag.ALONE.value if kind.is_alone else JobFlag.NONE.value
        if kind.takes_turns:
            self._flags |= JobFlag.TAKES_TURNS.value
        #: What lanes call "whichever": it is full at other times than the default version.
        self._unnamed = TURNS if kind.takes_turns else None
        #: Queries are inputs, so the short way, which does not read them, knows none.
        self.takes_query = kind.takes_query
        self._on_bad_status = None if dialect.watch is None else dialect.watch.answered
        #: Headers that mean something to the long way alone.
        self._detours = DETOURS if kind.is_fetchable else frozenset()
        if kind.of_workflow:
            self._flags |= JobFlag.WORKFLOW.value
        if kind.or_workflow:
            self._flags |= JobFlag.OR_WORKFLOW.value
        self.is_of_workflow = kind.of_workflow
        self.reshape = kind.reshape
        self._added = kind.headers
        self._has_url_path = kind.has_url_path
        self._model_input = kind.model_input
        self._looks_into_body = kind.looks_into_body
        self._patience_s = dialect.settings.request_deadline_s
        self._fixed_names = dialect.fixed_names

    def submit(
        self,
        exchange: Exchange,
        model: str | None,
        version: str | None,
        rest: str,
        inputs: Sequence[Parameter] = (),
        parameters: list[Parameter] | None = None,
    ) -> Pending:
        """Send the job.

        Args:
            model: None: an input of the body must name it.
            inputs: What the handler gets beside those of the body.
            parameters: Those of the body, where it was taken apart before.

        Raises:
            InvalidBody: A malformed form.
            InvalidParameter: Nothing names a model.
            QueueFull, SupervisorUnavailable, TooManyRequests: It was not sent.
        """
        link = self._link
        if parameters is None:
            parameters = self._parameters(exchange)
        if inputs:
            parameters = [*inputs, *parameters]
        if model is None:
            model = self._model_in(parameters)
        lane = self._lanes.enter(self.key(model, version), link.pending_count)
        payload = self._payload(exchange, rest, parameters)
        # A client's own deadline counts from its request's arrival and holds to the
        # end; ours is for waiting, and what a worker has taken up is bounded by the
        # model's response_timeout.
        own_s = _patience_s(exchange.patience)
        if own_s is None:
            deadline = self._clock.now() + self._patience_s
        else:
            deadline = exchange.started_at + min(self._patience_s, own_s)
        pending = link.submit(
            model,
            version,
            deadline,
            self._flags,
            payload,
            ends_in_hand=own_s is not None,
            on_end=lane.ended,
        )
        lane.in_flight += 1
        return pending

    def key(self, model: str, version: str | None) -> Key:
        """The lane of such a request."""
        return model, self._unnamed if version is None else version

    def is_for_long_way(self, exchange: Exchange) -> bool:
        """Whether something must be looked at that the short way does not know."""
        if is_large_form(exchange):
            return True
        detours = self._detours
        return bool(detours) and any(name.lower() in detours for name, _ in exchange.headers)

    def read_whole(self, exchange: Exchange) -> list[Parameter]:
        """The parameters of the body, none of which stays in the arena.  Raises InvalidBody."""
        kind = exchange.content_type
        content_type = None if kind is None else kind.decode("latin-1")
        return read_parameters(content_type, exchange.take_body(), self._limits)

    def _parameters(self, exchange: Exchange) -> list[Parameter]:
        kind = exchange.content_type
        content_type = None if kind is None else kind.decode("latin-1")
        return read_parameters(content_type, exchange.body_to_send(), self._limits)

    def _model_in(self, parameters: Sequence[Parameter]) -> str:
        wanted = self._model_input
        for name, _, body in parameters if self._looks_into_body else ():
            if name == wanted and isinstance(body, bytes) and body:
                return body.decode("utf-8", "replace")
        raise InvalidParameter(f"Parameter {wanted} is required.", parameter=wanted)

    def _payload(self, exchange: Exchange, rest: str, parameters: Sequence[Parameter]) -> bytes:
        added = self._added
        if self._has_url_path:
            added = (*added, ("url_path", rest))
        block = header_block(exchange.headers, added)
        return pack_request(exchange.request_id, block, parameters)

    def shape(self, exchange: Exchange, answer: Answer) -> int:
        """Status, reason and headers as the handler set them, and nothing invented.

        Raises:
            BadHandlerResult: A status that HTTP does not have.
        """
        status = answer.status
        if not 200 <= status <= 599:
            raise BadHandlerResult(f"The handler set the impossible status {status}.")
        exchange.reason = answer.reason.encode("latin-1", "replace")
        if answer.content_type is not None or answer.headers:
            self._dress(exchange, answer)
        if status >= FIRST_WATCHED and self._on_bad_status is not None:
            self._on_bad_status(status)
        # 413 belongs to request bodies alone (1.6).
        return 507 if status == 413 else status

    def _dress(self, exchange: Exchange, answer: Answer) -> None:
        lines: dict[bytes, bytes] = {}
        for spelled, value in answer.headers:
            name = spelled.encode("latin-1", "replace")
            lowered = name.lower()
            if lowered not in self._fixed_names and lowered not in FRAMING_NAMES:
                lines[lowered] = header_line(name, value.encode("latin-1", "replace"))
        if answer.content_type is not None:
            content_type = answer.content_type.encode("latin-1", "replace")
            lines.pop(b"content-type", None)
            lines = {b"content-type": header_line(b"content-type", content_type), **lines}
        exchange.extra_head = b"".join(lines.values())
        exchange.extra_names = frozenset(lines)


def _patience_s(asked: bytes | None) -> float | None:
    """What the client says; None if it says nothing that could be meant."""
    if asked is None or not (asked.isdigit() and len(asked) < 10):
        return None
    return int(asked) / 1000
