"""Which sequence a request belongs to: read from its headers, by both who pins and who works.

A client names its sequence in a header.  Where it names none the sequence is
new, and its name follows from the job's id: supervisor, worker and a later
supervisor come to the same one without telling each other.

Source: contracts/torchserve.md 8.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

#: What the peer calls sequences whose clients have no name for them.
MADE_PREFIX: Final = "ts-seq-"
#: A name longer than this is refused: it is kept for as long as the sequence lives.
MAX_NAME_BYTES: Final = 256
#: Sequences of one version at a time, and so the most that a worker can know.
MAX_KNOWN: Final = 65_536
_UNSAID: Final = frozenset({"", "false", "0"})


class SequenceHeaders(NamedTuple):
    """What the three headers are called (`ts_header_key_sequence_id`, `_start`, `_end`)."""

    name: str = "ts_request_sequence_id"
    start: str = "ts_request_sequence_start"
    end: str = "ts_request_sequence_end"

    def lowered(self) -> SequenceHeaders:
        return SequenceHeaders(*(header.lower() for header in self))


DEFAULT_HEADERS: Final = SequenceHeaders()


class SequenceLabel(NamedTuple):
    """What a request says of its sequence.

    Attributes:
        name: None: it belongs to no sequence; it asks the handler about itself.
        is_start: It is the first; whatever there was under that name is over.
        is_end: It is the last.
        is_made: Its client has no name for it.
    """

    name: str | None
    is_start: bool = False
    is_end: bool = False
    is_made: bool = False


def made_name(job_id: bytes) -> str:
    return MADE_PREFIX + str(UUID(bytes=job_id))


def is_made_name(name: str) -> bool:
    """Only a server gives such names."""
    return name.startswith(MADE_PREFIX)


def read_label(headers: SequenceHeaders, job_id: bytes, texts: Sequence[str]) -> SequenceLabel:
    """What the headers of a request say.

    Args:
        headers: Lowered.
        texts: name, value, name, value ...; of two with the same name the last counts.
    """
    said = dict.fromkeys(headers, "")
    is_question = False
    for i in range(0, len(texts), 2):
        name = texts[i].lower()
        if name in said:
            said[name] = texts[i + 1].strip()
        elif name == "describe":
            is_question = texts[i + 1] == "True"
    if is_question:
        return SequenceLabel(None)
    is_end = said[headers.end].lower() not in _UNSAID
    if name := said[headers.name]:
        return SequenceLabel(name, said[headers.start].lower() not in _UNSAID, is_end)
    return SequenceLabel(made_name(job_id), is_start=True, is_end=is_end, is_made=True)
