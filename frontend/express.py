"""The short way of a prediction: past ASGI scope, task, router and framework.

`POST /predictions/{model}[/{version}[/...]]` and its like are almost everything
a server is asked, so they are worth a way of their own: the connection hands the exchange over
when its body is complete, the link calls back with the answer, and the answer
is written in that very turn of the loop.  Only a streamed answer gets a task,
because it may have to wait for a slow reader.

What the short way does not understand (percent-escapes, absolute request
targets, OPTIONS, queries that mean something) goes through Falcon, with the
same result.

Source: design section 5; contracts/torchserve.md 2.1.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stoker.errors import Internal, StokerError
from stoker.frontend.dialect import Dialect
from stoker.frontend.lanes import Key
from stoker.frontend.problems import JSON_TYPE, is_overload, render_json
from stoker.frontend.submission import NO_VERSION, Submission
from stoker.logs import get_logger
from stoker.wire.payloads import ATTEMPTS_HEADER, Answer, AnswerKind

if TYPE_CHECKING:
    from stoker.frontend.exchange import Exchange
    from stoker.wire.pending import Pending

_JSON: Final = (b"content-type", JSON_TYPE.encode())

#: Paths whose way is remembered.
_MAX_KNOWN: Final = 1024

_PLAIN: Final = re.compile(r"/([\w-]+)/{model_name}")

log = get_logger("http")


def _pattern(template: str) -> re.Pattern[str]:
    before, after = template.split("{model_name}")
    return re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}")


class Way(NamedTuple):
    """What a path asks for, worked out once."""

    submission: Submission
    model: str
    version: str | None
    rest: str
    key: Key
    ride: type[_Ride] | None = None


class Express:
    """Takes the exchanges that it can answer by itself.

    Args:
        ways: A template like `/predictions/{model_name}`, which then stands for
            its versions as well, or like `/v2/models/{model_name}/infer`; how
            such a request becomes a job; and whether models have versions there.
    """

    def __init__(self, ways: Iterable[tuple[str, Submission, bool]], dialect: Dialect) -> None:
        self._submissions: dict[bytes, tuple[Submission, bool]] = {}
        #: Found whatever the case of their letters (contracts/torchserve.md 2.1).
        self._of_workflows: dict[str, tuple[Submission, bool]] = {}
        self._others: list[tuple[re.Pattern[str], Submission]] = []
        for template, submission, has_versions in ways:
            if plain := _PLAIN.fullmatch(template):
                self._submissions[plain[1].encode()] = submission, has_versions
                if submission.is_of_workflow:
                    self._of_workflows[plain[1]] = submission, has_versions
            else:
                self._others.append((_pattern(template), submission))
        self._dialect = dialect
        self._known: dict[bytes, Way] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def way(self, method: bytes, url: bytes) -> Way | None:
        """Where a request goes, as soon as its head is known; None: to the application."""
        if method == b"OPTIONS":
            return None
        way = self._known.get(url)
        if way is None:
            path = url.partition(b"?")[0]
            way = self._find(path)
            if way is None or (way.submission.takes_query and len(path) != len(url)):
                return None
            if not way.rest:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[path] = way
        return way

    def _find(self, path: bytes) -> Way | None:
        if b"%" in path or not path.isascii():
            return None
        parts = path.rstrip(b"/").decode("ascii").split("/", 4)
        if len(parts) < 3 or parts[0]:
            return None
        found = self._submissions.get(parts[1].encode())
        if found is None:
            found = self._of_workflows.get(parts[1].lower())
        if found is None:
            return self._find_other("/".join(parts))
        if not all(parts[2:4]):
            return None
        submission, has_versions = found
        if submission.is_of_workflow:  # what follows its name says nothing
            key = (parts[2], NO_VERSION)
            return Way(submission, parts[2], NO_VERSION, "", key, _WorkflowRide)
        if not has_versions:
            return Way(submission, parts[2], None, "", submission.key(parts[2], None))
        version = parts[3] if len(parts) > 3 else None
        rest = parts[4] if len(parts) > 4 else ""
        return Way(submission, parts[2], version, rest, submission.key(parts[2], version))

    def _find_other(self, path: str) -> Way | None:
        for pattern, submission in self._others:
            if match := pattern.fullmatch(path):
                return Way(submission, match[1], None, "", submission.key(match[1], None))
        return None

    def take(self, exchange: Exchange) -> bool:
        """Answer this one, now or later; False leaves it to the application."""
        way = exchange.way
        if way is None or way.submission.is_for_long_way(exchange):
            return False
        (way.ride or _Ride)(self, way, exchange).start()
        return True

    def problem(
        self, exchange: Exchange, error: StokerError, model: str, version: str | None
    ) -> None:
        """Answer an error as the dialect tells it."""
        subject = {"model": model, "version": version}
        problem = self._dialect.problem(error, "predict", subject)
        if error.code == Internal.code:
            log.error(
                "an internal error was answered",
                request_id=exchange.request_id,
                verb="predict",
                error=error.message,
            )
        body = render_json(self._dialect.error_document(problem))
        headers = [_JSON, (b"content-length", b"%d" % len(body))]
        if problem.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % problem.retry_after_s))
        if problem.attempts > 1:
            headers.append((ATTEMPTS_HEADER.encode(), b"%d" % problem.attempts))
        exchange.connection.site.counts.error(error.code)
        if (watch := self._dialect.watch) is not None:
            watch.told(problem, "predict")
        exchange.reason = None
        exchange.keeps_open = is_overload(error)
        exchange.extra_head, exchange.extra_names = b"", frozenset()
        exchange.write_whole(problem.status, headers, body)

    def run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Ride:
    """One exchange on the short way."""

    __slots__ = ("_exchange", "_express", "_pending", "_way")

    def __init__(self, express: Express, way: Way, exchange: Exchange) -> None:
        self._express = express
        self._way = way
        self._exchange = exchange
        self._pending: Pending | None = None

    def start(self) -> None:
        exchange = self._exchange
        submission, model, version, rest, _, _ = self._way
        try:
            pending = submission.submit(exchange, model, version, rest)
        except StokerError as error:
            self._fail(error)
        except Exception:
            log.exception("a request failed", request_id=exchange.request_id)
            self._fail(Internal())
        else:
            self._pending = pending
            pending.on_answer(self._take)
            exchange.on_left = pending.cancel

    def _take(self, answer: Answer | StokerError) -> None:
        exchange = self._exchange
        if exchange.has_left:
            return
        if isinstance(answer, StokerError):
            # Not raised: its traceback would hold this frame, and the frame the
            # error, so every refusal would wait for the collector.
            self._fail(answer)
            return
        try:
            if answer.kind is AnswerKind.CHUNK:
                self._stream(answer)
                return
            status = self._way.submission.shape(exchange, answer)
            body = answer.body
            exchange.write_whole(status, [(b"content-length", b"%d" % len(body))], body)
        except StokerError as error:
            self._fail(error)
        except Exception:
            log.exception("an answer failed", request_id=exchange.request_id)
            self._fail(Internal())

    def _fail(self, error: StokerError) -> None:
        if self._pending is not None:
            self._pending.cancel()
        self._express.problem(self._exchange, error, self._way.model, self._way.version)

    def _stream(self, first: Answer) -> None:
        """The first piece has come: from here on somebody may have to wait."""
        assert self._pending is not None
        status = self._way.submission.shape(self._exchange, first)
        self._pending.on_answer(None)
        self._express.run(self._exchange.run_stream(status, self._pending, first))


class _WorkflowRide(_Ride):
    """One for a workflow, whose answer the dialect shapes first."""

    __slots__ = ()

    def _take(self, answer: Answer | StokerError) -> None:
        reshape = self._way.submission.reshape
        if reshape is not None and isinstance(answer, Answer) and answer.error is None:
            try:
                answer = reshape(answer)
            except StokerError as error:
                answer = error
        super()._take(answer)
