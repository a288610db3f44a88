"""The worker's end of the wire: batches in, replies out, no threads.

A worker holds more batches than the one it works on, so that it never waits
for the supervisor.  Replies of fast handlers leave several at a time, because
waking the supervisor costs more than a fast handler does (design section 3);
a reply never waits for a slow one.

When the supervisor dies its successor is looked for between two batches: the
model is loaded, and what was answered lately may have died with the one it was
told.  What was not begun is given up; the frontends will send it again.

While a handler runs nobody reads the socket.  `look` is how streaming
handlers and `context.cancelled` notice messages in the meantime.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, Final

from stoker.errors import ProtocolError
from stoker.wire import codec
from stoker.wire.frames import (
    PROTOCOL,
    Drop,
    FromWorker,
    Kept,
    Leave,
    Load,
    Loaded,
    Replies,
    Reply,
    ToWorker,
    Work,
    WorkBatch,
    WorkerBack,
    WorkerHello,
    WorkJob,
)
from stoker.wire.lent_bodies import MIN_BODY_BYTES, LentFrame
from stoker.wire.stream import PeerGone, Stream
from stoker.worker.errands import Errands
from stoker.worker.kept_replies import KeptReplies
from stoker.worker.lender import Lender
from stoker.worker.stop_signal import StopSignal
from stoker.worker.successor import SEND_DEADLINE_S, SupervisorGone, find_successor

#: The supervisor sends as much as it gave credit for; more than this at once
#: means it is confused, and the rest stays in the socket.
MAX_WAITING_BATCHES: Final = 1024
#: How long the last replies may take to leave when the process ends.
LINGER_S: Final = 2.0
#: Finished replies are held back at most this long to leave together...
HOLD_S: Final = 0.001
#: ...and only while no recent batch took longer than this.
FAST_BATCH_S: Final = 0.000_25
#: How fast the memory of a slow batch fades, per batch.
FADE: Final = 0.98


class Channel:
    """A connection to the supervisor and the batches that came through it.

    Raises:
        SupervisorGone: Nobody listens at `address`.
    """

    def __init__(self, address: str) -> None:
        #: How long to look for a successor; 0: there will be none for us.
        self.orphan_grace_s = 0.0
        self._address = address
        self._hello = WorkerHello(PROTOCOL, 0, b"", 0)
        self._info: dict[str, Any] = {}
        #: What lives in this worker, for a successor of the supervisor (`frames.WorkerBack`).
        self.sequences: Callable[[], list[list[Any]]] | None = None
        self._kept = KeptReplies()
        self._lender = Lender()
        #: Since when no supervisor has said a word; 0.0 while there is one.
        self._alone_since = 0.0
        try:
            self._stream = Stream(address, SEND_DEADLINE_S)
        except PeerGone as error:
            raise SupervisorGone(f"no supervisor: {error}") from None
        self.stop = StopSignal()
        self._stop_fd = self.stop.fileno()
        self._poll = select.poll()
        self._poll.register(self._stream, select.POLLIN)
        self._poll.register(self._stop_fd, select.POLLIN)
        self._waiting: deque[WorkBatch] = deque()
        self._load: Load | None = None
        self._is_leaving = False
        self._is_orphan = False
        self._has_looked_last = False
        self._running: WorkBatch | None = None
        self._dropped: set[bytes] = set()
        self._held: list[Reply] = []
        #: Whether a batch may be begun while the last one's reply is still here.
        #: If this process dies meanwhile, the last one is taken for begun, and the
        #: one that was begun is tried again: not for every handler.
        self.holds_replies = True
        self._has_sent_part = False
        self.errands = Errands(self._lender)
        #: Of the latest batch; None once somebody has read it.
        self.took_s: float | None = None
        self._held_since = 0.0
        self._looked_at = 0.0
        self._slowest_s = 1.0
        self._was_slow = False
        self._interruptions = 0
        self._started_at = 0.0

    # -- opening and closing ------------------------------------------------

    def stop_on(self, signum: signal.Signals) -> None:
        """Let a signal mean: finish what is in hand and leave."""
        self.stop.listen(signum, self._leave)

    def _leave(self) -> None:
        self._is_leaving = True

    def say_hello(self, worker_id: int, token: bytes) -> None:
        self._hello = WorkerHello(PROTOCOL, worker_id, token, os.getpid())
        self.send(self._hello)

    def wait_load(self, deadline_s: float) -> Load | None:
        """The first order, or None when told to leave instead.

        Raises:
            SupervisorGone: Nothing came in time.
        """
        until = monotonic() + deadline_s
        while self._load is None:
            if self._is_leaving:
                return None
            left_s = until - monotonic()
            if left_s <= 0:
                raise SupervisorGone("the supervisor sent nothing to load")
            self._wait(left_s)
        return self._load

    def say_loaded(self, info: dict[str, Any]) -> None:
        self._info = info
        self.send(Loaded(info))

    def close(self) -> None:
        """Send what is left, for at most LINGER_S, and hang up."""
        with contextlib.suppress(SupervisorGone, OSError):
            self._stream.set_deadline(LINGER_S)
            self.flush()
        self._stream.close()
        self._lender.close()
        self.stop.close()

    # -- batches ---------------------------------------------------------------

    def next_batch(self) -> WorkBatch | None:
        """The next batch to work on; waits for it.  None: time to leave.

        Everything that arrived before it was time to leave is finished first:
        the supervisor takes what a worker held at its end for begun.
        """
        if self._is_orphan:
            self.come_back()
        if self._waiting:
            # One look per millisecond is enough to notice Drop and Leave in
            # time, and costs a fast handler nothing.
            now = self._started_at
            if now - self._looked_at >= HOLD_S and not self._is_leaving:
                self._looked_at = now
                self.look()
                self.errands.run_due(now)
        else:
            self.flush()
            self._dropped.clear()
            while not self._waiting and not self._is_leaving:
                self._wait(self.errands.run_due(monotonic()))
            # Whoever sent a signal may not have told the supervisor, so work can
            # be on its way; but only what is here now counts, or there would be
            # no end.
            if self._is_leaving and not self.has_work_at_last():
                self.errands.run_all(monotonic())
                return None
            self._started_at = self._looked_at = monotonic()
        batch = self._running = self._waiting.popleft()
        return batch

    # Several batches in hand at once: `running`, `asynchronous`.

    def hold(self, jobs: list[WorkJob]) -> None:
        """These are in hand from now on, whatever batches they came in, and no others."""
        self._running = WorkBatch(0, jobs)
        if self._dropped:
            self._dropped &= self._held_ids()

    def begin_step(self) -> None:
        """The handler is called with what is in hand."""
        self._started_at = monotonic()

    def end_step(self) -> None:
        """Note how long it took."""
        self.took_s = monotonic() - self._started_at

    def take_arrived(self, most: int) -> list[WorkBatch]:
        """What has come meanwhile and may join what is in hand; does not wait.

        Also does what is due between two batches.
        """
        self.look()
        if self._is_orphan:
            return []  # it came from nobody who waits for it
        self.errands.run_due(monotonic())
        waiting = self._waiting
        return [waiting.popleft() for _ in range(min(most, len(waiting)))]

    def fileno(self) -> int:
        """Readable when the supervisor has said something, or is gone."""
        return self._stream.fileno()

    @property
    def is_leaving(self) -> bool:
        return self._is_leaving

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def has_work_at_last(self) -> bool:
        """Of one that is about to leave: whether something came that it was not told of; once."""
        if not self._has_looked_last:
            self._has_looked_last = True
            self.look()
        return bool(self._waiting)

    @property
    def is_orphan(self) -> bool:
        """The supervisor is gone: what is in hand has to be given up before we look for another."""
        return self._is_orphan

    def give_up(self, batches: Iterable[WorkBatch]) -> None:
        """They were begun, and their answers will not come."""
        self._kept.add(
            [Reply(each[0], True, [job.job_id for job in each[1]], []) for each in batches]
        )
        self._running = None

    def _wait(self, timeout_s: float | None) -> None:
        """Wait for messages, a signal, or the timeout.  Raises SupervisorGone."""
        if self._is_orphan:
            self.come_back()
            return
        for fd, _ in self._poll.poll(None if timeout_s is None else timeout_s * 1000 + 1):
            if fd == self._stop_fd:
                self.stop.clear()
            else:
                self.look()

    def look(self) -> None:
        """Take what has arrived, without waiting.

        A supervisor that hung up is noticed, but nobody is told before it is
        waited for: a handler that asks whether it is cancelled is not the one
        to know what to do about it.
        """
        stream = self._stream
        try:
            while len(self._waiting) < MAX_WAITING_BATCHES:
                for frame in stream.receive():
                    self._take(codec.decode_to_worker(frame))
                self._alone_since = 0.0
                if not stream.has_more:
                    return
        except BlockingIOError:
            pass
        except PeerGone:
            self._is_orphan = True

    def come_back(self) -> None:
        """Find the successor of a supervisor that is gone, and say who we are.

        Raises:
            SupervisorGone: There is none for `orphan_grace_s`.
        """
        if not self.orphan_grace_s:
            raise SupervisorGone("the supervisor hung up")
        self._alone_since = self._alone_since or monotonic()
        self._waiting.clear()
        self._dropped.clear()
        # A successor did not give us these batches: to it they are what we answered lately.
        self._kept.add(self._held)
        self._held = []
        with contextlib.suppress(KeyError):
            self._poll.unregister(self._stream)
        self._stream.close()
        until = self._alone_since + self.orphan_grace_s
        successor = find_successor(
            self._address, self._introduction, self.stop, lambda: self._is_leaving, until
        )
        if successor is not None:
            self._stream = successor
            self._poll.register(successor, select.POLLIN)
            self._is_orphan = False

    def _introduction(self) -> tuple[WorkerBack, Kept]:
        """Who we are, what lives here, and what we answered lately."""
        info = self._info
        if self.sequences is not None:
            info = {**info, "sequences": self.sequences()}
        return WorkerBack(*self._hello, info), Kept(list(self._kept))

    def _take(self, message: ToWorker) -> None:
        if type(message) is Work:
            self._waiting += message.batches
        elif type(message) is Drop:
            self._dropped.update(self._held_ids().intersection(message.job_ids))
        elif type(message) is Leave:
            self._is_leaving = True
        elif type(message) is Load and self._load is None:
            self._load = message
        else:
            raise ProtocolError(f"{type(message).__name__} has no business here now")

    def _held_ids(self) -> set[bytes]:
        """Jobs that wait here or are in hand."""
        held = {job.job_id for batch in self._waiting for job in batch.jobs}
        if self._running is not None:
            held.update(job.job_id for job in self._running.jobs)
        return held

    @property
    def started_at(self) -> float:
        """When the batch in hand was begun."""
        return self._started_at

    @property
    def dropped(self) -> set[bytes]:
        """Jobs in hand whose answers are not wanted any more."""
        return self._dropped

    # -- replies ---------------------------------------------------------------

    def reply(self, reply: Reply) -> None:
        """Hand in the end of the batch in hand; it leaves now or with the next few."""
        running, self._running = self._running, None
        if self._dropped and running is not None:
            # One that is tried again may come here again, and is wanted then.
            self._dropped.difference_update(job.job_id for job in running.jobs)
        now = monotonic()
        took_s = self.took_s = now - self._started_at
        self._started_at = now
        if took_s > FAST_BATCH_S:
            took_s = self._judge(took_s)
        else:
            self._was_slow = False
        slowest_s = self._slowest_s * FADE
        self._slowest_s = slowest_s = took_s if took_s > slowest_s else slowest_s
        held = self._held
        if not held:
            self._held_since = now
        held.append(reply)
        if (
            not self._waiting
            or slowest_s > FAST_BATCH_S
            or now - self._held_since >= HOLD_S
            or not self.holds_replies
            or self._has_sent_part
        ):
            self.flush()
        self._has_sent_part = False

    def _judge(self, took_s: float) -> float:
        """How long a batch that seems slow took, but for what others did with the processor.

        On a busy machine a fast handler, too, is interrupted now and then; were
        it taken for slow, each reply would leave alone and keep the machine
        busier still.  Two in a row are no chance.
        """
        known = self._interruptions
        self._interruptions = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        was_slow, self._was_slow = self._was_slow, True
        return took_s if was_slow or self._interruptions == known else 0.0

    def reply_part(self, reply: Reply) -> None:
        """An intermediate reply: leaves at once, and so will the last one.

        If this process died with the end of a stream in its hands, nobody
        could begin that stream again.
        """
        self._has_sent_part = True
        self._kept.tear(reply.batch_id)
        self._held.append(reply)
        self.flush()

    def reply_now(self, replies: list[Reply]) -> None:
        """Progress of batches that are in hand together."""
        for reply in replies:
            if reply.is_last:
                self._dropped.difference_update(reply.ended)
            elif reply.groups:
                self._kept.tear(reply.batch_id)
        self._held += replies
        self.flush()

    def flush(self) -> None:
        if self._held:
            held, self._held = self._held, []
            lent: Sequence[LentFrame] = ()
            if self._kept.add(held) >= MIN_BODY_BYTES:
                held, lent = self._lender.lend_from(held, monotonic())
            self.send(Replies(held), lent)

    def send(self, message: FromWorker, lent: Sequence[LentFrame] = ()) -> None:
        """Send it, or notice that the supervisor is gone: `next_batch` looks for another.

        Raises:
            SupervisorGone: Nobody took it within SEND_DEADLINE_S, and there will be no other.
        """
        try:
            self._stream.send(codec.encode(message), lent)
        except PeerGone as error:
            self._is_orphan = True
            if not self.orphan_grace_s:
                raise SupervisorGone(f"the supervisor does not listen: {error}") from None
