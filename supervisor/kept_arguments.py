"""What is kept of a register call, so that a restart serves the same version.

    register call -> kept_arguments -> DesiredVersion -> journal
    journal -> DesiredVersion -> archive_request -> the archive, as it was asked for
    scale call -> retuned -> what was kept, changed

Names and worker counts are kept beside it, in columns of their own
(`desired.py`); what is about the call alone is not kept.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Final

from stoker.archives.archive import ArchiveRequest, ResolvedArchive
from stoker.errors import InvalidParameter
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.desired import DesiredState, DesiredVersion, Edit, Plain, PutVersion
from stoker.supervisor.device_groups import Group, from_text, to_text
from stoker.supervisor.versions import VersionKey, VersionSpec

KEPT_ARGUMENTS: Final = (
    "url",
    "handler",
    "runtime",
    "batch_size",
    "max_batch_delay_s",
    "response_timeout_s",
    "startup_timeout_s",
    "s3_sse_kms",
    "queue_capacity",
    "max_idle_s",
    "queue_wait_target_s",
    "required_memory_mb",
    "reserved_memory_mb",
    "devices",
    "per_device",
    "engine",
    "is_unversioned",
    "preload",
    "number_gpu",
)
#: Kept beside them: the bounds of each device, where a scale call said them.
GROUP_BOUNDS: Final = "group_bounds"
#: Of those, what a scale call may change.
TUNED_ARGUMENTS: Final = ("batch_size", "max_batch_delay_s", "max_idle_s", "number_gpu")
MAX_KEPT_CHARACTERS: Final = 64 * 1024


def kept_arguments(arguments: Arguments) -> dict[str, Plain]:
    """What a register call states of its version.  Raises InvalidParameter."""
    asked = arguments.stated(KEPT_ARGUMENTS)
    check_length(asked)
    return asked


def check_length(asked: dict[str, Plain]) -> None:
    """Raises InvalidParameter: A row is read at every start, and frontends are not trusted."""
    if len(json.dumps(asked)) > MAX_KEPT_CHARACTERS:
        raise InvalidParameter("The parameters are too long.", parameter="url")


def desired_version(
    archive: ResolvedArchive,
    asked: dict[str, Plain],
    counts: tuple[int, int],
    item: str | None = None,
    configured_workers: str = "",
) -> DesiredVersion:
    """What should be served from now on, of an archive and what was asked for."""
    return DesiredVersion(
        model=archive.model,
        version=archive.version,
        min_workers=counts[0],
        max_workers=counts[1],
        asked=asked,
        content_hash=archive.content_hash,
        item=item,
        configured_workers=configured_workers,
        registered_at=time.time(),
    )


def archive_request(desired: DesiredVersion, default_handler: str) -> ArchiveRequest:
    """How to get the archive of a version that was registered before."""
    asked = Arguments(dict(desired.asked))
    return ArchiveRequest(
        url=asked.optional("url", str),
        model=desired.model,
        version=desired.version,
        handler=asked.optional("handler", str),
        runtime=asked.optional("runtime", str),
        s3_sse_kms=asked.flag("s3_sse_kms"),
        default_handler=default_handler,
        engine=asked.optional("engine", str),
        takes_store=desired.item is not None,
        known_hash=desired.content_hash,
    )


def kept_groups(spec: VersionSpec, desired: DesiredVersion) -> tuple[Group, ...]:
    """The bounds of each device; () where nothing else than the sum was said since."""
    groups = from_text(str(desired.asked.get(GROUP_BOUNDS, "")), spec.group_devices)
    sums = (sum(g.min_workers for g in groups), sum(g.max_workers for g in groups))
    return groups if sums == (desired.min_workers, desired.max_workers) else ()


def retuned(
    state: DesiredState, key: VersionKey, arguments: Arguments, groups: tuple[Group, ...] = ()
) -> list[Edit]:
    """What a scale call says of batches, idle workers and devices, as edits of what is kept."""
    known = state.versions.get(key)
    if known is None:
        return []
    asked = {**known.asked, **arguments.stated(TUNED_ARGUMENTS)}
    asked.pop(GROUP_BOUNDS, None)
    if groups:
        asked[GROUP_BOUNDS] = to_text(groups)
    return [] if asked == known.asked else [PutVersion(replace(known, asked=asked))]
