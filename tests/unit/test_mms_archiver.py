"""`stoker mms-archiver`, flags and exit codes: contracts/mms.md 9.6."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stoker.archives.mms_pack import FORMATS
from stoker.cli.main import main
from stoker.cli.mms_archiver import _FORMATS


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What must be said; run in an empty folder."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "service.py").write_text("def handle(data, context): ...\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model = str(tmp_path / "model")
    return ["--model-name", "m", "--model-path", model, "--handler", "service:handle"]


def test_a_script_of_the_peer_makes_an_archive_here(words: list[str]) -> None:
    """The whole command, as an alias runs it: 0, then 1 for what exists, and 0 by force."""

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "stoker.cli", "mms-archiver", *words, *more],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    first, second, third = run(), run(), run("-f")

    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    assert second.returncode == 1
    assert second.stderr.endswith("m.mar already exists.\n")
    assert third.returncode == 0
    with zipfile.ZipFile("m.mar") as archive:
        assert set(archive.namelist()) == {"service.py", "MAR-INF/MANIFEST.json"}


@pytest.mark.parametrize(
    ("more", "made"),
    [
        (["--archive-format", "default", "--runtime", "python3"], "here/m.mar"),
        (["--archive-format", "tgz", "--force"], "here/m.tar.gz"),
        (["--archive-format", "no-archive"], "here/m"),
        (["--export-path", ".."], "m.mar"),
        (["--export", ".."], "m.mar"),
    ],
)
def test_every_flag_means_what_it_means_there(
    words: list[str], tmp_path: Path, more: list[str], made: str
) -> None:
    """Abbreviations, too."""
    assert main(["mms-archiver", *words, *more]) == 0
    assert (tmp_path / made).exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["-c"], "--convert is not possible: stoker does not turn ONNX"),
        (["--convert"], "--convert is not possible: stoker does not turn ONNX"),
        (["--runtime", "python2"], "--runtime python2 is not possible"),
    ],
)
def test_what_is_not_here_is_refused_with_the_reason(
    words: list[str], capsys: pytest.CaptureFixture[str], more: list[str], why: str
) -> None:
    """Instead of an archive that no worker can load."""
    assert main(["mms-archiver", *words, *more]) == 1
    assert why in capsys.readouterr().err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "value", "why"),
    [
        ("--model-name", "a b", "must start with a letter or digit"),
        ("--model-name", "_m", "must start with a letter or digit"),
        ("--model-path", "gone", "gone, which is not a folder"),
        ("--export-path", "gone", "gone, which is not a folder"),
    ],
)
def test_a_value_that_cannot_be_ends_with_1(
    words: list[str], capsys: pytest.CaptureFixture[str], flag: str, value: str, why: str
) -> None:
    """And says which it is."""
    assert main(["mms-archiver", *words, flag, value]) == 1
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("without", ["--model-name", "--model-path", "--handler"])
def test_what_is_required_must_be_said(words: list[str], without: str) -> None:
    """2 with the usage, as every program of this grammar."""
    at = words.index(without)

    assert main(["mms-archiver", *words[:at], *words[at + 2 :]]) == 2
    assert main(["mms-archiver", *words, "--archive-format", "rar"]) == 2
    assert main(["mms-archiver", "--help"]) == 0


def test_the_formats_of_the_flags_are_those_that_are_written() -> None:
    """The command names them by itself, so that its start imports no archives."""
    assert _FORMATS == FORMATS
