"""Which fence a version gets: what was asked for, against what this host has.

An archive may ask for more than the server's settings, never for less.

Source: issue "Nothing is lost", promise 11.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stoker.archives.model_config import ModelConfig
from stoker.errors import SandboxMissing
from stoker.settings import Settings
from stoker.supervisor.fences import BUBBLEWRAP, OFF, RLIMITS, Fence


@dataclass(frozen=True, slots=True)
class FencingMeans:
    """What there is to build a fence of.

    Attributes:
        user: Of `worker_user`; "" where workers are the server's own user.
        why_no_bubblewrap: "" where it can be had, with a network or without; asked when
            somebody wants it.
    """

    user: str = ""
    why_no_bubblewrap: Callable[[bool], str] = lambda _: "nobody has looked for it"


def choose_fence(config: ModelConfig, settings: Settings, means: FencingMeans) -> Fence | None:
    """The stricter of both: an archive must not open what the operator has closed.

    Raises:
        SandboxMissing: Neither what was asked for nor what may stand for it can be had.
    """
    words = {config.sandbox, settings.sandbox}
    asked = [mb for mb in (config.sandbox_memory_mb, settings.sandbox_memory_mb) if mb]
    memory_bytes = min(asked, default=0) << 20
    user = means.user
    if BUBBLEWRAP in words:
        has_network = settings.sandbox_network and config.sandbox_network is not False
        why_not = means.why_no_bubblewrap(has_network)
        if not why_not:
            return Fence(BUBBLEWRAP, memory_bytes, user, has_network)
        if not user:
            raise SandboxMissing(
                f"sandbox=bubblewrap cannot be had here ({why_not}), and without worker_user "
                "there is no user to run workers as instead."
            )
        if not has_network:
            raise SandboxMissing(
                f"sandbox=bubblewrap cannot be had here ({why_not}), and nothing else "
                "takes the network away as sandbox_network=false wants."
            )
        return Fence(RLIMITS, memory_bytes, user, instead=why_not)
    if config.sandbox_network is False:
        raise SandboxMissing("sandbox_network=false needs sandbox=bubblewrap.")
    if RLIMITS in words:
        return Fence(RLIMITS, memory_bytes, user)
    return Fence(OFF, user=user) if user else None
