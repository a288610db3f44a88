"""What is measured: each scenario as a record, with the server it needs.

All steady loads run against one server with all models.  A peer is asked the same
things in the same order and must serve the same models under the same names
(benchmarks/README.md says which).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Model:
    """How one model is registered: the query of POST /models."""

    name: str
    handler: str = ""
    url: str = ""
    batch_size: int = 1
    max_batch_delay_ms: int = 0

    def query(self) -> dict[str, Any]:
        query: dict[str, Any] = {
            "model_name": self.name,
            "batch_size": self.batch_size,
            "max_batch_delay": self.max_batch_delay_ms,
        }
        if self.handler:
            query["handler"] = self.handler
        if self.url:
            query["url"] = self.url
        return query


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load on one model.

    Attributes:
        body_bytes: Length of the body; 0 sends the digits example's picture.
        compares: Requests per second are also given as a share of this.
    """

    name: str
    model: Model
    connections: int
    body_bytes: int = 100
    compares: str = ""


ECHO = Model("echo", handler="echo_handler:echo")
ECHO_32 = Model("echo32", handler="echo_handler:echo", batch_size=32, max_batch_delay_ms=2)
SIZE = Model("size", handler="echo_handler:size")
DIGITS = Model("digits", url="digits.mar", batch_size=8, max_batch_delay_ms=10)

MODELS = (ECHO, ECHO_32, SIZE, DIGITS)

SCENARIOS = (
    Scenario("echo 100 B, 1 connection", ECHO, 1),
    Scenario("echo 100 B, 8 connections", ECHO, 8),
    Scenario("echo 100 B, 64 connections", ECHO, 64),
    Scenario("echo batch 32 / 2 ms, 64 connections", ECHO_32, 64),
    Scenario("echo batch 32 / 2 ms, 256 connections", ECHO_32, 256),
    Scenario("1 MiB in, 4 connections", SIZE, 4, body_bytes=MIB),
    Scenario("10 MiB in, 4 connections", SIZE, 4, body_bytes=10 * MIB),
    Scenario("digits batch 8 / 10 ms, 16 connections", DIGITS, 16, body_bytes=0, compares="bare"),
)

#: More than the widest load may have waiting, and room for the largest body.
SERVER_FLAGS = (
    "--job-queue-size=1024",
    f"--max-request-size={16 * MIB}",
    f"--max-response-size={16 * MIB}",
    "--log-level=warning",
)
