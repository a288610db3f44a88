"""The command line of a worker, as the supervisor writes it.

Not argparse: importing and using it costs half a megabyte in every worker,
and nobody types this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class WorkerArguments(NamedTuple):
    """`label` is the number and model:version that `ps` shows."""

    worker_id: int
    address: str
    label: str


def parse_arguments(argv: Sequence[str]) -> WorkerArguments:
    """Raises ValueError unless it is `--worker-id N --address TEXT --label TEXT`."""
    values = dict(zip(argv[::2], argv[1::2], strict=True))
    if values.keys() != {"--worker-id", "--address", "--label"}:
        raise ValueError(f"expected --worker-id, --address and --label, not {' '.join(argv)}")
    return WorkerArguments(int(values["--worker-id"]), values["--address"], values["--label"])
