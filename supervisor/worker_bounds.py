"""How many workers a scale call wants of a version, in all and on each device."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from stoker.archives.devices import parse_devices
from stoker.errors import InvalidParameter
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.crews import Crew
from stoker.supervisor.device_groups import Group, changed, even_groups


class WorkerBounds(NamedTuple):
    """`groups` is empty where the call does not count by device."""

    min_workers: int
    max_workers: int
    groups: tuple[Group, ...] = ()


def wanted_bounds(crew: Crew, devices: Collection[int], arguments: Arguments) -> WorkerBounds:
    """What a call leaves out stays as it is, but for the sake of what it says.

    Args:
        devices: Those that workers of the version may be on.

    Raises:
        InvalidParameter: Impossible numbers, or a device that the version does not use.
    """
    least = arguments.optional("min_workers", int)
    most = arguments.optional("max_workers", int)
    named = _named_devices(crew, devices, arguments)
    if not arguments.flag("per_device") or not crew.spec.group_devices:
        return _in_all(crew, least, most)
    groups = crew.groups
    if groups[0].device is None:
        groups = even_groups(crew.spec.group_devices, crew.min_workers, crew.max_workers)
    groups = changed(groups, named, least, most)
    for group in groups:
        _check_range(group.min_workers, group.max_workers)
    low, high = sum(g.min_workers for g in groups), sum(g.max_workers for g in groups)
    return WorkerBounds(low, high, groups)


def _in_all(crew: Crew, least: int | None, most: int | None) -> WorkerBounds:
    if most is None:
        most = max(crew.max_workers, least or 0)
    if least is None:
        least = min(crew.min_workers, most)
    _check_range(least, most)
    return WorkerBounds(least, most)


def _named_devices(crew: Crew, devices: Collection[int], arguments: Arguments) -> tuple[int, ...]:
    """The devices that a call is about; () for all."""
    named = arguments.optional("devices", str)
    if named is None:
        return ()
    kind, ids = parse_devices(named)
    if kind not in (None, crew.spec.device_type) or not set(ids) <= set(devices):
        raise InvalidParameter(
            "Parameter device names one that the model was not registered for.",
            parameter="device",
        )
    return ids


def _check_range(least: int, most: int) -> None:
    if least < 0 or most < least:
        raise InvalidParameter("max_worker cannot be less than min_worker.", parameter="max_worker")
