"""Which sequences are open, where each of them lives, and what of it waits.

A sequence is a row of requests of which every one needs what the ones before
left in their worker.  So all of them go to one worker, one after the other:

    opened --pinned--> lives in a worker --idle, too old, ended--> closed
                             |
                             +--the worker is gone--> lost

What comes under the name of a closed sequence is new.  What comes under the
name of a lost one is refused, for as long as the sequence could have lived,
unless its client says that it starts anew: it must never reach a worker that
has not its state and would answer all the same.

A successor of a supervisor that died knows no sequence.  The workers that
come back say which ones live in them; while one is still on its way, or has
died with what it knew, an unknown name is not taken for a new one.

Source: contracts/torchserve.md 8.7; issue "TorchServe's whole REST contract", item 7.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, NamedTuple

from stoker.supervisor.jobs import Job
from stoker.wire.sequence_labels import (
    DEFAULT_HEADERS,
    SequenceHeaders,
    SequenceLabel,
    is_made_name,
)

#: Names of lost sequences that one version remembers; the oldest goes first.
MAX_LOST: Final = 65_536
#: Looks at sequences that have ended, before they are cleared away.
SPARE_LOOKS: Final = 1024
_FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class SequencePolicy:
    """What an archive says of its sequences.

    Attributes:
        max_idle_s: A sequence without a job for so long is closed.
        timeout_s: One that is so old is closed; 0: never.
        max_open: Sequences at a time; at least as many as its workers' batches have room for.
        max_waiting: Jobs of one sequence that wait, beside the one in hand.
        headers: What its clients call the three headers.
    """

    max_idle_s: float
    timeout_s: float = 0.0
    max_open: int = 1
    max_waiting: int = 1
    headers: SequenceHeaders = DEFAULT_HEADERS


class KnownSequence(NamedTuple):
    """What a worker says of a sequence that lives in it; instants of the one clock there is."""

    name: str
    opened_at: float
    quiet_since: float


class _Place(NamedTuple):
    """Where a job of a sequence stands, and what it says."""

    sequence: OpenSequence
    is_start: bool
    is_end: bool


class OpenSequence:
    """One open sequence.

    Attributes:
        worker_id: Where it lives; None until its first job is due.
        quiet_since: Since when, at the latest, it has had no job.
        waiting: Its jobs, in order; the first is the next one.
        in_hand: The job that its worker has; the next one waits for that.
        has_state: Its worker has finished one of its jobs.
        is_ending: What is in hand is the last of it.
    """

    __slots__ = (
        "has_state",
        "in_hand",
        "is_ending",
        "name",
        "opened_at",
        "quiet_since",
        "waiting",
        "worker_id",
    )

    def __init__(self, name: str, opened_at: float) -> None:
        self.name = name
        self.opened_at = opened_at
        self.quiet_since = opened_at
        self.worker_id: int | None = None
        self.waiting: deque[Job] = deque()
        self.in_hand: Job | None = None
        self.has_state = False
        self.is_ending = False

    @property
    def is_due(self) -> bool:
        return bool(self.waiting) and self.in_hand is None


class Home:
    """The sequences that live in one worker.

    Attributes:
        due: Those whose next job may be sent, in the order in which it could be.
    """

    __slots__ = ("due", "sequences")

    def __init__(self) -> None:
        self.sequences: dict[str, OpenSequence] = {}
        self.due: dict[str, OpenSequence] = {}

    def __len__(self) -> int:
        return len(self.sequences)


class Sequences:
    """Those of one version.  Whoever is turned away by a change is returned: tell it.

    Attributes:
        homes: By worker; a worker that may get no new ones is there as well.
        homeless: Due, and not pinned yet.
        lost_count: Sequences that went with their worker, ever.
    """

    def __init__(self, policy: SequencePolicy) -> None:
        self.homes: dict[int, Home] = {}
        self.homeless: dict[str, OpenSequence] = {}
        self.lost_count = 0
        self._policy = policy
        self._open: dict[str, OpenSequence] = {}
        self._places: dict[bytes, _Place] = {}
        #: When to look whether each has ended by itself: a heap, with a number for ties.
        self._looks: list[tuple[float, int, OpenSequence]] = []
        self._opened = 0
        self._swept_at = 0.0
        #: Until when each is remembered, in that order.
        self._lost: dict[str, float] = {}
        self._newly_lost: dict[str, None] = {}
        #: Until when an unknown name may be that of a sequence nobody can know of.
        self._doubt_until = 0.0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenSequence]:
        return iter(self._open.values())

    def find(self, name: str | None) -> OpenSequence | None:
        return None if name is None else self._open.get(name)

    # -- jobs in ------------------------------------------------------------------

    def is_lost(self, label: SequenceLabel, now: float) -> bool:
        """Whether a name that is not open may have state somewhere that is gone."""
        name = label.name
        if label.is_start or name is None:
            return False
        if self._doubt_until == _FOREVER:
            self._doubt_until = now + self._policy.max_idle_s
        return name in self._lost or name in self._newly_lost or now < self._doubt_until

    def is_over(self, label: SequenceLabel) -> bool:
        """Whether a name that is not open is one that was given to a sequence by a server."""
        name = label.name
        return name is not None and not label.is_start and is_made_name(name)

    def accepts(self, sequence: OpenSequence, label: SequenceLabel) -> bool:
        """False behind the end of it, unless something new begins under its name."""
        if label.is_start:
            return True
        before = sequence.waiting[-1] if sequence.waiting else sequence.in_hand
        if before is None:
            return True
        is_last = sequence.is_ending and before is sequence.in_hand
        return not (is_last or self._places[before.job_id].is_end)

    def has_room(self, sequence: OpenSequence, job: Job) -> bool:
        """What a dead supervisor had let in has a place of its own."""
        most = self._policy.max_waiting
        return len(sequence.waiting) < (2 * most if job.is_sent_again else most)

    def put(self, job: Job, label: SequenceLabel) -> OpenSequence:
        """Let a job wait in its sequence, which is opened if it is not."""
        assert label.name is not None
        sequence = self._open.get(label.name)
        if sequence is None:
            sequence = self._open_new(label.name, job.arrived_at)
        waiting = sequence.waiting
        at = len(waiting)
        if job.is_sent_again:
            # A dead supervisor had it before anybody said the others to us.
            while at and not waiting[at - 1].is_sent_again:
                at -= 1
        waiting.insert(at, job)
        self._places[job.job_id] = _Place(sequence, label.is_start, label.is_end)
        self._note_due(sequence)
        return sequence

    def _open_new(self, name: str, opened_at: float) -> OpenSequence:
        sequence = self._open[name] = OpenSequence(name, opened_at)
        self._look_later(sequence)
        return sequence

    def _look_later(self, sequence: OpenSequence) -> None:
        """At the earliest when it may be idle for too long, or too old."""
        policy = self._policy
        at = sequence.quiet_since + policy.max_idle_s
        if policy.timeout_s:
            at = min(at, sequence.opened_at + policy.timeout_s)
        self._opened += 1
        heappush(self._looks, (at, self._opened, sequence))

    def _note_due(self, sequence: OpenSequence) -> None:
        if not sequence.is_due:
            return
        if sequence.worker_id is None:
            self.homeless.setdefault(sequence.name, sequence)
        else:
            home = self.homes[sequence.worker_id]
            home.due.setdefault(sequence.name, sequence)

    # -- jobs out -----------------------------------------------------------------

    def opening(self, sequence: OpenSequence) -> SequenceLabel:
        """What the next of its jobs says, of one that nobody has done anything for."""
        return SequenceLabel(sequence.name, self._places[sequence.waiting[0].job_id].is_start)

    def pin(self, sequence: OpenSequence, worker_id: int) -> None:
        """From now on it lives there."""
        self.homeless.pop(sequence.name, None)
        sequence.worker_id = worker_id
        home = self.homes.setdefault(worker_id, Home())
        home.sequences[sequence.name] = sequence
        self._note_due(sequence)

    def take(self, sequence: OpenSequence) -> Job:
        """Its next job, for its worker's hand."""
        job = sequence.waiting.popleft()
        sequence.in_hand = job
        if self._places[job.job_id].is_start:
            self._lost.pop(sequence.name, None)
            self._newly_lost.pop(sequence.name, None)
        assert sequence.worker_id is not None
        del self.homes[sequence.worker_id].due[sequence.name]
        return job

    def drop(self, job: Job) -> None:
        """A job has ended.  In a worker's hand it holds its place till its batch is done."""
        place = self._places.get(job.job_id)
        if place is None or place.sequence.in_hand is job:
            return
        sequence = place.sequence
        del self._places[job.job_id]
        sequence.waiting.remove(job)
        sequence.quiet_since = max(sequence.quiet_since, self._swept_at)
        if not sequence.has_state and sequence.in_hand is None:
            # Nobody has done anything for it.  If this was to start it, what is behind may not.
            self._remove(sequence)
            if sequence.waiting:
                sequence.worker_id = None
                self._open[sequence.name] = self.homeless[sequence.name] = sequence
        elif not sequence.waiting and sequence.worker_id is not None:
            self.homes[sequence.worker_id].due.pop(sequence.name, None)

    def finish(self, job: Job, now: float) -> list[Job]:
        """The batch of a job is done, whatever became of the job.  Returns who is turned away."""
        place = self._places.pop(job.job_id, None)
        if place is None:
            return []
        sequence = place.sequence
        sequence.in_hand = None
        sequence.quiet_since = now
        sequence.has_state = True
        if place.is_end or sequence.is_ending:
            return self._close(sequence)
        self._note_due(sequence)
        return []

    # -- ends ---------------------------------------------------------------------

    def end(self, worker_id: int, names: Iterable[str]) -> list[Job]:
        """Their handler has ended these.  Returns who is turned away."""
        home = self.homes.get(worker_id)
        turned_away: list[Job] = []
        for name in names:
            sequence = None if home is None else home.sequences.get(name)
            if sequence is not None:
                turned_away += self._close(sequence)
        return turned_away

    def sweep(self, now: float) -> list[Job]:
        """Close what is idle or too old, forget what is lost for long.  Returns who is turned away.

        What is in hand is finished.
        """
        policy = self._policy
        turned_away: list[Job] = []
        self._swept_at = now
        for _ in range(len(self._looks)):
            if self._looks[0][0] > now:
                break
            _, _, sequence = heappop(self._looks)
            if self._open.get(sequence.name) is not sequence:
                continue
            is_busy = bool(sequence.waiting) or sequence.in_hand is not None
            if is_busy:
                sequence.quiet_since = now
            # The very sums that `_look_later` takes, or it would be looked at for ever.
            is_old = policy.timeout_s > 0 and sequence.opened_at + policy.timeout_s <= now
            if is_old or sequence.quiet_since + policy.max_idle_s <= now:
                turned_away += self._close(sequence)
            if self._open.get(sequence.name) is sequence and not sequence.is_ending:
                self._look_later(sequence)
        if len(self._looks) > 2 * len(self._open) + SPARE_LOOKS:
            # Most are of sequences that were ended long before they could be idle.
            self._looks.clear()
            for sequence in self._open.values():
                self._look_later(sequence)
        self._forget_lost(now)
        return turned_away

    def _forget_lost(self, now: float) -> None:
        lost = self._lost
        while lost and lost[name := next(iter(lost))] <= now:
            del lost[name]
        for name in self._newly_lost:
            lost.pop(name, None)
            lost[name] = now + self._policy.max_idle_s
        self._newly_lost.clear()
        while len(lost) > MAX_LOST:
            del lost[next(iter(lost))]

    def reject(self, sequence: OpenSequence) -> list[Job]:
        """It has no worker and may get none.  Returns who is turned away."""
        return self._close(sequence)

    def _close(self, sequence: OpenSequence) -> list[Job]:
        """It ends, now or with what is in hand.

        What waits behind the end is turned away, up to where its client starts anew.
        """
        waiting = sequence.waiting
        turned_away: list[Job] = []
        while waiting and not self._places[waiting[0].job_id].is_start:
            job = waiting.popleft()
            del self._places[job.job_id]
            turned_away.append(job)
        if sequence.in_hand is not None:
            sequence.is_ending = True
            return turned_away
        self._remove(sequence)
        if waiting:
            # Counted from now: it could not begin before.
            again = self._open_new(sequence.name, max(waiting[0].arrived_at, self._swept_at))
            again.waiting = waiting
            for job in waiting:
                self._places[job.job_id] = self._places[job.job_id]._replace(sequence=again)
            self._note_due(again)
        return turned_away

    def _remove(self, sequence: OpenSequence) -> None:
        name = sequence.name
        del self._open[name]
        self.homeless.pop(name, None)
        if sequence.worker_id is not None:
            home = self.homes[sequence.worker_id]
            del home.sequences[name]
            home.due.pop(name, None)

    # -- workers that go, and come back -----------------------------------------------

    def lose(self, worker_id: int) -> list[Job]:
        """Its state is gone, or nobody will ask for it any more.  Returns what waited for it.

        What such a worker has in hand may still be answered.
        """
        home = self.homes.pop(worker_id, None)
        turned_away: list[Job] = []
        for sequence in () if home is None else home.sequences.values():
            del self._open[sequence.name]
            is_last, has_state, job = sequence.is_ending, sequence.has_state, sequence.in_hand
            if job is not None:
                is_last = self._places.pop(job.job_id).is_end or is_last
                # Its answer may still come.
                has_state = has_state or not job.has_ended
            if has_state and not is_last:
                self.lost_count += 1
                self._newly_lost[sequence.name] = None
            for job in sequence.waiting:
                del self._places[job.job_id]
                turned_away.append(job)
        return turned_away

    def doubt(self) -> None:
        """A worker is gone of which nobody knows what lived in it."""
        self._doubt_until = _FOREVER

    def take_back(self, worker_id: int, known: Iterable[KnownSequence], now: float) -> None:
        """A predecessor's worker is here, and these live in it."""
        self.homes.setdefault(worker_id, Home())
        for name, opened_at, quiet_since in known:
            sequence = self._open.get(name)
            if sequence is not None and sequence.worker_id is not None:
                if sequence.quiet_since >= quiet_since:
                    continue  # it has lived there as well, before
                self._move(sequence, worker_id)
            elif sequence is not None:
                self.pin(sequence, worker_id)
            else:
                sequence = self._open[name] = OpenSequence(name, opened_at)
                self.pin(sequence, worker_id)
            sequence.opened_at = min(opened_at, now)
            sequence.quiet_since = min(quiet_since, now)
            sequence.has_state = True
            self._look_later(sequence)

    def _move(self, sequence: OpenSequence, worker_id: int) -> None:
        """The other worker's state is older; only before either has had a job from us."""
        assert sequence.worker_id is not None
        home = self.homes[sequence.worker_id]
        del home.sequences[sequence.name]
        home.due.pop(sequence.name, None)
        self.pin(sequence, worker_id)
