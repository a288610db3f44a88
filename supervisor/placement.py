"""Which device a new worker gets.

Pure: state in, decision and state out.  Two kinds of ring decide:

    everybody     one slot per device; workers of versions without device ids
    one version   one slot per entry of its device ids, in that order; or, if its
                  workers span several devices, one slot per group of neighbours

A worker gets the slot with the fewest workers of its ring; among equals, the
next after the one used last.  So a fresh server counts 0, 1, 2, ... like the
peer, and a server that scaled down and up again is still balanced, unlike it.
Workers with device ids count on the ring of everybody too: others go where
there is less to do.

Where (which host) will be decided here as well; a placement then names it.

Source: contracts/torchserve.md 6.3 (`deviceIds`), 8.9; design section 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

VersionKey = tuple[str, str]
#: A version, its device ids and its span: one that comes back with others gets another ring.
RingKey = tuple[VersionKey, tuple[int, ...], int]


@dataclass(frozen=True, slots=True)
class Ring:
    """Devices in order, how many workers each slot has, and whose turn it is."""

    slots: tuple[int, ...]
    counts: tuple[int, ...]
    turn: int = 0

    @classmethod
    def of(cls, slots: tuple[int, ...]) -> Ring:
        return cls(slots, (0,) * len(slots))

    def next_slot(self) -> int:
        """The least used slot; among equals the first from `turn` on."""
        size = len(self.slots)
        return min(range(size), key=lambda slot: (self.counts[slot], (slot - self.turn) % size))

    def add(self, slot: int, workers: int) -> Ring:
        counts = (*self.counts[:slot], self.counts[slot] + workers, *self.counts[slot + 1 :])
        return replace(self, counts=counts)

    def after(self, slot: int) -> Ring:
        return replace(self, turn=(slot + 1) % len(self.slots))


class Request(NamedTuple):
    """A worker that needs a place.

    Attributes:
        is_gpu: The version may use GPUs (`deviceType` is not `cpu`).
        device_ids: The version's own list; () for any device.
        span: How many devices one worker takes (`parallelLevel`).
        device: The device, or first of several, that it must get; None for any.
    """

    worker_id: int
    version: VersionKey
    is_gpu: bool = True
    device_ids: tuple[int, ...] = ()
    span: int = 1
    device: int | None = None


class Placement(NamedTuple):
    """`devices` are indices into the server's devices; () is the CPU."""

    devices: tuple[int, ...] = ()
    #: Where it was counted besides `everybody`: a version's own ring and the slot in it.
    ring: RingKey | None = None
    slot: int = 0

    @property
    def device(self) -> int | None:
        """The first, or only, device."""
        return self.devices[0] if self.devices else None


@dataclass(frozen=True, slots=True)
class PlacementState:
    everybody: Ring
    versions: Mapping[RingKey, Ring] = field(default_factory=dict)
    placed: Mapping[int, Placement] = field(default_factory=dict)


def empty(devices: int) -> PlacementState:
    """Nothing placed on a host with that many devices."""
    return PlacementState(Ring.of(tuple(range(devices))))


def usable_device_ids(device_ids: Iterable[int], devices: int) -> tuple[int, ...]:
    """A version's device ids, or () for the whole list when one of them does not exist."""
    ids = tuple(device_ids)
    return ids if all(0 <= device < devices for device in ids) else ()


def groups(device_ids: tuple[int, ...], devices: int, span: int) -> tuple[tuple[int, ...], ...]:
    """What workers that take `span` devices each may get: neighbours, in order; a rest is left."""
    ids = device_ids or tuple(range(devices))
    return tuple(ids[i : i + span] for i in range(0, len(ids) - span + 1, span))


def place(state: PlacementState, request: Request) -> tuple[Placement, PlacementState]:
    """Choose a device, or a group of them, for a worker and count it there.

    Every worker placed must be released when its process is gone; a restart
    is a release and a new placement.

    Raises:
        ValueError: The worker has a place already, no group is large enough, or none is there.
    """
    if request.worker_id in state.placed:
        raise ValueError(f"worker {request.worker_id} has a place")
    if request.device is not None and request.device not in state.everybody.slots:
        raise ValueError(f"no device {request.device}")
    everybody, versions = state.everybody, state.versions
    ids = usable_device_ids(request.device_ids, len(everybody.slots))
    if not request.is_gpu or not everybody.slots:
        placement = Placement()
    elif ids or request.span > 1:
        choices = groups(ids, len(everybody.slots), request.span)
        if not choices:
            raise ValueError(f"no {request.span} devices for {request.version}")
        key = (request.version, ids, request.span)
        ring = versions.get(key) or Ring.of(tuple(group[0] for group in choices))
        slot = ring.next_slot() if request.device is None else ring.slots.index(request.device)
        versions = {**versions, key: ring.add(slot, 1).after(slot)}
        for device in choices[slot]:
            everybody = everybody.add(device, 1)
        placement = Placement(choices[slot], key, slot)
    else:
        device = everybody.next_slot() if request.device is None else request.device
        everybody = everybody.add(device, 1).after(device)
        placement = Placement((device,))
    placed = {**state.placed, request.worker_id: placement}
    return placement, PlacementState(everybody, versions, placed)


def keep(
    state: PlacementState, request: Request, devices: tuple[int, ...]
) -> tuple[Placement, PlacementState]:
    """Count a worker where it is already.

    Raises:
        LookupError: `place` would never put such a worker there.
    """
    everybody, versions = state.everybody, state.versions
    ids = usable_device_ids(request.device_ids, len(everybody.slots))
    if not request.is_gpu or not everybody.slots:
        if devices:
            raise LookupError(request.worker_id)
        placement = Placement()
    elif ids or request.span > 1:
        choices = groups(ids, len(everybody.slots), request.span)
        if devices not in choices:
            raise LookupError(request.worker_id)
        key, slot = (request.version, ids, request.span), choices.index(devices)
        ring = versions.get(key) or Ring.of(tuple(group[0] for group in choices))
        versions = {**versions, key: ring.add(slot, 1).after(slot)}
        placement = Placement(devices, key, slot)
    else:
        if len(devices) != 1 or devices[0] not in everybody.slots:
            raise LookupError(request.worker_id)
        everybody = everybody.after(devices[0])
        placement = Placement(devices)
    for device in placement.devices:
        everybody = everybody.add(device, 1)
    placed = {**state.placed, request.worker_id: placement}
    return placement, PlacementState(everybody, versions, placed)


def release(state: PlacementState, worker_id: int) -> PlacementState:
    """Give a worker's place back; a worker without one changes nothing."""
    placement = state.placed.get(worker_id)
    if placement is None:
        return state
    placed = {key: value for key, value in state.placed.items() if key != worker_id}
    everybody = state.everybody
    for device in placement.devices:
        everybody = everybody.add(device, -1)
    versions = dict(state.versions)
    if placement.ring is not None:
        ring = versions[placement.ring].add(placement.slot, -1)
        if any(ring.counts):
            versions[placement.ring] = ring
        else:
            del versions[placement.ring]
    return PlacementState(everybody, versions, placed)


def retire_order(state: PlacementState, worker_ids: Iterable[int]) -> list[int]:
    """Workers of one version in the order to retire them in, for balance.

    From the device with the most of them first; among equals the youngest
    (highest id), whose caches are the coldest.
    """
    left = list(worker_ids)
    counts: dict[int | None, int] = {}
    device_of = {}
    for worker_id in left:
        placement = state.placed.get(worker_id)
        device = device_of[worker_id] = placement.device if placement else None
        counts[device] = counts.get(device, 0) + 1
    order = []
    while left:
        worker_id = max(left, key=lambda x: (counts[device_of[x]], x))
        counts[device_of[worker_id]] -= 1
        left.remove(worker_id)
        order.append(worker_id)
    return order
