from __future__ import annotations

from pathlib import Path

import pytest

from stoker.archives.startup import StartupModel, name_from_url, startup_names
from stoker.errors import SettingsError
from stoker.names import check_model_name


def test_all_means_everything_in_the_store(store: Path) -> None:
    """Contract 9.4; in the order of names, hidden entries and strangers left out."""
    for name in ("b.mar", "a.tar.gz", "c.model", ".hidden.mar", "notes.txt", "d.mar.bak"):
        (store / name).touch()
    (store / "folder").mkdir()
    (store / ".git").mkdir()

    urls = [model.url for model in startup_names(store, ["ALL"])]

    assert urls == ["a.tar.gz", "b.mar", "c.model", "folder"]


def test_a_list_may_give_names(store: Path) -> None:
    """`name=location`; a remote address keeps its own `=`."""
    remote = "https://models.example/x.mar?v=1"

    found = startup_names(store, ["first=a.mar", " b-1.mar ", remote, f"r={remote}", "a.mar"])

    assert found == [
        StartupModel("a.mar", "first", "a"),
        StartupModel("b-1.mar", None, "b_1"),
        StartupModel(remote, None, "x"),
        StartupModel(remote, "r", "x"),
        StartupModel("a.mar", None, "a"),
    ]


def test_nothing_is_loaded_twice(store: Path) -> None:
    """`all` beside a name that it contains."""
    (store / "a.mar").touch()

    assert len(startup_names(store, ["a.mar", "all", "a.mar"])) == 1


@pytest.mark.parametrize("items", [[], ["none"], [""], ["", "none"]])
def test_nothing_may_be_asked_for(store: Path, items: list[str]) -> None:
    """`none` is the peer's default."""
    assert startup_names(store, items) == []


def test_all_needs_a_store(tmp_path: Path) -> None:
    """A start that silently serves nothing helps nobody."""
    for store in (None, tmp_path / "gone"):
        with pytest.raises(SettingsError):
            startup_names(store, ["all"])


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("my-model.mar", "my_model"),
        ("/somewhere/m.tar.gz", "m"),
        ("m.v2.mar", "m_v2"),
        ("folder/", "folder"),
        ("_x.mar", "x"),
        (".mar", "mar"),
        ("é.mar", "model"),
        ("https://h/a.mar?x=/b.mar", "a"),
    ],
)
def test_a_name_comes_from_the_file(url: str, name: str) -> None:
    """Contract 6.2; the result is always a name that we accept."""
    assert name == check_model_name(name_from_url(url))


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("m=x.zip", ("x.zip", "m", "", "", "")),
        ("[mlp:v1:Python:*]=x.zip", ("x.zip", "mlp", "v1", "Python", "*")),
        ("[mlp:v1]=x.zip", ("x.zip", "mlp", "v1", "", "")),
        ("resnet::Python=file:///x.zip", ("file:///x.zip", "resnet", "", "Python", "")),
        ("[a:::gpu0;gpu1]=x", ("x", "a", "", "", "gpu0;gpu1")),
        ("https://h/x.zip?a=b:c", ("https://h/x.zip?a=b:c", None, "", "", "")),
    ],
)
def test_an_item_may_name_version_engine_and_devices(
    store: Path, item: str, expected: tuple[str | None, ...]
) -> None:
    """contracts/djl-serving.md 9.1: brackets and trailing parts are optional."""
    (found,) = startup_names(store, [item])

    assert (found.url, found.model, found.version, found.engine, found.devices) == expected


def test_items_of_one_model_are_told_apart_by_version(store: Path) -> None:
    """What a start acted on is remembered by key."""
    keys = {model.key for model in startup_names(store, ["[m:1]=x", "[m:2]=x", "m=x"])}

    assert keys == {"m:1=x", "m:2=x", "m=x"}
