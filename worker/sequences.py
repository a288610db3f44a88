"""The sequences that live in this worker: which they are, and when one of them ends.

The supervisor decides where a sequence lives; this worker knows which ones
have had a request here and have not ended since, so that a successor of a
supervisor that died can be told.  It closes by the same limits as the supervisor does.

Source: contracts/torchserve.md 8.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from stoker.wire.sequence_labels import (
    MAX_KNOWN,
    SequenceHeaders,
    SequenceLabel,
    read_label,
)
from stoker.worker.request import Request

#: Between two looks at what is idle, in requests.
SWEEP_EVERY: Final = 1024


class LivingSequences:
    """Name of each, with when it was opened and when it last had a request.

    Args:
        headers: As the settings spell them.
        timeout_s: 0: sequences grow as old as they like.
    """

    def __init__(self, headers: SequenceHeaders, max_idle_s: float, timeout_s: float) -> None:
        self.headers = headers
        self._lowered = headers.lowered()
        self._max_idle_s = max_idle_s
        self._timeout_s = timeout_s
        self._living: dict[str, list[float]] = {}
        self._until_sweep = SWEEP_EVERY

    def label(self, job_id: bytes, request: Request) -> SequenceLabel:
        """What a request says; one without a name gets one, which its handler finds (8.7)."""
        label = read_label(self._lowered, job_id, request.header_texts)
        if label.is_made:
            assert label.name is not None
            request.add_headers({self.headers.name: label.name, self.headers.start: "true"})
        return label

    def begin(self, labels: Iterable[SequenceLabel], now: float) -> None:
        """These are about to be handled."""
        living = self._living
        for label in labels:
            if label.name is None:
                continue
            known = living.get(label.name)
            if known is None or self._is_over(known, now):
                living[label.name] = [now, now]
            self._until_sweep -= 1
        if self._until_sweep <= 0 or len(living) > MAX_KNOWN:
            self._until_sweep = SWEEP_EVERY
            self.rows(now)
            while len(living) > MAX_KNOWN:
                del living[next(iter(living))]

    def finish(
        self, labels: Sequence[SequenceLabel], ended: Iterable[str], now: float
    ) -> list[str]:
        """They have been handled.

        Args:
            ended: Names of sequences that the handler has ended.

        Returns:
            Those of them that lived here.
        """
        living = self._living
        for label in labels:
            if label.name in living:
                living[label.name][1] = now
                if label.is_end:
                    del living[label.name]
        told = []
        for name in dict.fromkeys(ended):
            is_of_batch = any(label.name == name for label in labels)
            if living.pop(name, None) is not None or is_of_batch:
                told.append(name)
        return told

    def rows(self, now: float) -> list[list[Any]]:
        """Those that live, as `frames.WorkerBack` has them."""
        for name, known in list(self._living.items()):
            if self._is_over(known, now):
                del self._living[name]
        return [[name, *known] for name, known in self._living.items()]

    def _is_over(self, known: list[float], now: float) -> bool:
        opened_at, quiet_since = known
        is_old = self._timeout_s > 0 and now - opened_at >= self._timeout_s
        return is_old or now - quiet_since >= self._max_idle_s
