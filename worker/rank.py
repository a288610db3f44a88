"""`python -P -m stoker.worker.rank`: one more process of a worker; started by its rank 0.

It loads the same handler, handles what it is given, and answers nobody: what
the handler returns counts in rank 0 alone.  It ends when rank 0 hangs up.
"""

from __future__ import annotations

import argparse
import gc
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from types import GeneratorType
from typing import Any

from stoker.death_signal import die_with
from stoker.exit_codes import ExitCode
from stoker.wire.loading import LoadSpec
from stoker.worker.context import Context
from stoker.worker.contracts import values
from stoker.worker.contracts.torchserve import Entry
from stoker.worker.load import load, load_failure, make_context
from stoker.worker.process import prepare_process
from stoker.worker.rank_link import FAILED, LOADED, RankLink
from stoker.worker.request import Request


def main() -> ExitCode:
    arguments = _parse(sys.argv[1:])
    if not die_with(arguments.parent):
        return ExitCode.UNAVAILABLE
    prepare_process(arguments.label)
    # Rank 0 decides; a signal to the group must not end half of it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link = RankLink(socket.socket(fileno=arguments.fd))
    try:
        return _load_and_follow(link, arguments.rank)
    except OSError:  # rank 0 is gone
        return ExitCode.UNAVAILABLE


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="stoker.worker.rank", description=__doc__)
    for name in ("fd", "parent", "rank"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--label", required=True, help="number, model:version and rank, for ps")
    return parser.parse_args(argv)


def _load_and_follow(link: RankLink, rank: int) -> ExitCode:
    order = link.receive()
    if order is None:
        return ExitCode.OK
    spec = LoadSpec.from_wire(order[1])
    if spec.gpu_id is not None:
        spec = replace(spec, gpu_id=rank)
    context = make_context(spec)
    try:
        entry = load(spec, context).entry
    except BaseException as error:
        failure = load_failure(spec, error)
        link.send(FAILED, failure.code, failure.message, failure.last_line)
        return ExitCode.LOAD_FAILED
    gc.collect()
    gc.freeze()
    link.send(LOADED)
    context.cl_socket = Nobody()
    while (message := link.receive()) is not None:
        try:
            _handle(entry, context, message[1], spec.decode_request)
        except Exception:
            # Rank 0 has met the same, and answers for it.
            traceback.print_exc()
    return ExitCode.OK


def _handle(
    entry: Entry, context: Context, payloads: Sequence[bytes], decode_request: bool
) -> None:
    requests = [Request(payload) for payload in payloads]
    context.begin_batch(requests)
    outcome = entry([values.read(request, decode_request) for request in requests], context)
    for item in [outcome, *(outcome if isinstance(outcome, list) else ())]:
        if isinstance(item, GeneratorType):
            # What streams in rank 0 has to run here as well.
            for _ in item:
                pass
    criteria = context.stopping_criteria
    if criteria is not None and isinstance(outcome, list):
        # Only rank 0 is interested in what they say; but they may clear up.
        for is_last, item in zip(criteria, outcome, strict=False):
            is_last(item)


class Nobody:
    """`context.cl_socket`: only rank 0 sends anything (2.7)."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Nobody:
        return self

    def send_step(self, pieces: Any) -> None:
        """Thrown away."""

    def sendall(self, data: bytes) -> None:
        """Thrown away."""


if __name__ == "__main__":
    sys.exit(main())
