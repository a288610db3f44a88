"""Settings: what can be set (`record`), and how a server's settings come to be (`load`)."""

from stoker.settings.about import GIB, KIB, MIB, Effect
from stoker.settings.known import KNOWN, Known
from stoker.settings.record import Settings

__all__ = ["GIB", "KIB", "KNOWN", "MIB", "Effect", "Known", "Settings"]
