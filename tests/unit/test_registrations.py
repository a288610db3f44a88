"""Registrations between the archives, the journal and the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stoker.archives.archive import ArchiveRequest, ResolvedArchive
from stoker.clock import FakeClock
from stoker.errors import InvalidParameter, LoadFailed, ShuttingDown, StateNotWritten, VersionExists
from stoker.settings.load import load
from stoker.supervisor.absent_versions import AbsentVersions
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import Caller
from stoker.supervisor.desired import DesiredState, DesiredVersion
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.fencing import FencingMeans
from stoker.supervisor.journal import Journal
from stoker.supervisor.journal_file import JournalFile
from stoker.supervisor.kept_arguments import KEPT_ARGUMENTS, kept_arguments
from stoker.supervisor.registrations import Registrations
from stoker.supervisor.unsettled_versions import UnsettledVersions
from stoker.supervisor.version_archives import VersionArchives
from stoker.supervisor.versions import VersionKey, VersionState

CALLER = Caller(b"frontend", 1)
KEY = VersionKey("m", "1.0")


class Archives:
    """Stands in for `ArchiveSource`: counts who uses what."""

    def __init__(self) -> None:
        self.in_use = 0
        self.content_hash = "h1"
        self.on_obtain: Callable[[], None] = lambda: None

    async def obtain(self, request: ArchiveRequest, *, may_fetch: bool = True) -> ResolvedArchive:
        self.on_obtain()
        self.in_use += 1
        return ResolvedArchive(
            model=request.model or "m",
            version=request.version or "1.0",
            handler="h:f",
            runtime="python",
            url=request.url or "",
            content_hash=self.content_hash,
        )

    def release(self, archive: ResolvedArchive) -> None:
        self.in_use -= 1


class Stage:
    def __init__(self, folder: Path) -> None:
        self.engine = Engine(DevicePlaces(()), 9000, 1 << 30)
        self.archives = Archives()
        self.path = folder / "state.db"
        self.journal = Journal(lambda: JournalFile(self.path, is_durable=False))
        settings, places, clock = load([], {}), DevicePlaces(()), FakeClock()
        source: Any = self.archives
        self.served = VersionArchives(settings, self.engine, places, source, FencingMeans())
        self.unsettled = UnsettledVersions(self.engine, clock, self.journal)
        self.absent = AbsentVersions(settings, self.engine, source, self.journal, self.served)
        self.registrations = Registrations(
            settings,
            self.engine,
            places,
            clock,
            source,
            self.journal,
            self.served,
            self.unsettled,
            self.absent,
        )

    def withdraw(self) -> None:
        self.engine.versions.withdraw(KEY, 0.0)

    async def register(self, **arguments: Any) -> dict[str, Any] | None:
        asked = {"url": "m.mar", "initial_workers": 0, **arguments}
        request = ArchiveRequest(url=asked["url"], version=asked.get("version"))
        return await self.registrations.register(request, Arguments(asked), CALLER)

    async def register_synchronously(self) -> DesiredVersion:
        """It waits for its worker from here on."""
        assert await self.register(initial_workers=1, synchronous=True) is None
        return self.unsettled._versions[KEY]

    def stored(self) -> list[str]:
        """What the next start would restore."""
        assert self.journal._file is not None
        return [key.version for key in self.journal._file.read().versions]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Callable[[Stage], Coroutine[Any, Any, None]]], None]:
    def run(scenario: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            stage = Stage(tmp_path)
            try:
                await scenario(stage)
            finally:
                await stage.journal.close()

        asyncio.run(main())

    return run


def test_every_argument_that_makes_a_version_what_it_is_is_kept() -> None:
    """
    One that is forgotten here would be lost by every restart.
    """
    read: set[str] = set()

    class Recording(Arguments):
        def optional(self, name: str, kind: Any) -> Any:
            read.add(name)
            return super().optional(name, kind)

        def seconds(self, name: str) -> float | None:
            read.add(name)
            return super().seconds(name)

        def flag(self, name: str) -> bool:
            read.add(name)
            return super().flag(name)

    async def scenario(stage: Stage) -> None:
        arguments = Recording({"initial_workers": 1, "synchronous": True})
        await stage.registrations.register(ArchiveRequest(url="m.mar"), arguments, CALLER)

    asyncio.run(scenario(Stage(Path("/nowhere"))))

    of_the_call_alone = {"initial_workers", "synchronous", "takes_free_name"}
    # Worker counts are kept apart from the arguments.
    of_the_call_alone |= {"min_workers", "max_workers", "per_device", "checks_memory"}
    assert read - of_the_call_alone <= set(KEPT_ARGUMENTS)
    said = dict.fromkeys(KEPT_ARGUMENTS, "x")
    assert kept_arguments(Arguments({**said, "synchronous": True, "other": 1})) == said
    assert kept_arguments(Arguments({"url": None, "s3_sse_kms": False, "handler": []})) == {}


def test_what_is_kept_is_bounded() -> None:
    """
    Frontends are not trusted, and a row is read at every start.
    """
    with pytest.raises(InvalidParameter):
        kept_arguments(Arguments({"handler": "x" * 70_000}))


def test_a_refused_registration_uses_no_archive_and_writes_nothing(play: Any) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.register()
        with pytest.raises(VersionExists):
            await stage.register()
        with pytest.raises(InvalidParameter):
            await stage.register(version="2.0", batch_size=1 << 20)

        assert stage.archives.in_use == 1
        assert stage.stored() == ["1.0"]

    play(scenario)


def test_of_two_at_once_one_is_registered(play: Any) -> None:
    """
    Between the look and the engine's knowing lies a write.
    """

    async def scenario(stage: Stage) -> None:
        outcomes = await asyncio.gather(
            *(stage.register() for _ in range(5)), return_exceptions=True
        )

        assert [type(outcome) for outcome in outcomes].count(VersionExists) == 4
        assert stage.archives.in_use == 1

    play(scenario)


def test_a_stop_in_the_middle_takes_the_row_back(play: Any) -> None:
    """
    The call is refused, so the next start must not show it.
    """

    async def scenario(stage: Stage) -> None:
        write = stage.journal.write

        async def write_and_stop(edits: Any) -> None:
            await write(edits)
            stage.engine.stop(0.0, 1.0)

        stage.journal.write = write_and_stop  # type: ignore[method-assign]
        with pytest.raises(ShuttingDown):
            await stage.register()

        assert stage.stored() == []
        assert stage.archives.in_use == 0

    play(scenario)


def test_a_synchronous_registration_is_stored_when_it_has_succeeded(play: Any) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.register(version="0.9")
        desired = await stage.register_synchronously()
        assert stage.stored() == ["0.9"]

        await stage.unsettled.keep(desired)

        assert stage.stored() == ["0.9", "1.0"]
        assert not stage.unsettled.drop(desired)

    play(scenario)


def test_a_synchronous_registration_that_fails_was_never_stored(play: Any) -> None:
    async def scenario(stage: Stage) -> None:
        desired = await stage.register_synchronously()

        assert stage.unsettled.drop(desired)
        await stage.unsettled.take_back(desired)

        assert stage.journal.state.is_empty

    play(scenario)


def test_the_first_version_stays_the_default_although_it_is_stored_second(play: Any) -> None:
    """
    It was registered first and took longer.
    """

    async def scenario(stage: Stage) -> None:
        desired = await stage.register_synchronously()
        await stage.register(version="2.0")
        assert stage.journal.state.defaults == {"m": "2.0"}, "all that a restart would have"

        await stage.unsettled.keep(desired)

        assert stage.engine.registry.default_version("m") == "1.0"
        assert stage.journal.state.defaults == {"m": "1.0"}

    play(scenario)


def test_one_that_cannot_be_stored_is_taken_back(play: Any) -> None:
    """
    The workers were ready, the disk is full: nothing was changed.
    """

    async def scenario(stage: Stage) -> None:
        desired = await stage.register_synchronously()

        async def full(edits: Any) -> None:
            raise StateNotWritten("full")

        stage.journal.write = full  # type: ignore[method-assign]
        with pytest.raises(StateNotWritten):
            await stage.unsettled.keep(desired)

        assert stage.engine.registry.names() == []

    play(scenario)


def test_another_registration_of_the_same_name_is_not_taken_back(play: Any) -> None:
    """
    The failed one had been stored by a scale call; meanwhile somebody registered anew.
    """

    async def scenario(stage: Stage) -> None:
        desired = await stage.register_synchronously()
        async with stage.journal.changing() as state:
            await stage.unsettled.settle(state, KEY)
            await stage.journal.write(state.scaling(KEY, 2, 2))
        stage.withdraw()
        await stage.register(batch_size=8)

        await stage.unsettled.take_back(desired)

        assert stage.stored() == ["1.0"]
        assert stage.journal.state.versions[KEY].asked["batch_size"] == 8

    play(scenario)


def test_what_fails_after_a_call_has_built_on_it_takes_everything_back(play: Any) -> None:
    async def scenario(stage: Stage) -> None:
        desired = await stage.register_synchronously()
        async with stage.journal.changing() as state:
            await stage.unsettled.settle(state, KEY)
        assert stage.stored() == ["1.0"]
        stage.withdraw()

        assert not stage.unsettled.drop(desired)
        await stage.unsettled.take_back(desired)

        assert stage.stored() == []

    play(scenario)


def test_an_absent_version_comes_back_with_the_archive_there_is(play: Any) -> None:
    """
    Other content than was registered is better than none; the row says so from now on.
    """

    async def scenario(stage: Stage) -> None:
        desired = DesiredVersion(*KEY, 1, 1, {"url": "m.mar", "batch_size": 3}, "h0")
        stage.journal.state.apply(DesiredState().registering(desired))
        stage.absent.fail(desired, "It is gone.")
        served = stage.engine.registry.find("m")
        assert served.state is VersionState.FAILED
        assert KEY in stage.absent

        def gone() -> None:
            raise LoadFailed("still gone")

        stage.archives.on_obtain = gone
        with pytest.raises(LoadFailed):
            await stage.absent.bring_back(KEY)
        stage.archives.on_obtain = lambda: None
        spec = await stage.absent.bring_back(KEY)

        assert spec is not None
        assert stage.engine.registry.find("m").spec is spec
        assert spec.batch.max_size == 3
        assert stage.journal.state.versions[KEY].content_hash == "h1"
        assert KEY not in stage.absent
        stage.served.release(spec)
        assert stage.archives.in_use == 0

    play(scenario)


def test_one_that_was_unregistered_while_it_was_fetched_does_not_come_back(play: Any) -> None:
    async def scenario(stage: Stage) -> None:
        desired = DesiredVersion(*KEY, 1, 1, {"url": "m.mar"}, "h0")
        stage.absent.fail(desired, "It is gone.")
        stage.archives.on_obtain = lambda: stage.absent.forget(KEY)

        assert await stage.absent.bring_back(KEY) is None
        assert stage.archives.in_use == 0

    play(scenario)


def test_what_cannot_even_be_described_is_served_as_failed(play: Any) -> None:
    """
    A setting may forbid today what it allowed when the version was registered.
    """

    async def scenario(stage: Stage) -> None:
        desired = DesiredVersion(*KEY, 1, 1, {"url": "m.mar", "batch_size": 1 << 20})

        stage.absent.fail(desired, "No.")

        served = stage.engine.registry.find("m")
        assert served.crew.loads.failure is not None
        assert served.crew.loads.failure.message == "No."
        assert served.spec.shown["url"] == "m.mar"

    play(scenario)
