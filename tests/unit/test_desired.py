"""What should be served, as edits on a description."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.supervisor.desired import (
    DesiredState,
    DesiredVersion,
    DropItem,
    PutFact,
    PutItem,
)
from stoker.supervisor.journal_file import JournalFile
from stoker.supervisor.versions import VersionKey

MODELS = st.sampled_from(["a", "b"])
VERSIONS = st.sampled_from(["1.0", "2.0", "3.0"])
KEYS = st.builds(VersionKey, MODELS, VERSIONS)
ASKED = st.dictionaries(
    st.sampled_from(["url", "handler", "batch_size", "max_batch_delay_s", "s3_sse_kms"]),
    st.text(max_size=20) | st.integers(0, 4096) | st.booleans() | st.floats(0, 10),
)
CHANGES = st.one_of(
    st.tuples(
        st.just("register"), KEYS, ASKED, st.none() | st.text("0123456789abcdef", max_size=8)
    ),
    st.tuples(st.just("scale"), KEYS, st.integers(0, 8), st.integers(0, 8)),
    st.tuples(st.just("unregister"), KEYS),
    st.tuples(st.just("default"), KEYS),
    st.tuples(st.just("item"), st.text(max_size=9)),
    st.tuples(st.just("forget"), st.text(max_size=9)),
    st.tuples(st.just("fact"), st.text(max_size=9), st.text(max_size=9)),
)


def shown(state: DesiredState) -> object:
    """Everything of it, in its order."""
    return (
        [asdict(version) for version in state.versions.values()],
        dict(sorted(state.defaults.items())),
        list(state.items),
        dict(sorted(state.facts.items())),
    )


def test_the_first_version_becomes_the_default_and_stays_it():
    """
    Contract 3.3.
    """
    state = DesiredState()
    for version in ("1.0", "2.0"):
        state.apply(state.registering(DesiredVersion("m", version)))

    assert state.defaults == {"m": "1.0"}
    assert state.is_default(VersionKey("m", "1.0"))


def test_the_oldest_that_is_left_takes_over_and_the_last_takes_the_name_along():
    """
    As the registry does it, so that a restart shows the same default.
    """
    state = DesiredState()
    for version in ("1.0", "2.0", "3.0"):
        state.apply(state.registering(DesiredVersion("m", version)))

    state.apply(state.unregistering(VersionKey("m", "1.0")))
    after_the_first = dict(state.defaults)
    for version in ("2.0", "3.0"):
        state.apply(state.unregistering(VersionKey("m", version)))

    assert after_the_first == {"m": "2.0"}
    assert state.edits() == []
    assert state.unregistering(VersionKey("m", "3.0")) == []


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(CHANGES, max_size=12))
def test_the_file_says_what_the_description_says(
    changes: list[tuple[object, ...]], tmp_path_factory
) -> None:
    """
    Whatever happened before: what is read at the next start is what was answered.
    """
    path: Path = tmp_path_factory.mktemp("state") / "state.db"
    state, file = DesiredState(), JournalFile(path, is_durable=False)
    for change in changes:
        match change:
            case "register", VersionKey() as key, dict() as asked, content_hash:
                edits = state.registering(
                    DesiredVersion(*key, asked=asked, content_hash=content_hash, item="=m.mar")
                )
            case "scale", VersionKey() as key, int() as low, int() as high:
                edits = state.scaling(key, low, high) if key in state.versions else []
            case "unregister", VersionKey() as key:
                edits = state.unregistering(key)
            case "default", VersionKey() as key:
                edits = state.making_default(key) if key in state.versions else []
            case "item", str() as item:
                edits = [PutItem(item)]
            case "forget", str() as item:
                edits = [DropItem(item)]
            case "fact", str() as name, str() as value:
                edits = [PutFact(name, value)]
        file.write(edits)
        state.apply(edits)
    file.close()

    reopened = JournalFile(path)
    read = reopened.read()
    reopened.replace(state.edits())
    replaced = reopened.read()
    reopened.close()

    assert shown(read) == shown(state)
    assert shown(replaced) == shown(state)
    assert shown(DesiredState(state.edits())) == shown(state)
