from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stoker.archives.archive import ArchiveRequest
from stoker.archives.cache import ArchiveCache
from stoker.archives.fetch import FetchLimits
from stoker.archives.obtaining import ArchivePlaces, Terms, open_cache
from stoker.archives.pack import Parts, pack
from stoker.archives.resolve import resolve
from stoker.errors import (
    ArchiveError,
    ArchiveNotFound,
    ArchiveUnreadable,
    ArchiveUrlEmpty,
    DownloadFailed,
    InvalidParameter,
    ManifestInvalid,
    RuntimeInvalid,
)

Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def places(store: Path, tmp_path: Path) -> ArchivePlaces:
    return ArchivePlaces(
        store,
        tmp_path / "cache",
        (r"http://127\.0\.0\.1:\d+/.*",),
        FetchLimits(total_timeout_s=20),
    )


@pytest.fixture
def cache(places: ArchivePlaces) -> ArchiveCache:
    return open_cache(places)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A folder and its address."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()
    server.server_close()
    thread.join(5)


def unused(cache: ArchiveCache) -> bool:
    return cache.statistics().entries_in_use == 0


def test_a_mar_is_resolved_from_its_manifest(
    store: Path, places: ArchivePlaces, cache: ArchiveCache, archives: Any
) -> None:
    """`POST /models?url=demo.mar`, the everyday registration."""
    (store / "demo.mar").write_bytes(archives.mar(modelVersion="2.0", envelope="json"))

    found = resolve(ArchiveRequest(url="demo.mar"), places, cache)

    assert (
        found.model,
        found.version,
        found.handler,
        found.runtime,
    ) == ("demo", "2.0", "handler.py", "python")
    assert found.url == "demo.mar"
    assert found.envelope == "json"
    assert found.manifest is not None
    assert found.config is None
    assert found.model_dir is not None
    assert (found.model_dir / "handler.py").is_file()


def test_the_request_wins_over_the_manifest(
    store: Path, places: ArchivePlaces, cache: ArchiveCache, archives: Any
) -> None:
    """Contract 3.1; the handler still sees the manifest as it is (6.2)."""
    (store / "demo.mar").write_bytes(archives.mar())

    found = resolve(
        ArchiveRequest("demo.mar", "other", "m:f", "PYTHON3", version="9", default_model="no"),
        places,
        cache,
    )

    assert (
        found.model,
        found.version,
        found.handler,
        found.runtime,
    ) == ("other", "9", "m:f", "python3")
    assert found.manifest is not None
    assert found.manifest["model"]["modelName"] == "demo"


def test_a_handler_alone_needs_no_archive(places: ArchivePlaces, cache: ArchiveCache) -> None:
    """`handler=module:function` on PYTHONPATH (issue point 3)."""
    found = resolve(ArchiveRequest(model="echo", handler="mine:echo"), places, cache)

    assert (
        found.model,
        found.version,
        found.handler,
        found.runtime,
        found.url,
    ) == ("echo", "1.0", "mine:echo", "python", "")
    assert found.model_dir is None
    assert found.content_hash is None


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (ArchiveRequest(), InvalidParameter, "Parameter url is required."),
        (ArchiveRequest(model="m"), InvalidParameter, "Parameter url is required."),
        (ArchiveRequest(handler="m:f"), InvalidParameter, "Parameter model_name is required."),
        (ArchiveRequest(url="", handler="m:f"), ArchiveUrlEmpty, "empty url"),
        (ArchiveRequest(url="x.mar"), ArchiveNotFound, "Model not found at: x.mar"),
        (
            ArchiveRequest(url="x.mar", runtime="ruby"),
            RuntimeInvalid,
            "Invalid RuntimeType value: ruby",
        ),
        (ArchiveRequest(url="plain.mar"), ManifestInvalid, "Model name is not defined."),
        (ArchiveRequest(url="bad.mar"), ArchiveUnreadable, "Failed to save model: bad.mar"),
    ],
)
def test_faults_have_the_contracts_texts(
    store: Path,
    places: ArchivePlaces,
    cache: ArchiveCache,
    archives: Any,
    request_: ArchiveRequest,
    error: type[Exception],
    message: str,
) -> None:
    """Contract 1.6, and no use of a copy is left counted."""
    (store / "plain.mar").write_bytes(archives.zip({"h.py": b""}))
    (store / "bad.mar").write_bytes(b"PK\x03\x04 rubbish")

    with pytest.raises(error) as caught:
        resolve(request_, places, cache, Terms(should_stop=lambda: False))

    assert str(caught.value) == message
    assert unused(cache)


@pytest.mark.parametrize("name", ["../x", "_x", "a b", "a/b", "x" * 129, "é"])
def test_names_are_checked_wherever_they_come_from(
    store: Path, places: ArchivePlaces, cache: ArchiveCache, archives: Any, name: str
) -> None:
    """They become parts of URLs and log lines; the peer checks nothing here."""
    (store / "x.mar").write_bytes(archives.mar(modelName=name))
    (store / "y.mar").write_bytes(archives.mar(modelVersion=name))

    for request in (
        ArchiveRequest("x.mar"),
        ArchiveRequest("y.mar"),
        ArchiveRequest("x.mar", model=name),
        ArchiveRequest("x.mar", model="m", version=name),
        ArchiveRequest(model=name, handler="m:f"),
    ):
        with pytest.raises(InvalidParameter):
            resolve(request, places, cache)
    assert unused(cache)


def test_without_a_manifest_request_and_settings_fill_in(
    store: Path, places: ArchivePlaces, cache: ArchiveCache, archives: Any
) -> None:
    """Contract 6.2, last but one."""
    (store / "x.mar").write_bytes(archives.zip({"h.py": b""}))

    found = resolve(
        ArchiveRequest("x.mar", default_model="from_file", default_handler="h"), places, cache
    )

    assert (
        found.model,
        found.version,
        found.handler,
        found.manifest,
    ) == ("from_file", "1.0", "h", None)


def test_a_model_without_any_handler_is_refused(
    store: Path, places: ArchivePlaces, cache: ArchiveCache, archives: Any
) -> None:
    """Its workers could only fail, later and less clearly."""
    (store / "x.mar").write_bytes(archives.zip({"h.py": b""}))

    with pytest.raises(ManifestInvalid, match=r"^Handler is not defined\.$"):
        resolve(ArchiveRequest("x.mar", model="m"), places, cache)


def test_a_directory_is_used_where_it_is(
    store: Path, places: ArchivePlaces, cache: ArchiveCache, archives: Any, tmp_path: Path
) -> None:
    """No copy, no link; the lone inner folder counts (contract 3.2.6)."""
    inner = store / "demo" / "inner"
    (inner / "MAR-INF").mkdir(parents=True)
    (inner / "MAR-INF" / "MANIFEST.json").write_bytes(archives.manifest())

    found = resolve(ArchiveRequest("demo"), places, cache)

    assert inner == found.model_dir
    assert found.content_hash is None
    assert not (tmp_path / "cache" / "archives" / "demo").exists()


def test_the_config_is_read_and_its_oddities_are_told(
    store: Path, places: ArchivePlaces, cache: ArchiveCache, archives: Any
) -> None:
    """Both the typed record for us and the document for the handler."""
    (store / "x.mar").write_bytes(
        archives.zip(
            {
                "MAR-INF/MANIFEST.json": archives.manifest(
                    configFile="conf/m.yaml", requirementsFile="gone.txt"
                ),
                "conf/m.yaml": b"batchSize: 4\nminWorkers: x\nhandler: {a: 1}\n",
            }
        )
    )

    found = resolve(ArchiveRequest("x.mar"), places, cache)

    assert found.config is not None
    assert found.config.batch_size == 4
    assert found.config_raw["handler"] == {"a": 1}
    assert found.requirements_file is None
    assert len(found.warnings) == 2


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "link.yaml", "a\\b"])
def test_a_manifest_points_inside_its_archive_only(
    store: Path,
    places: ArchivePlaces,
    cache: ArchiveCache,
    archives: Any,
    tmp_path: Path,
    name: str,
) -> None:
    """Its file names come from the client; a directory may hold links besides."""
    (tmp_path / "secret.yaml").write_text("a: 1")
    model = store / "demo"
    (model / "MAR-INF").mkdir(parents=True)
    (model / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    for entry in ("configFile", "requirementsFile"):
        (model / "MAR-INF" / "MANIFEST.json").write_bytes(archives.manifest(**{entry: name}))

        with pytest.raises(ManifestInvalid, match="leads out of the archive"):
            resolve(ArchiveRequest("demo"), places, cache)


def test_a_remote_archive_is_fetched_unpacked_and_told(
    site: tuple[str, Path], places: ArchivePlaces, cache: ArchiveCache, archives: Any
) -> None:
    """Registering it twice works; the peer answers 500 the second time."""
    address, folder = site
    (folder / "demo.tar.gz").write_bytes(
        archives.tar(
            [("demo/h.py", b""), ("demo/MAR-INF/MANIFEST.json", archives.manifest(handler="h"))]
        )
    )
    told: list[int] = []

    request = ArchiveRequest(f"{address}/demo.tar.gz")
    terms = Terms(progress=lambda done, total: told.append(done))
    first = resolve(request, places, cache, terms)
    second = resolve(request, places, cache)

    assert first == second
    assert told[-1] == (folder / "demo.tar.gz").stat().st_size
    assert list(places.downloads_dir.iterdir()) == []


def test_a_known_copy_needs_neither_network_nor_store(
    site: tuple[str, Path],
    store: Path,
    places: ArchivePlaces,
    cache: ArchiveCache,
    archives: Any,
) -> None:
    """A restart brings back the very files that were registered."""
    address, folder = site
    for path in (folder / "a.mar", store / "b.mar"):
        path.write_bytes(archives.mar())
    for url in (f"{address}/a.mar", "b.mar"):
        known = resolve(ArchiveRequest(url), places, cache).content_hash
        for path in (folder / "a.mar", store / "b.mar"):
            if path.name == url[-5:]:
                path.unlink()

        again = resolve(ArchiveRequest(url, known_hash=known), places, cache)

        assert known == again.content_hash
        with pytest.raises(ArchiveError):
            resolve(ArchiveRequest(url, known_hash="0" * 64), places, cache)
        with pytest.raises(ArchiveError):
            resolve(ArchiveRequest(url), places, cache)


def test_s3_needs_its_credentials(
    site: tuple[str, Path], places: ArchivePlaces, cache: ArchiveCache
) -> None:
    """Missing environment is a download error, before anything is asked."""
    request = ArchiveRequest(f"{site[0]}/demo.mar", s3_sse_kms=True)

    with pytest.raises(DownloadFailed) as caught:
        resolve(request, places, cache, Terms(environment={}))

    assert "AWS_ACCESS_KEY_ID" in caught.value.details["reason"]


@pytest.mark.parametrize("archive_format", ["default", "zip-store", "tgz", "no-archive"])
def test_what_is_packed_can_be_resolved(
    store: Path,
    places: ArchivePlaces,
    cache: ArchiveCache,
    tmp_path: Path,
    tree: Tree,
    archive_format: str,
) -> None:
    """Packing and reading agree in every format."""
    handler = tmp_path / "my_handler.py"
    handler.write_text("def f(data, context): return data\n")
    config = tmp_path / "model-config.yaml"
    config.write_text("batchSize: 3\n")
    extra = tmp_path / "extra"
    for name in ("a.txt", "deep/b.txt", ".git/config", "__pycache__/x.pyc", "__MACOSX/y"):
        (extra / name).parent.mkdir(parents=True, exist_ok=True)
        (extra / name).write_text(name)
    parts = Parts("demo", f"{handler}:f", version="3.1", extra_files=(extra,), config_file=config)

    path = pack(parts, store, archive_format)
    found = resolve(ArchiveRequest(path.name), places, cache)

    assert (found.model, found.version, found.handler) == ("demo", "3.1", "my_handler.py:f")
    assert found.config is not None
    assert found.config.batch_size == 3
    assert found.model_dir is not None
    assert set(tree(found.model_dir)) == {
        "MAR-INF/MANIFEST.json",
        "a.txt",
        "deep/b.txt",
        "model-config.yaml",
        "my_handler.py",
    }


def test_stopping_ends_every_step(
    store: Path, places: ArchivePlaces, cache: ArchiveCache, archives: Any
) -> None:
    """An orderly stop waits for no archive."""
    (store / "x.mar").write_bytes(archives.mar())

    with pytest.raises(ArchiveUnreadable):
        resolve(ArchiveRequest("x.mar"), places, cache, Terms(should_stop=lambda: True))


def test_no_message_shows_a_path_of_ours(
    store: Path, places: ArchivePlaces, cache: ArchiveCache, archives: Any, tmp_path: Path
) -> None:
    """Issue point 10: no internal path in a message."""
    (store / "yaml.mar").write_bytes(
        archives.zip(
            {"MAR-INF/MANIFEST.json": archives.manifest(configFile="m.yaml"), "m.yaml": b"["}
        )
    )
    (store / "slip.mar").write_bytes(archives.zip({"../x": b""}))
    (store / "cut.mar").write_bytes(io.BytesIO(archives.mar()).read(50))
    (store / "shut.mar").write_bytes(b"x")

    for url in ("yaml.mar", "slip.mar", "cut.mar", "shut.mar", "none.mar"):
        with pytest.raises(ArchiveError) as caught:
            resolve(ArchiveRequest(url), places, cache)
        assert str(tmp_path) not in f"{caught.value.message} {caught.value.details}"
