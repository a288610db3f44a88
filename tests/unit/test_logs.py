"""Log lines for people, for programs and for the journal."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from stoker.logs import configure, get_logger
from stoker.settings import Settings


@pytest.fixture
def logged() -> Iterator[Callable[..., Callable[[], str]]]:
    """`logged(log_level=..., ...)` configures; what it returns reads what was written."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    root = logging.getLogger()
    before = (root.handlers[:], root.level)

    def start(**settings: str) -> Callable[[], str]:
        configure(Settings(**settings), "supervisor", fd=writer)
        return read

    def read() -> str:
        try:
            return os.read(reader, 1 << 20).decode()
        except BlockingIOError:
            return ""

    yield start
    root.handlers[:], root.level = before
    configure(Settings(), "")
    root.handlers[:], root.level = before
    os.close(reader)
    os.close(writer)


def test_a_line_is_a_sentence_and_then_facts(logged):
    """
    People read the sentence, programs the keys.
    """
    read = logged()

    get_logger("dispatch").warning("worker lost", worker=7, exit="SIGKILL", memory=1.23456789)

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning supervisor/dispatch: "
        r"worker lost worker=7 exit=SIGKILL memory=1\.23457\n",
        read(),
    )


def test_a_value_cannot_forge_a_line_or_a_key(logged):
    """
    Model names, header values and exceptions come from strangers.
    """
    read = logged()

    get_logger("http").info(
        "refused", name="a b=c", line="x\n2026 error forged", terminal="\x1b[31m", empty=""
    )

    text = read()
    assert text.count("\n") == 1
    assert r'name="a b=c" line="x\n2026 error forged" terminal="\u001b[31m" empty=""' in text


def test_a_very_long_value_is_cut(logged):
    """
    One bad value must not fill the disk.
    """
    read = logged()

    get_logger("http").info("refused", body="x" * 100_000)

    assert len(read()) < 5000


def test_lines_in_the_peers_pattern_have_its_fields(logged):
    """
    For scripts that grep TorchServe's logs: `{ISO8601} [{LEVEL}] {thread} {logger} - {message}`.
    """
    read = logged(log_format="ts")

    get_logger("dispatch").warning("worker lost", worker=7, exc_info=ValueError("a\nb"))

    lines = read().splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} \[WARN \] supervisor dispatch - "
        r"worker lost worker=7",
        lines[0],
    )
    assert all(line.startswith("    ") for line in lines[1:])


def test_json_lines_carry_the_same_facts(logged):
    """
    For log shippers.
    """
    read = logged(log_format="json")

    get_logger("dispatch").error("worker lost", worker=7, note="a\nb", models=("x", "y"))

    line = json.loads(read())
    assert {
        "level": "error",
        "process": "supervisor",
        "pid": os.getpid(),
        "room": "dispatch",
        "event": "worker lost",
        "worker": 7,
        "note": "a\nb",
        "models": ["x", "y"],
    } == {key: value for key, value in line.items() if key != "timestamp"}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_brings_its_traceback(logged, log_format):
    """
    The operator needs it; the client never sees it.
    """
    read = logged(log_format=log_format)

    try:
        raise ValueError("odd")
    except ValueError:
        get_logger("loop").exception("turn failed", turn=3)

    text = read()
    assert "turn failed" in text
    assert "ValueError: odd" in text
    assert "Traceback" in text


def test_levels_below_the_chosen_one_are_silent(logged):
    """
    And a logger made before the configuration obeys it too.
    """
    log = get_logger("early")
    log.debug("touched before")
    read = logged(log_level="warning")

    log.info("no")
    log.warning("yes")

    assert "no" not in read().split()
    logged(log_level="debug")
    log.debug("now")
    assert "early: now" in read()


def test_the_journal_gets_priorities_and_no_second_clock(logged, monkeypatch):
    """
    journald reads the prefix of each line, and stamps the time itself.
    """
    reader, writer = os.pipe()
    status = os.fstat(writer)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    logged()
    configure(Settings(), "supervisor", fd=writer)

    try:
        raise ValueError("odd")
    except ValueError:
        get_logger("loop").exception("turn failed")
    get_logger("loop").info("well")
    lines = os.read(reader, 1 << 16).decode().splitlines()
    os.close(reader)
    os.close(writer)

    assert lines[0] == "<3>error   supervisor/loop: turn failed"
    assert all(line.startswith("<3>") for line in lines[:-1])
    assert lines[-1] == "<6>info    supervisor/loop: well"


def test_an_inherited_journal_variable_alone_changes_nothing(logged, monkeypatch):
    """
    A child whose output goes to a file inherits JOURNAL_STREAM all the same.
    """
    monkeypatch.setenv("JOURNAL_STREAM", "8:12345")
    read = logged()

    get_logger("loop").info("well")

    assert read().startswith("20")


def test_libraries_speak_through_the_same_lines(logged):
    """
    asyncio's complaint about a lost exception must not be lost itself.
    """
    read = logged()

    logging.getLogger("asyncio").error("Task exception was never %s", "retrieved")
    logging.getLogger("chatty").info("hello")

    assert "error   supervisor/asyncio: Task exception was never retrieved\n" in read()


def test_a_reader_that_went_away_does_not_stop_us():
    """
    `stoker serve | head` must not kill the server by its own log.
    """
    reader, writer = os.pipe()
    os.close(reader)
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    configure(Settings(), "supervisor", fd=writer)

    get_logger("loop").info("into nowhere")

    configure(Settings(), "")
    root.handlers[:], root.level = before
    os.close(writer)


def test_a_log_line_costs_no_library():
    """
    Every process logs; what logging imports, all of them carry and wait for at their start.
    """
    code = (
        "import sys, stoker.logs as l; before = set(sys.modules); "
        "l.get_logger('x').info('hello'); print(len(set(sys.modules) - before), "
        "'structlog' in sys.modules, 'asyncio' in sys.modules)"
    )

    said = subprocess.check_output(
        [sys.executable, "-P", "-c", code], stderr=subprocess.DEVNULL, timeout=30
    )

    assert said == b"0 False False\n"
