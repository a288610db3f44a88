"""Which models the server was started with: who asks for none of them may mean the only one.

Source: contracts/torchserve.md 2.3.
"""

from __future__ import annotations

from typing import Final

from stoker.wire.link import Link

_TIMEOUT_S: Final = 10.0


class StartupModels:
    """The supervisor's list, asked for once in its life."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._names: list[str] = []
        self._incarnation: bytes | None = None

    async def only(self) -> str | None:
        """The model's name if there is exactly one; registered or not any more.

        Raises:
            SupervisorUnavailable: Nobody could be asked.
        """
        incarnation = self._link.incarnation
        if incarnation is None or incarnation != self._incarnation:
            outcome = await self._link.call("startup_models", {}, _TIMEOUT_S)
            self._names = outcome["models"]
            self._incarnation = incarnation
        return self._names[0] if len(self._names) == 1 else None
