"""What a peer's module says about it: how to install, start and ask it.

A peer lives in an environment of its own (`environments.py`) outside the
checkout and runs as a child process with everything in one private folder
(`running.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from scenarios import CNN, CNN_8, ECHO, ECHO_32, SIZE, SLOW, Model

PROGRAMS = Path(__file__).resolve().parent / "programs"
MODELS_FOLDER = Path(__file__).resolve().parent.parent / "models"
#: Names of all models; a peer that lacks one says so.
EVERYTHING: tuple[Model, ...] = (ECHO, ECHO_32, SIZE, SLOW, CNN, CNN_8)
WITHOUT_CNN: tuple[Model, ...] = (ECHO, ECHO_32, SIZE, SLOW)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run of a peer happens.

    Attributes:
        bin: The folder with its interpreter and commands.
        home: Private; removed afterwards.
        models: What this run serves.
        queue_size: The bound to set; 0 leaves the server's own.
    """

    bin: Path
    home: Path
    port: int
    management_port: int
    models: tuple[Model, ...]
    queue_size: int

    @property
    def python(self) -> str:
        return str(self.bin / "python")


@dataclass(frozen=True, slots=True)
class Body:
    """What is really sent for so many bytes."""

    data: bytes
    content_type: str = "application/octet-stream"


class Peer(ABC):
    """One server to be compared with.

    Attributes:
        requirements: What pip installs, the server first.
        needs: Programs that must be on the PATH.
        warmup_s: Load before the first window; a JVM compiles for a while.
        settings: Said in the table: how it differs from its defaults.
    """

    name: ClassVar[str]
    requirements: ClassVar[tuple[str, ...]]
    wants_torch: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[Model, ...]] = WITHOUT_CNN
    warmup_s: ClassVar[float] = 1.0
    start_timeout_s: ClassVar[float] = 90.0
    settings: ClassVar[str] = ""

    @abstractmethod
    def command(self, place: Place) -> list[str]:
        """What starts it in the foreground; may write files below `place.home`."""

    def url(self, place: Place, model: str) -> str:
        return f"http://127.0.0.1:{place.port}/{model}"

    def body(self, model: Model, size: int) -> Body:
        return Body(b"x" * size)

    def environment(self, place: Place) -> dict[str, str]:
        return {}

    def after_start(self, place: Place) -> None:  # noqa: B027
        """Register models, where that happens over HTTP."""

    def is_worker(self, command_line: str) -> bool:
        """Whether a process of its tree is one that runs handlers."""
        return False


def program(name: str) -> str:
    return str(PROGRAMS / f"{name}.py")


def model_flags(models: tuple[Model, ...]) -> list[str]:
    """`name,batch size,delay in ms` for our programs."""
    return [f"{model.name},{model.batch_size},{model.max_batch_delay_ms}" for model in models]
