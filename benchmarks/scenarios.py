"""What is measured: each load as a record, with the models it needs.

Every server is asked the same things in the same order and serves the same
models under the same names; what one cannot serve is left out of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Model:
    """How one model is registered: the query of POST /models.

    Attributes:
        handler: `module:function` in `benchmarks/models/`.
        body_bytes: What it wants to be sent if the load does not say.
    """

    name: str
    handler: str
    batch_size: int = 1
    max_batch_delay_ms: int = 0
    body_bytes: int = 100

    def query(self) -> dict[str, Any]:
        return {
            "model_name": self.name,
            "handler": self.handler,
            "batch_size": self.batch_size,
            "max_batch_delay": self.max_batch_delay_ms,
        }


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load on one model.

    Attributes:
        body_bytes: Length of the body; 0 leaves it to the model.
        bare_batch: Requests per second are also given as a share of the bare
            loop's at this batch size; 0 is no comparison.
        is_quick: Part of `bench-quick`.
    """

    name: str
    model: Model
    connections: int
    body_bytes: int = 0
    bare_batch: int = 0
    is_quick: bool = False

    @property
    def sent_bytes(self) -> int:
        return self.body_bytes or self.model.body_bytes


#: benchmarks/models/cnn.py: 3 x 64 x 64 bytes.
CNN_BYTES = 3 * 64 * 64

ECHO = Model("echo", "echo_handler:echo")
ECHO_32 = Model("echo32", "echo_handler:echo", batch_size=32, max_batch_delay_ms=2)
SIZE = Model("size", "echo_handler:size")
SLOW = Model("slow", "echo_handler:slow")
CNN = Model("cnn", "cnn_handler:classify", body_bytes=CNN_BYTES)
CNN_8 = Model(
    "cnn8", "cnn_handler:classify", batch_size=8, max_batch_delay_ms=10, body_bytes=CNN_BYTES
)

MODELS = (ECHO, ECHO_32, SIZE, SLOW, CNN, CNN_8)

SCENARIOS = (
    Scenario("echo, 1 connection", ECHO, 1, is_quick=True),
    Scenario("echo, 8 connections", ECHO, 8),
    Scenario("echo, 64 connections", ECHO, 64, is_quick=True),
    Scenario("echo batch 32 / 2 ms, 64 connections", ECHO_32, 64, is_quick=True),
    Scenario("echo batch 32 / 2 ms, 256 connections", ECHO_32, 256, is_quick=True),
    Scenario("1 MiB in, 4 connections", SIZE, 4, body_bytes=MIB, is_quick=True),
    Scenario("10 MiB in, 4 connections", SIZE, 4, body_bytes=10 * MIB, is_quick=True),
    Scenario("1 MiB there and back, 4 connections", ECHO, 4, body_bytes=MIB, is_quick=True),
    Scenario("10 MiB there and back, 4 connections", ECHO, 4, body_bytes=10 * MIB),
    Scenario("CNN batch 8 / 10 ms, 16 connections", CNN_8, 16, bare_batch=8),
    Scenario("CNN batch 1, 16 connections", CNN, 16, bare_batch=1),
)

#: All of them retry at once when they are refused.
OVERLOAD = Scenario("overload: 256 connections, 5 ms handler", SLOW, 256)

#: More than the widest load may have waiting, and room for the largest body.
SERVER_FLAGS = (
    "--job-queue-size=2048",
    f"--max-request-size={128 * MIB}",
    f"--max-response-size={16 * MIB}",
    "--log-level=warning",
)
