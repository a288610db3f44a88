"""Versions that are wanted, and whose archive is not there."""

from __future__ import annotations

import pytest

from stoker.errors import VersionExists
from stoker.supervisor.versions import Failure, VersionSpec, VersionState

GONE = Failure("Model not found at: m.mar", "Model not found at: m.mar")


def test_a_version_without_its_archive_is_failed_and_says_why(stage):
    """
    A server that would not start because of one archive helps nobody.
    """
    key = stage.register()

    stage.engine.versions.fail(key, GONE, 2, 3)
    waiting = stage.submit()

    served = stage.served(key)
    assert served.state is VersionState.FAILED
    assert served.crew.loads.failure is GONE
    assert (served.crew.min_workers, served.crew.max_workers) == (2, 3)
    assert not served.crew.is_healthy(stage.now)
    assert stage.refused == {waiting: "no_worker"}
    stage.unregister(key)
    assert stage.resolved == {"unregister": {}}


def test_a_version_gets_its_archive_back_in_its_place(stage):
    """
    What was said of it, which version is the default and in which order they came stays.
    """
    first, second = stage.register(version="1.0"), stage.register(version="2.0")
    stage.engine.versions.fail(first, GONE, 1, 1)

    stage.engine.versions.replace(VersionSpec(*first, max_attempts=1))
    stage.scale(first, 1)
    stage.load(stage.alive(first)[0])

    assert stage.served(first).state is VersionState.STEADY
    registry = stage.engine.registry
    assert [served.spec.key for served in registry.all_versions("echo")] == [first, second]
    assert registry.default_version("echo") == "1.0"
    job = stage.submit()
    assert stage.sent() == [[job]]


def test_a_version_that_should_not_have_come_goes_whatever_is_the_default(stage):
    """
    A registration is all or nothing, also where an unregistration would be refused.
    """
    key = stage.register(version="1.0")
    stage.register(version="2.0")

    stage.engine.versions.withdraw(key, stage.now)

    assert stage.engine.registry.default_version("echo") == "2.0"
    stage.engine.versions.check_new(key)
    with pytest.raises(VersionExists):
        stage.engine.versions.check_new(stage.served(("echo", "2.0")).spec.key)
