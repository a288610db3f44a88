"""serving.properties, engines and devices: contracts/djl-serving.md 6.3, 10, 11."""

from __future__ import annotations

import zipfile

import pytest

from stoker.archives.archive import ArchiveRequest
from stoker.archives.devices import parse_devices
from stoker.archives.engines import check_engine, detect_engine
from stoker.archives.obtaining import ArchivePlaces, open_cache
from stoker.archives.resolve import resolve
from stoker.archives.serving_properties import parse_serving_properties
from stoker.errors import EngineMissing, EngineUnknown, InvalidParameter, ManifestInvalid

HANDLER = "def handle(inputs):\n    return None\n"


def test_keys_of_the_server_and_options_of_the_handler_come_apart():
    """
    11.
    """
    found = parse_serving_properties(
        b"engine=Python\nbatch_size=8\nmax_batch_delay=20\nmax_idle_time=30\njob_queue_size=7\n"
        b"minWorkers=2\nmaxWorkers=4\noption.predict_timeout=9\noption.model_loading_timeout=99\n"
        b"option.entryPoint=serve.py\noption.handler=run\noption.model_id=org/x\ntopK=5\n"
    )

    config = found.config
    assert (found.engine, found.entry_point, found.function) == ("Python", "serve.py", "run")
    assert (config.batch_size, config.max_batch_delay_s, config.max_idle_s) == (8, 0.02, 30.0)
    assert (config.job_queue_size, config.worker_bounds()) == (7, (2, 4))
    assert (config.response_timeout_s, config.startup_timeout_s) == (9, 99)
    assert found.options["model_id"] == "org/x"
    assert found.options["topK"] == "5"
    assert "batch_size" not in found.options


def test_what_is_said_of_memory_is_read():
    """
    11: of the host, and of GPUs.
    """
    found = parse_serving_properties(
        b"required_memory_mb=1\nreserved_memory_mb=2\n"
        b"gpu.required_memory_mb=3\ngpu.reserved_memory_mb=4\n"
    )

    config = found.config
    assert (config.required_memory_mb, config.reserved_memory_mb) == (1, 2)
    assert (config.gpu_required_memory_mb, config.gpu_reserved_memory_mb) == (3, 4)


def test_numbers_of_a_device_are_stronger_than_those_of_all():
    """
    6.2, and `max_dynamic_batch_size` means the batch size.
    """
    text = b"cpu.minWorkers=3\nminWorkers=1\nmaxWorkers=5\nload_on_devices=cpu\n"

    found = parse_serving_properties(text + b"max_dynamic_batch_size=4\n").config

    assert (found.worker_bounds(), found.device_type, found.batch_size) == ((3, 5), "cpu", 4)


@pytest.mark.parametrize(
    "text",
    [
        b"batch_size=many",
        b"batch_size=0",
        b"load_on_devices=tpu",
        b"option.rolling_batch=vllm",
        b"option.async_mode=true",
        b"option.mpi_mode=true",
        b"a=\\u12",
    ],
)
def test_what_cannot_be_is_refused_with_its_name(text):
    """
    A server that ignored it would answer wrongly.
    """
    with pytest.raises(ManifestInvalid, match=r"serving\.properties"):
        parse_serving_properties(text)


def test_options_that_are_switched_off_are_no_obstacle():
    """
    11: `rolling_batch=disable` is how archives say it.
    """
    text = b"option.rolling_batch=disable\noption.async_mode=false\n"

    assert parse_serving_properties(text).options["rolling_batch"] == "disable"


def test_several_gpus_of_one_worker():
    """
    6.3: tensor times pipeline parallel degree.
    """
    text = b"option.tensor_parallel_degree=2\noption.pipeline_parallel_degree=2\n"

    config = parse_serving_properties(text).config

    assert (config.parallel_type, config.parallel_level) == ("custom", 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (None, ())),
        ("*", (None, ())),
        ("-1", ("cpu", ())),
        ("cpu", ("cpu", ())),
        ("gpu0", ("gpu", (0,))),
        ("1;gpu0;1", ("gpu", (1, 0))),
    ],
)
def test_devices_are_named_as_the_peer_names_them(text, expected):
    """
    6.3.
    """
    assert parse_devices(text) == expected


@pytest.mark.parametrize("text", ["nc0", "gpu", "cpu;gpu0", "gpu-1"])
def test_devices_that_nobody_has_are_refused(text):
    """
    6.3.
    """
    with pytest.raises(InvalidParameter, match="device"):
        parse_devices(text)


@pytest.mark.parametrize("engine", ["MXNet", "OnnxRuntime", "Rust", "MPI", "Abacus"])
def test_an_engine_that_needs_java_is_refused_with_a_way_out(engine):
    """
    10: said before anything is loaded.
    """
    with pytest.raises(EngineMissing, match="engine=Python"):
        check_engine(engine, "m.zip")


def test_python_is_python_however_it_is_spelled():
    """
    10.
    """
    assert check_engine("python", "m.zip") == "Python"


@pytest.mark.parametrize(
    ("names", "engine"),
    [
        (["model.py"], "Python"),
        (["model.py", "model.pt"], "Python"),
        (["model.pt"], "PyTorch"),
        (["saved_model.pb"], "TensorFlow"),
        (["x.onnx"], "OnnxRuntime"),
        (["x.joblib"], "Python"),
        (["config.json"], "Python"),
        (["mlp-0000.params"], "MXNet"),
    ],
)
def test_files_say_what_an_archive_is_for(tmp_path, names, engine):
    """
    10.
    """
    for name in names:
        (tmp_path / name).touch()

    assert detect_engine(tmp_path, {}, "m") == engine


def test_files_that_say_nothing(tmp_path):
    """
    10.
    """
    (tmp_path / "notes.txt").touch()

    with pytest.raises(EngineUnknown, match="Failed to detect engine"):
        detect_engine(tmp_path, {}, "m")


@pytest.fixture
def places(tmp_path):
    (tmp_path / "store").mkdir()
    return ArchivePlaces(model_store=tmp_path / "store", cache_dir=tmp_path / "cache")


def read(places, name, **about):
    cache = open_cache(places)
    return resolve(ArchiveRequest(url=name, model="m", **about), places, cache)


def test_a_zip_with_one_folder_is_entered(places):
    """
    9: `mlp.zip` often holds `mlp/`.
    """
    with zipfile.ZipFile(places.model_store / "m.zip", "w") as file:
        file.writestr("m/serving.properties", "engine=Python\nbatch_size=2\n")
        file.writestr("m/model.py", HANDLER)
        file.writestr("m/requirements.txt", "")

    archive = read(places, "m.zip", engine="")

    assert (archive.contract, archive.handler) == ("djl", "model.py:handle")
    assert archive.config.batch_size == 2
    assert archive.requirements_file is not None


def test_a_folder_with_a_model_py_needs_nothing_else(places):
    """
    10: behind any listener; a request that names a handler means another kind of archive.
    """
    (places.model_store / "plain").mkdir()
    (places.model_store / "plain" / "model.py").write_text(HANDLER)

    assert read(places, "plain").contract == "djl"
    assert read(places, "plain", handler="model:handle").contract == "torchserve"


def test_a_mar_stays_what_it_is(places, tmp_path):
    """
    9: the archive decides, not who asks.
    """
    with zipfile.ZipFile(places.model_store / "m.mar", "w") as file:
        file.writestr("MAR-INF/MANIFEST.json", '{"model": {"modelName": "m", "handler": "h:f"}}')
        file.writestr("h.py", "")
        file.writestr("serving.properties", "batch_size=3\n")

    archive = read(places, "m.mar", engine="")

    assert (archive.contract, archive.config.batch_size) == ("torchserve", 3)


def test_an_entry_point_that_is_not_there_is_said_at_once(places):
    """
    Before a worker is started for it.
    """
    (places.model_store / "m").mkdir()
    (places.model_store / "m" / "serving.properties").write_text(
        "engine=Python\noption.entryPoint=serve.py\n"
    )

    with pytest.raises(ManifestInvalid, match=r"serve\.py is not in the archive"):
        read(places, "m")


def test_what_is_no_archive_of_anybody_depends_on_who_asks(places):
    """
    TorchServe's clients know one text, DJL's another.
    """
    (places.model_store / "m").mkdir()
    (places.model_store / "m" / "notes.txt").touch()

    with pytest.raises(ManifestInvalid, match="Handler is not defined"):
        read(places, "m")
    with pytest.raises(EngineUnknown):
        read(places, "m", engine="")


def test_a_torchscript_file_needs_no_handler(places):
    """
    10: engine PyTorch, named or meant, unless the archive has a model.py.
    """
    (places.model_store / "m").mkdir()
    (places.model_store / "m" / "m.pt").touch()

    assert read(places, "m").handler == "stoker.worker.djl.torchscript:handle"
    assert read(places, "m", engine="pytorch").contract == "djl"
    (places.model_store / "m" / "model.py").write_text(HANDLER)
    assert read(places, "m", engine="PyTorch").handler == "model.py:handle"


def test_a_translator_is_java(places):
    """
    11: a class name, which nothing here could load.
    """
    (places.model_store / "m").mkdir()
    (places.model_store / "m" / "m.pt").touch()
    (places.model_store / "m" / "serving.properties").write_text("translator=ai.djl.X\n")

    with pytest.raises(EngineMissing, match=r"translator=ai\.djl\.X is a Java class"):
        read(places, "m")
