"""The two ways to work on many requests at once, and sequences, put together from what was loaded.

Source: contracts/torchserve.md 8.7 and 8.8.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from stoker.exit_codes import ExitCode
from stoker.wire.arena_reader import ArenaReader
from stoker.wire.loading import LoadSpec
from stoker.wire.sequence_labels import SequenceHeaders
from stoker.worker.channel import Channel
from stoker.worker.context import Context
from stoker.worker.contracts.torchserve import Broadcast, Entry
from stoker.worker.in_hand import BatchInHand

if TYPE_CHECKING:
    from stoker.worker.contracts.sequences import Keeper


def work_continuously(
    channel: Channel,
    spec: LoadSpec,
    entry: Entry,
    context: Context,
    arena: ArenaReader,
    broadcast: Broadcast | None,
) -> Callable[[], ExitCode]:
    """`continuousBatching`: the handler is called step by step with whoever is there."""
    from stoker.worker.contracts.continuous import ContinuousContract
    from stoker.worker.running import RunningBatch, RunsInHand, serve_running

    in_hand = RunsInHand(channel, spec.response_timeout_s)
    kind: Callable[..., ContinuousContract] = ContinuousContract
    if spec.sequence_headers:
        from stoker.worker.contracts.sequences import ContinuousSequenceContract

        kind = partial(ContinuousSequenceContract, keeper=keep_sequences(channel, spec))
    contract = kind(
        entry,
        context,
        in_hand,
        decode_request=spec.decode_request,
        max_response_bytes=spec.max_response_bytes,
        broadcast=broadcast,
    )
    running = RunningBatch(channel, in_hand, spec.jobs_at_once, arena)
    return lambda: serve_running(channel, contract, running)


def keep_sequences(channel: Channel, spec: LoadSpec) -> Keeper:
    """For a version with sequences, and for the successor of a supervisor that dies."""
    from stoker.worker.contracts.sequences import Keeper
    from stoker.worker.sequences import LivingSequences

    headers = SequenceHeaders(*spec.sequence_headers)
    living = LivingSequences(headers, spec.sequence_max_idle_s, spec.sequence_timeout_s)
    channel.sequences = lambda: living.rows(monotonic())
    return Keeper(living, channel.send)


def work_asynchronously(
    channel: Channel,
    spec: LoadSpec,
    entry: Entry,
    context: Context,
    arena: ArenaReader,
    broadcast: Broadcast | None,
) -> Callable[[], ExitCode]:
    """`asyncCommunication`: every request is a call of its own on one event loop."""
    from stoker.worker.asynchronous import AsyncServer
    from stoker.worker.contracts.asynchronous import AsyncContract

    def make_contract(own: Context, in_hand: BatchInHand) -> AsyncContract:
        return AsyncContract(
            entry,
            own,
            in_hand,
            decode_request=spec.decode_request,
            max_response_bytes=spec.max_response_bytes,
        )

    server = AsyncServer(
        channel, context, make_contract, spec.jobs_at_once, spec.response_timeout_s, arena
    )
    return server.serve
