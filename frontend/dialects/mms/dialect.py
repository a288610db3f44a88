"""The dialect itself: its name, its table of errors, its rows.

Source: contracts/mms.md 2, 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from stoker.frontend.dialects.mms.document import as_the_peer_says
from stoker.frontend.dialects.mms.inference import inference_routes
from stoker.frontend.dialects.mms.management import management_routes
from stoker.frontend.dialects.mms.problems import mms_problems
from stoker.frontend.dialects.shared.dialect import PeerDialect
from stoker.frontend.problems import ProblemRow
from stoker.frontend.routes import Route


class Mms(PeerDialect):
    """What clients of Multi Model Server 1.1 know."""

    name: ClassVar[str] = "mms"
    title: ClassVar[str] = "Model Server APIs"

    @cached_property
    def problems(self) -> Mapping[str, ProblemRow]:
        return mms_problems(self.settings.queue_full_status)

    def inference_routes(self) -> Sequence[Route]:
        return inference_routes(self.settings)

    def management_routes(self) -> Sequence[Route]:
        return management_routes(self.settings)

    def finish_document(self, document: dict[str, Any], model: str | None = None) -> dict[str, Any]:
        return as_the_peer_says(document, model)
