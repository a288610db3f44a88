"""`stoker doctor PATH`, as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoker.cli.doctor.findings import ArchiveReport, Finding, Report, Severity
from stoker.cli.doctor.start_scripts import find_commands, judge
from stoker.cli.doctor.table import lines


class Doctor:
    """An installation to be looked at, and the command."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "store").mkdir(parents=True)

    def write(self, name: str, text: str | bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def __call__(self, *words: str) -> tuple[int, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "stoker.cli", "doctor", *words],
            capture_output=True,
            check=False,
            text=True,
            env=kept,
            timeout=120,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    def report(self) -> tuple[int, dict[str, Any]]:
        code, out = self(str(self.root), "--json")
        document: dict[str, Any] = json.loads(out)
        return code, document

    def tree(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    return Doctor(tmp_path / "ts")


@pytest.mark.slow
def test_a_whole_installation_is_read_and_left_as_it_was(doctor, build):
    """
    Configuration, start script, log configuration, store: one look at all of it.
    """
    doctor.write(
        "config.properties",
        "model_store=store\nvmargs=-Xmx4g\nload_models=good.mar,gone.mar\n"
        "grpc_inference_port=7000\nown_key=1\n",
    )
    doctor.write("start.sh", "exec torchserve --start \\\n  --ncs --ppath /plugins $MORE\n")
    doctor.write(
        "log4j2.xml", '<Configuration><Loggers><Root level="warn"/></Loggers></Configuration>'
    )
    doctor.write("store/good.mar", build.mar({"handler.py": build.handler}, modelName="good"))
    doctor.write("store/bad.mar", b"PK\x03\x04 nonsense")
    before = doctor.tree()

    code, document = doctor.report()

    assert code == 2
    assert document["severity"] == "fails"
    said = [(f["severity"], f["subject"], f["text"]) for f in document["installation"]]
    assert ("fails", "load_models", "Model not found at: gone.mar") in said
    assert ("differs", "settings", "not yet in effect: grpc_inference_port") in said
    assert ("differs", "settings", "unknown and ignored: own_key (line 5)") in said
    assert ("note", "settings", "understood but without effect: vmargs") in said
    assert ("differs", "start.sh:1", "--plugins-path: Java plugins do not load") in said
    assert ("works", "settings", "model_store, load_models") in said
    assert any(s == "log4j2.xml" and "log_level=warning" in t for _, s, t in said)
    verdicts = {a["archive"]: (a["model"], a["severity"]) for a in document["archives"]}
    assert verdicts == {"good.mar": ("good", "works"), "bad.mar": ("", "fails")}
    assert doctor.tree() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "code"),
    [
        ("model_store=store\n", 0),
        ("model_store=store\ngrpc_inference_port=7070\n", 1),
        ("model_store=store\njob_queue_size=many\n", 2),
        ("model_store=store\nmanagement_address=http://0.0.0.0:8081\n", 2),
    ],
)
def test_the_exit_code_says_how_bad_it_is(doctor, build, config, code):
    """
    0 works, 1 differs, 2 will not work: for the scripts of a fleet.
    """
    doctor.write("config.properties", config)
    doctor.write("store/good.mar", build.mar({"handler.py": build.handler}))

    assert doctor.report()[0] == code


@pytest.mark.slow
def test_people_get_a_table_with_the_worst_on_top(doctor, build):
    """
    And what to do about it.
    """
    doctor.write("config.properties", "model_store=store\n")
    doctor.write("store/demo.mar", build.mar({"a.txt": "x"}, handler="text_classifier"))

    code, out = doctor(str(doctor.root))

    assert code == 2
    assert out.splitlines()[0] == str(doctor.root)
    assert (
        "demo.mar  demo 1.0: will not work\n"
        "  fails    text_classifier: is a built-in handler of TorchServe that stoker "
        "does not have\n"
        "             -> put a handler of your own into the archive\n"
    ) in out
    assert out.endswith("installation: works; archives: 1 will not work\n")


@pytest.mark.slow
def test_one_archive_can_be_looked_at_alone(doctor, build):
    """
    Before it is copied anywhere; a configuration beside it does not matter.
    """
    doctor.write("store/demo.mar", build.mar({"handler.py": build.handler}))
    doctor.write("store/config.properties", "nonsense=1\n")

    code, out = doctor(str(doctor.root / "store" / "demo.mar"))

    assert code == 0
    assert "works    handler.py: class Handler" in out


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path):
    """
    Nothing was looked at, so none of 0, 1, 2 would be true.
    """
    from stoker.cli.main import main

    assert main(["doctor", str(tmp_path / "gone")]) == 64


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("start.sh", "torchserve --start --ncs\n", ["--start", "--ncs"]),
        ("run", "cd /home/torchserve && torchserve --stop\n", ["--stop"]),
        ("run", "x && /opt/bin/torchserve --stop; y\n", ["--stop"]),
        ("a.service", "ExecStart=/usr/bin/torchserve --foreground\n", ["--foreground"]),
        ("Dockerfile", 'CMD ["torchserve", "--start", "--ncs"]\n', ["--start", "--ncs"]),
        ("entrypoint.sh", "torchserve --start --models \\\n a=b.mar &\n", None),
        ("start.sh", "# torchserve --start\n", []),
        ("start.sh", "torchserve --start --ncs 2>&1 | tee log\n", ["--start", "--ncs"]),
        ("start.sh", "pip install torchserve torch-model-archiver\n", []),
        ("start.sh", "torchserve --start 'unclosed\n", ["--start", "'unclosed"]),
        ("notes.md", "torchserve --start\n", []),
    ],
)
def test_start_commands_are_found_where_people_keep_them(tmp_path, name, text, words):
    """
    Scripts, unit files, container recipes; not prose and not package lists.
    """
    (tmp_path / name).write_text(text)

    found = [list(command.words) for command in find_commands(tmp_path)]

    expected = ["--start", "--models", "a=b.mar"] if words is None else words
    assert found == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("line", "severity", "said"),
    [
        ("torchserve --start --ncs", Severity.WORKS, "torchserve --start --ncs"),
        ("torchserve --start --stop", Severity.FAILS, "the command line: argument --stop"),
        ("torchserve --start --gpu 3", Severity.FAILS, "--gpu is not a flag of TorchServe 0.12"),
        ("torchserve --cpp-log-config x", Severity.NOTE, "--cpp-log-config: without effect"),
    ],
)
def test_a_start_commands_flags_are_judged(tmp_path, line, severity, said):
    """
    By the very grammar that `stoker torchserve` has.
    """
    (tmp_path / "start.sh").write_text(line)
    (command,) = find_commands(tmp_path)

    _, findings = judge(command)

    assert [(f.severity, f.subject) for f in findings] == [(severity, "start.sh:1")]
    assert findings[0].text.startswith(said)


def test_an_archives_words_cannot_move_the_cursor():
    """
    They come from strangers and end in a terminal.
    """
    report = Report("/ts", findings=[Finding(Severity.NOTE, "x", "a\x1b[2Jb\rc")])
    report.archives.append(ArchiveReport("m.mar", findings=[Finding(Severity.FAILS, "y", "d\ne")]))

    text = "\n".join(lines(report))

    assert "a?[2Jb?c" in text
    assert "d?e" in text
