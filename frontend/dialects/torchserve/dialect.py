"""The dialect itself: its name, its table of errors, its rows.

Source: contracts/torchserve.md 1.3, 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

from stoker.frontend.dialects.shared.dialect import PeerDialect
from stoker.frontend.dialects.torchserve.inference import inference_routes
from stoker.frontend.dialects.torchserve.management import management_routes
from stoker.frontend.dialects.torchserve.problems import torchserve_problems
from stoker.frontend.problems import ProblemRow
from stoker.frontend.routes import Route


class TorchServe(PeerDialect):
    """What clients of TorchServe 0.12 know."""

    name: ClassVar[str] = "torchserve"
    title: ClassVar[str] = "TorchServe APIs"

    @cached_property
    def problems(self) -> Mapping[str, ProblemRow]:
        return torchserve_problems(self.settings.queue_full_status)

    def inference_routes(self) -> Sequence[Route]:
        return inference_routes(self.settings)

    def management_routes(self) -> Sequence[Route]:
        return management_routes(self.settings)
