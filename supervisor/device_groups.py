"""The workers of one version by device: how many there may be on each, and who grows first.

    pool      the queue of a version
    group     its workers on one device, between a minimum and a maximum of their own
    worker    one process

A version whose bounds were said for each device has a group for every one;
any other has one group, whose workers `placement.py` spreads.

Source: contracts/djl-serving.md 6.1, 6.5; the architecture page of DJL Serving.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_TEXT: Final = re.compile(r"(\d{1,4}):(\d{1,5})-(\d{1,5})")


class Group(NamedTuple):
    """`device` is an index into the server's devices; None: wherever there is room."""

    device: int | None
    min_workers: int
    max_workers: int


def even_groups(devices: Sequence[int], min_workers: int, max_workers: int) -> tuple[Group, ...]:
    """As many on each device as on the others, and one more on the first where it does not go."""
    return tuple(
        Group(device, _part(min_workers, place, devices), _part(max_workers, place, devices))
        for place, device in enumerate(devices)
    )


def _part(total: int, place: int, devices: Sequence[int]) -> int:
    return total // len(devices) + (place < total % len(devices))


def share_out(
    groups: Sequence[Group], counts: Mapping[int | None, int], wanted: int
) -> dict[int | None, int]:
    """How many workers each group shall have, of `wanted` in all.

    Who has room for the most grows first, and who has the most to spare goes
    first; beyond the bounds nobody does.

    Args:
        counts: How many there are now.
    """
    if len(groups) == 1:
        return {groups[0].device: wanted}
    shares = {
        group.device: min(max(counts.get(group.device, 0), group.min_workers), group.max_workers)
        for group in groups
    }
    while sum(shares.values()) < wanted:
        roomiest = max(groups, key=lambda group: group.max_workers - shares[group.device])
        if shares[roomiest.device] >= roomiest.max_workers:
            break
        shares[roomiest.device] += 1
    while sum(shares.values()) > wanted:
        fullest = max(groups, key=lambda group: shares[group.device] - group.min_workers)
        if shares[fullest.device] <= fullest.min_workers:
            break
        shares[fullest.device] -= 1
    return shares


def changed(
    groups: Sequence[Group], devices: Sequence[int], least: int | None, most: int | None
) -> tuple[Group, ...]:
    """Other bounds for some of the devices; what is not named stays, but for the sake of the other.

    Args:
        devices: Which ones; () for all.
    """

    def change(group: Group) -> Group:
        if devices and group.device not in devices:
            return group
        high = max(group.max_workers, least or 0) if most is None else most
        low = min(group.min_workers, high) if least is None else least
        return Group(group.device, low, high)

    return tuple(map(change, groups))


def to_text(groups: Sequence[Group]) -> str:
    """As it is kept: `0:1-2,1:1-4`."""
    return ",".join(f"{group.device}:{group.min_workers}-{group.max_workers}" for group in groups)


def from_text(text: str, devices: Sequence[int]) -> tuple[Group, ...]:
    """() if it is not about just these devices: others were there when it was written."""
    matches = [_TEXT.fullmatch(part) for part in text.split(",")]
    groups = tuple(Group(*map(int, match.groups())) for match in matches if match)
    is_usable = [group.device for group in groups] == list(devices)
    return groups if is_usable and len(groups) == len(matches) else ()
