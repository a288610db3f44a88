"""What this host has to fence workers with, looked for when the server starts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from stoker.archives.model_config import ModelConfig
from stoker.errors import SandboxMissing, SettingsError
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.bubblewrap import Bubblewrap
from stoker.supervisor.fences import BUBBLEWRAP, Fence
from stoker.supervisor.fencing import FencingMeans, choose_fence
from stoker.supervisor.shared_places import check_places, open_places
from stoker.supervisor.worker_user import (
    FOR_ADOPTION,
    WorkerUser,
    find_worker_user,
    missing_rights,
)
from stoker.wire.arena_folder import arena_folder, hold_arenas

log = get_logger("supervisor")


@dataclass(frozen=True)
class HostFencing:
    """The user of workers, if they have one of their own, and the sandbox, if it works."""

    user: WorkerUser | None
    bubblewrap: Bubblewrap

    @cached_property
    def means(self) -> FencingMeans:
        name = "" if self.user is None else self.user.name
        look = self.bubblewrap.why_not
        return FencingMeans(name, lambda has_network: look(has_network=has_network))

    @property
    def peer(self) -> tuple[int, int] | None:
        """User and group of those who connect as workers, if they are not our own."""
        return None if self.user is None else (self.user.uid, self.user.gid)


def find_fencing(settings: Settings) -> HostFencing:
    """Raises SettingsError: there is no such user, or we may not become it."""
    user = find_worker_user(settings.worker_user)
    return HostFencing(user, Bubblewrap(settings, becomes_user=user is not None))


def check_fencing(fencing: HostFencing, settings: Settings) -> None:
    """See to it that the fence of all models can be had, and say in the log which it is.

    Raises:
        SettingsError: It cannot; a server that would go on without is not what was asked for.
    """
    try:
        fence = choose_fence(ModelConfig(), settings, fencing.means)
    except SandboxMissing as error:
        raise SettingsError(error.message, setting="sandbox") from None
    if fence is None:
        return
    if fencing.user is not None:
        open_places(settings, fencing.user)
        if missing := missing_rights(FOR_ADOPTION):
            log.warning("workers load anew when the supervisor dies", without=", ".join(missing))
    if fencing.user is not None and fence.kind != BUBBLEWRAP:
        # In a sandbox it sees what is shown, wherever that lies outside.
        check_places(settings, fencing.user)
    if fencing.user is not None:
        # Last: who does not start leaves nothing in shared memory.
        hold_arenas(arena_folder(settings.runtime_dir), fencing.user.gid)
    facts = describe_fence(fence)
    if fence.instead:
        log.warning("no bubblewrap here; workers are fenced by other means", **facts)
    else:
        log.info("workers are fenced", **facts)


def describe_fence(fence: Fence) -> dict[str, object]:
    """For the log and for describe: what holds, and why it is not what was asked for."""
    facts: dict[str, object] = {"kind": fence.kind, "network": fence.has_network}
    if fence.user:
        facts["user"] = fence.user
    if fence.memory_bytes:
        facts["memory_bytes"] = fence.memory_bytes
    if fence.instead:
        facts["no_bubblewrap"] = fence.instead
    return facts
