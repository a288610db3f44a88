"""What `stoker doctor` says of one archive."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import pytest

from stoker.archives.startup import StartupModel
from stoker.cli.doctor.archive import examine
from stoker.cli.doctor.findings import ArchiveReport, Severity
from stoker.settings import Settings

BASE = "from ts.torch_handler.base_handler import BaseHandler\n"


def texts(report: ArchiveReport, severity: Severity) -> list[str]:
    return [f"{f.subject}: {f.text}" for f in report.findings if f.severity is severity]


@pytest.mark.parametrize(
    ("handler", "source", "said"),
    [
        ("handler.py", "class A:\n    def handle(self, d, c): ...\n", "handler.py: class A"),
        (
            "handler",
            BASE + "class A(BaseHandler): ...\n",
            "handler.py: class A",
        ),
        ("handler.py", "def handle(data, context): ...\n", "handler.py: function handle"),
        ("handler:predict", "def predict(data, context): ...\n", "handler.py: function predict"),
        (
            "src/handler.py:predict",
            "def predict(data, context): ...\n",
            "handler.py: function predict",
        ),
        ("handler:B", "class A: ...\nclass B(A): ...\n", "handler.py: class B"),
        ("handler.py", "async def handle(data, context): ...\n", "handler.py: handle is async"),
        (
            "handler.py",
            "class A:\n    async def handle(self, d, c): ...\n",
            "handler.py: A.handle is async",
        ),
        (
            "handler.py",
            "service = object()\nhandle = service\n",
            "handler.py: handle, as it is assigned or imported there",
        ),
    ],
)
def test_an_entry_point_is_found_as_the_worker_finds_it(diagnose, build, handler, source, said):
    """
    Function before class, one class per module (7.1).
    """
    report = diagnose(build.mar({"handler.py": source}, handler=handler))

    assert report.severity is Severity.WORKS
    assert texts(report, Severity.WORKS) == [said]
    assert (report.model, report.version) == ("demo", "1.0")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class A: ...\nclass B: ...\n", "has no function handle and not exactly one class"),
        ("x = 1\n", "has no function handle and not exactly one class, but none"),
        ("class A:\n    def run(self): ...\n", "class A has no method handle and no base class"),
        ("print 'hello'\n", "is not Python 3."),
        ("import no_such_package_at_all\ndef handle(d, c): ...\n", "no_such_package_at_all: not"),
        (
            "from ts.torch_handler.dali_handler import DALIHandler\ndef handle(d, c): ...\n",
            "imports ts.torch_handler.dali_handler, which stoker does not have",
        ),
        (
            "from ts.utils.util import map_class_to_label, no_such\ndef handle(d, c): ...\n",
            "imports ts.utils.util.no_such, which stoker does not have",
        ),
    ],
)
def test_what_would_fail_to_load_is_said_before_it_does(diagnose, build, source, said):
    """
    Found here, not by the first client.
    """
    report = diagnose(build.mar({"handler.py": source}))

    assert report.severity is Severity.FAILS
    assert any(said in text for text in texts(report, Severity.FAILS)), report.findings


@pytest.mark.parametrize(
    "line",
    [
        "try:\n    import no_such_package_at_all\nexcept ImportError:\n    pass\n",
        "def later():\n    import no_such_package_at_all\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import no_such_package_at_all\n",
    ],
)
def test_an_import_that_may_fail_is_only_a_difference(diagnose, build, line):
    """
    Guarded and late imports do not stop a load.
    """
    report = diagnose(build.mar({"handler.py": line + build.handler}))

    assert report.severity is Severity.DIFFERS
    assert "perhaps needed" in texts(report, Severity.DIFFERS)[0]


def test_imports_are_followed_through_the_archive_and_no_further(diagnose, build):
    """
    A file that nobody imports may be broken; one that the handler needs may not.
    """
    files = {
        "handler.py": "from helper import x\nfrom pkg.inner import y\n" + build.handler,
        "helper.py": "import json\n",
        "pkg/__init__.py": "",
        "pkg/inner.py": "from . import deep\n",
        "pkg/deep.py": "import no_such_needed\n",
        "unused.py": "import no_such_unused\n",
        "broken.py": "def (:\n",
    }

    report = diagnose(build.mar(files))

    assert texts(report, Severity.FAILS) == [
        "imports: no_such_needed: not installed here, and needed to load the handler"
    ]
    assert len(texts(report, Severity.DIFFERS)) == 2


@pytest.mark.parametrize(
    ("handler", "severity", "said"),
    [
        ("image_classifier", Severity.WORKS, "image_classifier: is built in"),
        ("base_handler", Severity.WORKS, "base_handler: is built in"),
        ("text_classifier", Severity.FAILS, "is a built-in handler of TorchServe that stoker"),
        ("json:dumps", Severity.WORKS, "is not in the archive, but installed here"),
        ("nowhere_to_be_found", Severity.FAILS, "is neither in the archive nor installed here"),
    ],
)
def test_handlers_from_elsewhere(diagnose, build, handler, severity, said):
    """
    Built-in names, the server's own packages, and neither.
    """
    report = diagnose(build.mar({"readme.txt": "x"}, handler=handler))

    assert report.severity is severity
    assert any(said in text for text in texts(report, severity))


def test_what_the_configuration_file_asks_in_vain_is_said(diagnose, build):
    """
    Registering would be refused.
    """
    files = {
        "handler.py": build.handler,
        "model-config.yaml": "torchrun: {nnodes: 2}\nbatchSize: many\nsequenceBatching: true\n",
    }

    report = diagnose(build.mar(files, configFile="model-config.yaml"))

    assert texts(report, Severity.FAILS) == [
        "model-config.yaml: asks for torchrun.nnodes above 1, which this release does not have",
        "model-config.yaml: sequenceBatching needs a sequenceMaxIdleMSec above 0",
    ]
    assert any("batchSize is not an integer" in text for text in texts(report, Severity.DIFFERS))


# -- weights -------------------------------------------------------------------


class Opens:
    """Unpickling this would open a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return open, (str(self._path), "w")


@pytest.mark.parametrize(
    ("member", "severity", "said"),
    [
        ("model/constants.pkl", Severity.WORKS, "model.pt: is TorchScript"),
        ("model/other", Severity.NOTE, "model.pt: is of a kind that is not looked into"),
    ],
)
def test_the_kind_of_the_weights_is_read_from_the_file(diagnose, build, member, severity, said):
    """
    Its name says nothing: both kinds end in .pt.
    """
    weights = build.zip({member: b"x"})
    files = {"handler.py": BASE + "class A(BaseHandler): ...\n", "model.pt": weights}

    report = diagnose(build.mar(files, serializedFile="model.pt"))

    assert said in texts(report, severity)


def test_weights_that_hold_more_than_tensors_are_named_and_not_loaded(diagnose, build, tmp_path):
    """
    `weights_only` would refuse them; and whoever looks must not do what they say.
    """
    victim = tmp_path / "victim"
    data = pickle.dumps(Opens(victim), protocol=2)
    files = {
        "handler.py": BASE + "class A(BaseHandler): ...\n",
        "net.py": "",
        "model.pt": build.zip({"model/data.pkl": data}),
    }

    report = diagnose(build.mar(files, serializedFile="model.pt", modelFile="net.py"))

    (text,) = texts(report, Severity.FAILS)
    assert text.startswith("model.pt: unpickles more than tensors: ")
    assert "open" in text
    assert not victim.exists()


def test_eager_weights_without_a_class_to_load_them_fail(diagnose, build):
    """
    The base handler needs the manifest's modelFile.
    """
    weights = build.zip({"model/data.pkl": pickle.dumps({}, protocol=2)})

    report = diagnose(
        build.mar({"model.pt": weights}, handler="base_handler", serializedFile="model.pt")
    )

    assert "but the manifest names no modelFile" in texts(report, Severity.FAILS)[0]


def test_files_that_the_manifest_names_must_be_there(diagnose, build):
    """
    And nothing outside the archive is looked at for them.
    """
    report = diagnose(
        build.mar(
            {"handler.py": build.handler}, serializedFile="../../etc/passwd", modelFile="net.py"
        )
    )

    assert texts(report, Severity.DIFFERS) == [
        "net.py: is the manifest's modelFile, but not there",
        "../../etc/passwd: is the manifest's serializedFile, but not there",
    ]


# -- hostile and damaged ---------------------------------------------------------


def test_code_of_an_archive_is_never_run(diagnose, build, tmp_path):
    """
    Neither the handler's, nor that of a module which shadows one we import.
    """
    victim = tmp_path / "victim"
    trap = f"open({str(victim)!r}, 'w')\n"
    names = ("handler.py", "json.py", "ast.py", "stoker.py", "sitecustomize.py", "encodings.py")

    report = diagnose(build.mar(dict.fromkeys(names, trap + build.handler)))

    assert report.severity is Severity.WORKS
    assert not victim.exists()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("(" * 100_000, "is not Python"),
        ("x = " + "-" * 200_000 + "1\n", ""),
        ("x = " + "[" * 150 + "]" * 150 + "\n" + "def handle(d, c): ...\n", ""),
        ("#" + "x" * (1 << 20), "is larger than"),
        ("\0", "is not Python"),
    ],
)
def test_code_made_to_break_a_parser_breaks_only_the_parser(diagnose, build, source, said):
    """
    A stranger's file must neither crash the doctor nor hold it up.
    """
    report = diagnose(build.mar({"handler.py": source}))

    found = [*texts(report, Severity.FAILS), *texts(report, Severity.WORKS)]
    assert any(said in text for text in found), found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Failed to save model: demo.mar"),
        (b"PK\x03\x04 this is no archive", "damaged zip"),
        (b"\x1f\x8b" + b"\0" * 64, "damaged tar"),
        (struct.pack("<I", 1) * 1000, "damaged tar"),
    ],
)
def test_what_is_no_archive_is_said(diagnose, content, said):
    """
    With the reason that the server would only write to its log.
    """
    report = diagnose(content)

    assert report.severity is Severity.FAILS
    assert said in texts(report, Severity.FAILS)[0]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"../evil.py": b"x"}, "a name leads out of the archive"),
        ({"/etc/evil.py": b"x"}, "a name is absolute"),
        ({"bomb": b"\0" * (300 << 20)}, "the compression ratio is that of a bomb"),
        ({"MAR-INF/MANIFEST.json": b"{"}, "Failed to parse signature.json."),
        ({"MAR-INF/MANIFEST.json": b'{"model": {"modelName": "../x"}}'}, "model_name"),
        ({"MAR-INF/MANIFEST.json": b'{"runtime": "LSP", "model": {}}'}, "Invalid RuntimeType"),
    ],
)
def test_hostile_archives_are_refused_as_the_server_refuses_them(diagnose, build, members, said):
    """
    It is the same unpacking under the same limits.
    """
    report = diagnose(build.zip(members))

    assert report.severity is Severity.FAILS
    assert said in texts(report, Severity.FAILS)[0]


@pytest.mark.parametrize(
    ("asked", "severity", "said"),
    [
        (False, Severity.FAILS, "is not installed: install_py_dep_per_model is off, as it was"),
        (True, Severity.NOTE, "is installed before the first worker starts"),
    ],
)
def test_requirements_are_said_to_be_installed_or_not(diagnose, build, asked, severity, said):
    """
    Where they are, what is missing here is no fault; where not, nobody should find out later.
    """
    source = "import no_such_package_at_all\n" + build.handler
    content = build.mar(
        {"handler.py": source, "requirements.txt": "no-such-package-at-all\n"},
        requirementsFile="requirements.txt",
    )

    report = diagnose(content, install_py_dep_per_model=asked)

    assert report.severity is severity
    assert any(f"requirements.txt: {said}" in text for f in Severity for text in texts(report, f))


def test_unpacked_models_are_looked_at_where_they_are(tmp_path, build):
    """
    Everything that `load_models=all` would load.
    """
    folder = tmp_path / "store" / "unpacked"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(
        '{"model": {"modelName": "unpacked", "handler": "handler.py"}}'
    )
    (folder / "handler.py").write_text(build.handler)
    model = StartupModel("unpacked", None, "unpacked")

    report = examine(model, Settings(model_store=folder.parent))

    assert report.severity is Severity.WORKS
    assert (report.model, report.version) == ("unpacked", "1.0")
    assert sorted(path.name for path in folder.rglob("*")) == [
        "MANIFEST.json",
        "MAR-INF",
        "handler.py",
    ]


MMS_HANDLER = """
from mms.service import PredictionException
{line}

def handle(data, context): ...
"""


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("from mms.metrics.dimension import Dimension", Severity.WORKS),
        ("from mms.model_service.mxnet_model_service import MXNetBaseService", Severity.FAILS),
        ("import mms.nothing_of_the_kind", Severity.FAILS),
    ],
)
def test_what_handlers_of_mms_import_is_judged_too(diagnose, build, line, severity):
    """
    By the files that stand in for its package, MXNet's services aside.
    """
    report = diagnose(build.mar({"handler.py": MMS_HANDLER.format(line=line)}))

    assert report.severity is severity
