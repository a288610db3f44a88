"""The worker's end of the wire: batches in, replies out, no threads.

A worker holds more batches than the one it works on, so that it never waits
for the supervisor.  Replies of fast handlers leave several at a time, because
waking the supervisor costs more than a fast handler does (design section 3);
a reply never waits for a slow one.

While a handler runs nobody reads the socket.  `look` is how streaming
handlers and `context.cancelled` notice messages in the meantime.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from time import monotonic
from types import FrameType
from typing import Final

import zmq

from stoker.errors import ProtocolError
from stoker.wire import codec, sockets
from stoker.wire.frames import (
    PROTOCOL,
    Drop,
    FromWorker,
    Leave,
    Load,
    Replies,
    Reply,
    ToWorker,
    Work,
    WorkBatch,
    WorkerHello,
)

#: The supervisor sends as much as it gave credit for; more than this at once
#: means it is confused, and the rest stays in the socket.
MAX_WAITING_BATCHES: Final = 1024
#: A supervisor that takes no reply for so long is not there any more.
SEND_DEADLINE_MS: Final = 30_000
#: How long the last replies may take to leave when the process ends.
LINGER_MS: Final = 2_000
#: Finished replies are held back at most this long to leave together...
HOLD_S: Final = 0.001
#: ...and only while no recent batch took longer than this.
FAST_BATCH_S: Final = 0.000_25
#: How fast the memory of a slow batch fades, per batch.
FADE: Final = 0.98


class SupervisorGone(Exception):
    """Nobody at the other end within the deadline."""


class Channel:
    """A DEALER socket and the batches that came through it."""

    def __init__(self, address: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        # The first byte is never zero: zmq keeps such identities for itself.
        identity = b"\x01" + os.urandom(7)
        self._socket = sockets.connect_dealer(self._context, address, identity)
        self._socket.setsockopt(zmq.SNDTIMEO, SEND_DEADLINE_MS)
        # A signal interrupts poll(), but pyzmq resumes it: the pipe ends it.
        self._stop_read, self._stop_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._stop_read, zmq.POLLIN)
        self._waiting: deque[WorkBatch] = deque()
        self._load: Load | None = None
        self._is_leaving = False
        self._has_looked_last = False
        self._running: WorkBatch | None = None
        self._dropped: set[bytes] = set()
        self._held: list[Reply] = []
        self._held_since = 0.0
        self._looked_at = 0.0
        self._slowest_s = 1.0
        self._started_at = 0.0

    # -- opening and closing ------------------------------------------------

    def stop_on(self, signum: signal.Signals) -> None:
        """Let a signal mean: finish what is in hand and leave."""

        def stop(_signum: int, _frame: FrameType | None) -> None:
            self._is_leaving = True
            try:
                os.write(self._stop_write, b"x")
            except BlockingIOError:
                pass

        signal.signal(signum, stop)

    def say_hello(self, worker_id: int, token: bytes) -> None:
        self.send(WorkerHello(PROTOCOL, worker_id, token, os.getpid()))

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

    def close(self) -> None:
        """Send what is left, for at most LINGER_MS."""
        try:
            self.flush()
        except SupervisorGone:
            pass
        self._socket.close(linger=LINGER_MS)
        self._context.term()
        # The process is ending already; a second wish must not look like a crash.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.close(self._stop_read)
        os.close(self._stop_write)

    # -- batches ---------------------------------------------------------------

    def next_batch(self) -> WorkBatch | None:
        """The next batch to work on; waits for it.  None: time to leave.

        Everything that arrived before it was time to leave is finished first:
        the supervisor takes what a worker held at its end for begun.
        """
        if self._waiting:
            # One look per millisecond is enough to notice Drop and Leave in
            # time, and costs a fast handler nothing.
            now = self._started_at
            if now - self._looked_at >= HOLD_S and not self._is_leaving:
                self._looked_at = now
                self.look()
        else:
            self.flush()
            self._dropped.clear()
            while not self._waiting and not self._is_leaving:
                self._wait(None)
            if self._is_leaving:
                # Whoever sent a signal may not have told the supervisor, so
                # work can be on its way; but only what is here now counts, or
                # there would be no end.
                if not self._has_looked_last:
                    self._has_looked_last = True
                    self.look()
                if not self._waiting:
                    return None
            elif self._slowest_s > FAST_BATCH_S:
                # While a slow batch ran, more may have come than one message:
                # a Drop for what is about to begin, for instance.
                self.look()
            self._started_at = self._looked_at = monotonic()
        batch = self._running = self._waiting.popleft()
        return batch

    def _wait(self, timeout_s: float | None) -> None:
        """Wait for one message, a signal, or the timeout."""
        # Asking first and receiving then is cheaper than running into EAGAIN,
        # which pyzmq makes an exception with a text.
        ready = self._poller.poll(None if timeout_s is None else int(timeout_s * 1000) + 1)
        if ready and ready[0][0] is self._socket:
            self._receive()

    def look(self) -> None:
        """Take what has arrived, without waiting."""
        socket = self._socket
        while len(self._waiting) < MAX_WAITING_BATCHES and (
            socket.getsockopt(zmq.EVENTS) & zmq.POLLIN  # type: ignore[arg-type, operator]
        ):
            self._receive()

    def _receive(self) -> None:
        try:
            frame = self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return
        self._take(codec.decode_to_worker(frame))

    def _take(self, message: ToWorker) -> None:
        if type(message) is Work:
            self._waiting += message.batches
        elif type(message) is Drop:
            in_hand = {job.job_id for batch in self._waiting for job in batch.jobs}
            if self._running is not None:
                in_hand.update(job.job_id for job in self._running.jobs)
            self._dropped.update(in_hand.intersection(message.job_ids))
        elif type(message) is Leave:
            self._is_leaving = True
        elif type(message) is Load and self._load is None:
            self._load = message
        else:
            raise ProtocolError(f"{type(message).__name__} has no business here now")

    @property
    def dropped(self) -> set[bytes]:
        """Jobs in hand whose answers are not wanted any more."""
        return self._dropped

    # -- replies ---------------------------------------------------------------

    def reply(self, reply: Reply) -> None:
        """Hand in the end of the batch in hand; it leaves now or with the next few."""
        self._running = None
        now = monotonic()
        took_s = now - self._started_at
        self._started_at = now
        slowest_s = self._slowest_s * FADE
        self._slowest_s = slowest_s = took_s if took_s > slowest_s else slowest_s
        held = self._held
        if not held:
            self._held_since = now
        held.append(reply)
        if not self._waiting or slowest_s > FAST_BATCH_S or now - self._held_since >= HOLD_S:
            self.flush()

    def reply_part(self, reply: Reply) -> None:
        """An intermediate reply: leaves at once."""
        self._held.append(reply)
        self.flush()

    def flush(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self.send(Replies(held))

    def send(self, message: FromWorker) -> None:
        """Raises SupervisorGone when nobody takes it within SEND_DEADLINE_MS."""
        frame = codec.encode(message)
        try:
            self._socket.send(frame, 0, not sockets.is_worth_sharing(frame))
        except zmq.Again:
            raise SupervisorGone("the supervisor does not read") from None
