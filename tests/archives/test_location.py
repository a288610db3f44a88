from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.archives.location import (
    LocalDirectory,
    LocalFile,
    Remote,
    admits_everything,
    locate,
    normalise,
)
from stoker.errors import (
    ArchiveError,
    ArchiveNotFound,
    ArchiveUrlEmpty,
    ArchiveUrlNotAllowed,
    ArchiveUrlRelative,
    ModelStoreMissing,
    SettingsError,
)

EXAMPLE = (r"https://models\.example/.*",)


def test_empty_url_has_the_contracts_text(store: Path) -> None:
    """Contract 1.6."""
    with pytest.raises(ArchiveUrlEmpty, match=r"^empty url$"):
        locate("", store, ())


@pytest.mark.parametrize(
    "url",
    ["../demo.mar", "a/../b.mar", "https://models.example/%2e%2e/x", "%252e%252E/x", "model..mar"],
)
def test_two_dots_are_refused_however_they_are_written(store: Path, url: str) -> None:
    """`..` was the way around allowed_urls (CVE-2024-35198)."""
    with pytest.raises(ArchiveUrlRelative) as caught:
        locate(url, store, (".*",))

    assert f"Relative path is not allowed in url: {url}" == caught.value.message
    assert url == caught.value.details["url"]


@pytest.mark.parametrize(
    "url",
    [
        "http://models.example/x.mar",
        "https://models.example.evil/x.mar",
        "https://user@models.example/x.mar",
        "https://models.example:444/x.mar",
        "https://evil/?https://models.example/x.mar",
        "https://evil#https://models.example/x.mar",
        "https://evil\\@models.example/x.mar",
        "https://models.example /x.mar",
        "HTTPS://EVIL/x.mar",
        "file:///etc/passwd",
        "fil:///etc/passwd",
        "https://",
        "https://models.example:x/y",
    ],
)
def test_addresses_outside_the_list_are_refused(store: Path, url: str) -> None:
    """Else whoever may register makes us ask and run what he likes (CVE-2023-43654)."""
    with pytest.raises(ArchiveUrlNotAllowed) as caught:
        locate(url, store, EXAMPLE)

    assert f"Given URL {url} does not match any allowed URL(s)" == caught.value.message


def test_nothing_remote_is_allowed_without_a_list(store: Path) -> None:
    """The default denies (contract 11)."""
    with pytest.raises(ArchiveUrlNotAllowed):
        locate("https://models.example/x.mar", store, ())


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("HTTPS://Models.Example:443/a.mar", "https://models.example/a.mar"),
        ("https://models.example./a.mar#part", "https://models.example/a.mar"),
        ("https://models.example/%7ea%2fb/./c%c3%a9", "https://models.example/~a%2Fb/c%C3%A9"),
        ("https://models.example/é.mar?X=1&Y=%41", "https://models.example/%C3%A9.mar?X=1&Y=A"),
    ],
)
def test_an_address_is_matched_and_asked_in_one_spelling(
    store: Path, url: str, normal: str
) -> None:
    """A pattern sees exactly what will be asked for."""
    assert Remote(normal) == locate(url, store, EXAMPLE)


def test_a_pattern_must_match_the_whole_address(store: Path) -> None:
    """A pattern without `.*` at its end means that address alone."""
    with pytest.raises(ArchiveUrlNotAllowed):
        locate("https://models.example/x.mar", store, (r"https://models\.example/",))


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        (r"https://models\.example:443/.*", "https://models.example/x.mar"),
        (r"http://h:80/.*", "http://h/x.mar"),
        (r"http://h/.*", "http://h:80/x.mar"),
        (r"\Qhttps://models.example/\E[\p{Alpha}]+\.mar", "https://models.example/x.mar"),
    ],
)
def test_a_pattern_is_read_as_the_peer_reads_it(store: Path, pattern: str, url: str) -> None:
    """A config.properties comes along as it is: Java's spelling, the default port or not."""
    assert isinstance(locate(url, store, (pattern,)), Remote)


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example:8443/x.mar",
        "https://models.example@evil.example/x.mar",
        "https://models.example%2f@evil.example/x.mar",
        "https://models.example%00.evil.example/x.mar",
        "https://models.example\t.evil.example/x.mar",
        "https:////evil.example/x.mar",
        "https://[::ffff:169.254.169.254%25x]/x.mar",
        "https://\u24dcodels.example/x.mar",
        "https://evil.example/..%2f..%2fmodels.example/x.mar",
        "file://models.example/etc/passwd",
        "file:///srv/models/%2e%2e/%2e%2e/etc/passwd",
        "FILE:///srv/models/..;/etc/passwd",
    ],
)
def test_no_spelling_gets_around_a_list(store: Path, url: str) -> None:
    """Parsers that disagree about a URL are how such lists are passed (CVE-2024-35198)."""
    with pytest.raises((ArchiveUrlNotAllowed, ArchiveUrlRelative)):
        locate(url, store, (r"https://models\.example/.*", r"file:///srv/models/.*"))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("file://.*", "http(s)?://.*"), True),
        ((".*",), True),
        (("file://.*|http(s)?://.*",), True),
        ((), False),
        (EXAMPLE, False),
        ((r"https://.*\.example/.*",), False),
    ],
)
def test_a_list_that_keeps_nothing_out_is_known_as_such(
    patterns: tuple[str, ...], expected: bool
) -> None:
    """The peer warns of its default, and so do we of a file that carries it along."""
    assert admits_everything(patterns) == expected


def test_a_bad_pattern_is_a_settings_error(store: Path) -> None:
    """The operator must hear of it, not the client's url be blamed."""
    with pytest.raises(SettingsError):
        locate("https://models.example/x.mar", store, ("(",))


def test_a_local_name_is_looked_up_by_its_last_part(store: Path) -> None:
    """The peer drops the folders of the text (contract 3.2.4)."""
    (store / "demo.mar").write_bytes(b"x")

    assert LocalFile(store / "demo.mar") == locate("demo.mar", store, ())
    assert LocalFile(store / "demo.mar") == locate("/anywhere/at/all/demo.mar", store, ())


def test_a_folder_is_found_by_name_and_by_path_inside_the_store_only(
    store: Path, tmp_path: Path
) -> None:
    """The peer loads any folder of the host; that is a hole (contract 11)."""
    (store / "group" / "inner").mkdir(parents=True)
    (tmp_path / "outside").mkdir()

    assert LocalDirectory(store / "group") == locate("group/", store, ())
    assert LocalDirectory(store / "group" / "inner") == locate("group/inner", store, ())
    assert LocalDirectory(store / "group" / "inner") == locate(f"{store}/group/inner", store, ())
    for url in (str(tmp_path / "outside"), str(store), ".", "/", "./."):
        with pytest.raises(ArchiveNotFound):
            locate(url, store, ())


def test_a_link_out_of_the_store_is_not_followed(store: Path, tmp_path: Path) -> None:
    """A link is the oldest way out of a folder."""
    (tmp_path / "secret.mar").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    (store / "secret.mar").symlink_to(tmp_path / "secret.mar")
    (store / "folder").symlink_to(tmp_path / "folder")
    (store / "loop.mar").symlink_to(store / "loop.mar")

    for name in ("secret.mar", "folder", "loop.mar"):
        with pytest.raises(ArchiveNotFound, match=f"^Model not found at: {name}$"):
            locate(name, store, ())


def test_a_link_inside_the_store_is_followed(store: Path) -> None:
    """Operators keep `current.mar` as a link."""
    (store / "demo-2.mar").write_bytes(b"x")
    (store / "current.mar").symlink_to("demo-2.mar")

    assert LocalFile(store / "demo-2.mar") == locate("current.mar", store, ())


def test_a_store_must_be_configured(tmp_path: Path) -> None:
    """Contract 1.6."""
    with pytest.raises(ModelStoreMissing, match=r"^Model store has not been configured\.$"):
        locate("demo.mar", None, ())


@pytest.mark.parametrize("url", ["missing.mar", "x\0y", "n" * 5000, "s3://bucket/x.mar", "/"])
def test_what_is_not_there_is_not_found(store: Path, url: str) -> None:
    """Nothing a client writes may end in a traceback."""
    with pytest.raises(ArchiveNotFound) as caught:
        locate(url, store, ())

    assert f"Model not found at: {url}" == caught.value.message


def test_a_file_address_is_read_in_place_when_allowed(store: Path, tmp_path: Path) -> None:
    """`file://` is one of the peer's remote forms."""
    (tmp_path / "shared").mkdir()
    path = tmp_path / "shared" / "a b.mar"
    path.write_bytes(b"x")
    allowed = (rf"file://{tmp_path}/shared/.*",)

    assert LocalFile(path) == locate(f"file://{quote(str(path))}", store, allowed)
    assert LocalFile(path) == locate(f"FILE://localhost{quote(str(path))}", None, allowed)


def test_a_link_out_of_an_allowed_folder_is_refused(store: Path, tmp_path: Path) -> None:
    """The pattern speaks of where the file is, not of where a link to it is."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "shared" / "x.mar").symlink_to(tmp_path / "secret")

    with pytest.raises(ArchiveUrlNotAllowed):
        locate(f"file://{tmp_path}/shared/x.mar", store, (rf"file://{tmp_path}/shared/.*",))


@given(text=st.text(max_size=60))
def test_no_text_gets_out_of_the_store(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever a client writes, the answer lies inside the store or is our error."""
    base = tmp_path_factory.getbasetemp() / "property-store"
    base.mkdir(exist_ok=True)
    (base / "demo.mar").touch()

    try:
        found = locate(text, base, ())
    except ArchiveError:
        return

    assert isinstance(found, LocalFile | LocalDirectory)
    assert base in found.path.parents


@given(
    path=st.text(st.characters(codec="utf-8"), max_size=40),
    host=st.sampled_from(["models.example", "MODELS.example:80", "[::1]:81", "a@b", "x y", ""]),
)
def test_normalising_twice_changes_nothing(path: str, host: str) -> None:
    """Else the text that was matched would differ from the text that is asked for."""
    normal = normalise(f"http://{host}/{path}")

    assert normal is None or normal == normalise(normal)
    assert normal is None or (normal.isascii() and ".." not in normal and "@" not in host)
