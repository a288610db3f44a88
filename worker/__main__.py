"""`python -P -m stoker.worker`: one process that loads one handler and serves it.

Started by the supervisor, never by hand: it connects to `--address`, proves
itself by the token in the environment, is told what to load, and then works
until it is told to leave or its parent dies.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stoker.death_signal import die_with, outlive_parent
from stoker.errors import ProtocolError
from stoker.exit_codes import ExitCode
from stoker.wire.arena_reader import ArenaReader
from stoker.wire.loading import BATCHES, CONTINUOUS, LoadSpec
from stoker.wire.stream import socket_path
from stoker.worker.arguments import WorkerArguments, parse_arguments
from stoker.worker.channel import Channel
from stoker.worker.context import Context
from stoker.worker.contracts.torchserve import TorchServeContract
from stoker.worker.fence import raise_fence_if_asked
from stoker.worker.in_hand import BatchInHand
from stoker.worker.load import Loaded, load, load_failure, make_context
from stoker.worker.measurements import Reporter
from stoker.worker.metrics import MetricsCache
from stoker.worker.parent import die_with_parent
from stoker.worker.process import prepare_process
from stoker.worker.serve import Contract, serve
from stoker.worker.successor import SupervisorGone

if TYPE_CHECKING:
    from stoker.worker.preload import Preloaded
    from stoker.worker.ranks import Ranks

TOKEN_VARIABLE: Final = "STOKER_WORKER_TOKEN"
LOAD_DEADLINE_S: Final = 60.0
#: Threads of the handler may keep an interpreter from ending; then it ends
#: anyhow, with a stack in the log.
EXIT_DEADLINE_S: Final = 10.0
#: Imports worth a template of their own: they take longer than a worker may be missed.
HEAVY_MODULES: Final = ("torch",)
#: `LoadSpec.contract` of an archive made for DJL Serving.
DJL: Final = "djl"
#: Of a function of a workflow in its notation.
DJL_FUNCTION: Final = "djl_function"


def main(preloaded: Preloaded | None = None) -> ExitCode:
    """The life of a worker, from its first word to its last.

    Args:
        preloaded: The model, in a fork of a process that has loaded it.
    """
    try:
        arguments = parse_arguments(sys.argv[1:])
        token = bytes.fromhex(os.environ.pop(TOKEN_VARIABLE, ""))
    except ValueError:
        arguments, token = None, b""
    if arguments is None or not token:
        sys.stderr.write("stoker: a worker is started by the supervisor, not by hand\n")
        return ExitCode.USAGE
    if not die_with_parent():
        return ExitCode.UNAVAILABLE
    prepare_process(arguments.label)
    try:
        raise_fence_if_asked()
        return _work(arguments, token, preloaded)
    except SupervisorGone as error:
        sys.stderr.write(f"stoker: {error}\n")
        return ExitCode.UNAVAILABLE
    except ProtocolError as error:
        sys.stderr.write(f"stoker: {error.message}\n")
        return ExitCode.PROTOCOL
    except BaseException:
        traceback.print_exc()
        return ExitCode.FAILURE


def _work(arguments: WorkerArguments, token: bytes, preloaded: Preloaded | None) -> ExitCode:
    """Everything between the first word and the last.  Raises SupervisorGone, ProtocolError."""
    channel = Channel(arguments.address)
    channel.stop_on(signal.SIGTERM)
    try:
        channel.say_hello(arguments.worker_id, token)
        return _load_and_serve(channel, arguments, preloaded)
    finally:
        faulthandler.dump_traceback_later(EXIT_DEADLINE_S, exit=True)
        channel.close()


def _load_and_serve(
    channel: Channel, arguments: WorkerArguments, preloaded: Preloaded | None
) -> ExitCode:
    order = channel.wait_load(LOAD_DEADLINE_S)
    if order is None:
        return ExitCode.OK
    spec = LoadSpec.from_wire(order.spec)
    if spec.orphan_grace_s > 0:
        # From here on there is something to lose.
        outlive_parent()
        channel.orphan_grace_s = spec.orphan_grace_s
    else:
        # Whose child we are may have changed since we asked first.
        die_with(None)
    if spec.ranks == 1:
        return _serve(channel, spec, arguments.address, None, preloaded)
    # Only here: few workers have more than one process, and this costs memory.
    from stoker.worker.ranks import Ranks

    ranks = Ranks(spec.ranks, arguments.label, channel.send)
    try:
        ranks.load(order.spec)
        return _serve(channel, spec, arguments.address, ranks)
    finally:
        ranks.leave()


def _serve(
    channel: Channel,
    spec: LoadSpec,
    address: str,
    ranks: Ranks | None,
    preloaded: Preloaded | None = None,
) -> ExitCode:
    context = make_context(spec) if preloaded is None else preloaded.context
    if preloaded is not None:
        # It was loaded for nobody's device and no batch in particular.
        context.system_properties.update(gpu_id=spec.gpu_id, batch_size=spec.batch_size)
    # The folder of our socket is the server's, whoever we are.
    owner = os.stat(os.path.dirname(socket_path(address))).st_uid
    arena = ArenaReader(Path(spec.arena), owner)
    started_at = time.monotonic()
    try:
        work, flaw = _open(spec, context, channel, arena, ranks, preloaded)
    except BaseException as error:
        channel.send(load_failure(spec, error))
        return ExitCode.LOAD_FAILED
    if ranks is not None:
        ranks.wait_loaded()
    channel.holds_replies = spec.is_idempotent
    # What loading left behind lives as long as the worker: the collector need
    # not look at it again and again.
    gc.collect()
    gc.freeze()
    heavy = [name for name in HEAVY_MODULES if name in sys.modules]
    if isinstance(context.metrics, MetricsCache) and context.metrics.pending is not None:
        reporter = Reporter(channel, context.metrics.pending, spec.model, time.monotonic)
        channel.errands.add(reporter)
    channel.say_loaded(
        {
            "load_s": time.monotonic() - started_at,
            "heavy": heavy,
            **({"flaw": flaw} if flaw else {}),
        }
    )
    return work()


def _open(
    spec: LoadSpec,
    context: Context,
    channel: Channel,
    arena: ArenaReader,
    ranks: Ranks | None,
    preloaded: Preloaded | None,
) -> tuple[Callable[[], ExitCode], str]:
    """Load the handler.

    Returns:
        What serves it, as its archive wants to be called; and what its start complained of.

    Raises:
        BaseException: Whatever the user's code raised.
    """
    broadcast = ranks.broadcast if ranks is not None and spec.is_broadcast else None
    # What is imported only here costs memory, and there may be hundreds of workers.
    if spec.mode != BATCHES:
        from stoker.worker.modes import work_asynchronously, work_continuously

        kind = work_continuously if spec.mode == CONTINUOUS else work_asynchronously
        entry, flaw = _loaded(spec, context, preloaded)
        return kind(channel, spec, entry, context, arena, broadcast), flaw
    in_hand = BatchInHand(channel, spec.response_timeout_s)
    contract: Contract
    if spec.contract == DJL:
        from stoker.worker.load_djl import open_djl

        contract, flaw = open_djl(spec, in_hand, arena), ""
    elif spec.contract == DJL_FUNCTION:
        from stoker.worker.load_djl import open_djl_function

        contract, flaw = open_djl_function(spec, in_hand, arena), ""
    else:
        entry, flaw = _loaded(spec, context, preloaded)
        contract = _contract_of(spec, channel)(
            entry,
            context,
            in_hand,
            decode_request=spec.decode_request,
            max_response_bytes=spec.max_response_bytes,
            may_try_twice=spec.is_idempotent,
            arena=arena,
            broadcast=broadcast,
        )
    return partial(serve, channel, contract, in_hand), flaw


def _loaded(spec: LoadSpec, context: Context, preloaded: Preloaded | None) -> Loaded:
    """Raises whatever the user's code raised."""
    return load(spec, context) if preloaded is None else preloaded.loaded


def _contract_of(spec: LoadSpec, channel: Channel) -> Callable[..., TorchServeContract]:
    if not spec.sequence_headers:
        return TorchServeContract
    # Only here: few versions have sequences.
    from stoker.worker.contracts.sequences import SequenceContract
    from stoker.worker.modes import keep_sequences

    return partial(SequenceContract, keeper=keep_sequences(channel, spec))


if __name__ == "__main__":
    sys.exit(main())
