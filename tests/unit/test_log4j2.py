"""What is taken from a log4j2 file."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.errors import SettingsError
from stoker.settings.load import load_with_origins
from stoker.settings.log4j2 import read_log4j2

CONFIG = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <RollingFile name="access_log" fileName="logs/access_log.log"><PatternLayout/></RollingFile>
    <Console name="STDOUT" target="SYSTEM_OUT"><{layout}/></Console>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="info"><AppenderRef ref="access_log"/></Logger>
    <Logger name="org.pytorch.serve" level="{level}"/>
    <Root level="info"><AppenderRef ref="STDOUT"/></Root>
  </Loggers>
</Configuration>
"""


def write(folder: Path, level: str = "warn", layout: str = "PatternLayout") -> Path:
    path = folder / "log4j2.xml"
    path.write_text(CONFIG.replace("{level}", level).replace("{layout}", layout))
    return path


@pytest.mark.parametrize(
    ("said", "meant"),
    [("trace", "debug"), ("DEBUG", "debug"), ("warn", "warning"), ("off", "error")],
)
def test_the_level_of_the_servers_own_logger_is_taken(
    tmp_path: Path, said: str, meant: str
) -> None:
    """
    It is what an operator turns in that file.
    """
    assert read_log4j2(write(tmp_path, said)).level == meant


def test_a_level_we_do_not_know_leaves_the_roots(tmp_path: Path) -> None:
    """
    log4j2 knows custom levels; guessing one would hide lines.
    """
    assert read_log4j2(write(tmp_path, "custom")).level == "info"


def test_what_is_taken_and_what_is_not_is_said(tmp_path: Path) -> None:
    """
    Nobody should wait for a file that never comes.
    """
    path = write(tmp_path, layout="JsonTemplateLayout")

    loaded = load_with_origins(["--log-config", str(path)], {})

    assert loaded.settings.log_level == "warning"
    assert loaded.settings.log_format == "json"
    assert loaded.notes == (
        f"log_config {path}: log_level=warning, log_format=json taken from it; "
        "without effect: access_log, logger ACCESS_LOG",
    )


def test_our_own_settings_beat_the_file(tmp_path: Path) -> None:
    """
    `--log-level debug` for one start must not need an edited file.
    """
    flags = ["--log-config", str(write(tmp_path)), "--log-level", "debug"]

    assert load_with_origins(flags, {}).settings.log_level == "debug"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"log4j.rootLogger=info\n", "is not XML"),
        (b"<Configuration><Loggers></Configuration>", "is not XML"),
        (b'<!DOCTYPE a [<!ENTITY b SYSTEM "/etc/passwd">]><a>&b;</a>', "has a document type"),
        (b"<a>" + b" " * (1 << 20) + b"</a>", "is larger than"),
    ],
)
def test_a_file_that_is_no_plain_xml_is_refused(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    """
    It may come from anywhere, and XML can ask for other files.
    """
    path = tmp_path / "log4j2.xml"
    path.write_bytes(content)

    with pytest.raises(SettingsError, match=expected):
        read_log4j2(path)


def test_a_missing_file_is_the_peers_refusal(tmp_path: Path) -> None:
    """
    Section 9.1.
    """
    with pytest.raises(SettingsError, match=r"--log-config file not found: .*gone\.xml"):
        read_log4j2(tmp_path / "gone.xml")
