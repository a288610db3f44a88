"""Captured output: lines, floods, files, and the last words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.clock import FakeClock
from stoker.supervisor import worker_output
from stoker.supervisor.worker_output import Stream, WorkerOutput, log_name

OUT, ERR = Stream.STDOUT, Stream.STDERR
NOON = 1_795_348_800.123456  # 2026-11-22T12:00:00Z


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def output(tmp_path: Path, clock: FakeClock) -> WorkerOutput:
    output = WorkerOutput(tmp_path, 1 << 30, is_logged=False, clock=clock, wall=lambda: NOON)
    output.open(9000, "echo", "1.0")
    return output


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[], list[str]]:
    """The log file of echo 1.0, without prefixes."""
    path = tmp_path / "models" / "echo" / "1.0.log"
    return lambda: [line.split(" | ", 1)[1] for line in path.read_text().splitlines()]


def test_lines_carry_time_worker_and_stream(output: WorkerOutput, tmp_path: Path) -> None:
    """
    Several workers of a version share one file.
    """
    output.open(9001, "echo", "1.0")

    output.feed(9000, OUT, b"hello\n")
    output.feed(9001, ERR, b"oh\n")

    assert (tmp_path / log_name("echo", "1.0")).read_text() == (
        "2026-11-22T12:00:00.123Z 9000 stdout | hello\n2026-11-22T12:00:00.123Z 9001 stderr | oh\n"
    )


def test_a_line_may_come_in_pieces(output: WorkerOutput, lines: Callable[[], list[str]]) -> None:
    """
    Pipes cut anywhere, also inside a character, and the streams interleave.
    """
    for piece in (b"gr", b"\xc3", b"\xbc", b"n\nb"):
        output.feed(9000, OUT, piece)
        output.feed(9000, ERR, b"")

    assert lines() == ["grün"]
    assert output.tail(9000) == ["grün", "b"]


def test_the_end_writes_what_had_no_newline(
    output: WorkerOutput, lines: Callable[[], list[str]]
) -> None:
    """
    A crash seldom ends its line.
    """
    output.feed(9000, ERR, b"Fatal Python error")
    assert output.tail(9000) == ["Fatal Python error"]

    output.close(9000)

    assert lines() == ["Fatal Python error"]
    assert output.tail(9000) == []


def test_a_long_line_is_cut(output: WorkerOutput, lines: Callable[[], list[str]]) -> None:
    """
    A handler may print a tensor, or a gigabyte without a newline.
    """
    for _ in range(100):
        output.feed(9000, OUT, b"x" * 1000)
    output.feed(9000, OUT, b"\nnext\n")

    assert lines() == ["x" * 8192 + " [stoker] line cut", "next"]


def test_progress_bars_leave_their_last_state(
    output: WorkerOutput, lines: Callable[[], list[str]]
) -> None:
    """
    They redraw one line for minutes.
    """
    for percent in range(101):
        output.feed(9000, ERR, b"\r%3d%% |" % percent + b"#" * 200)
    output.feed(9000, ERR, b"\r100% done\r\n")

    assert lines() == ["100% done"]


def test_control_characters_are_spelled_out(
    output: WorkerOutput, lines: Callable[[], list[str]]
) -> None:
    """
    What a client sent may be printed; the operator's terminal must not obey it.
    """
    output.feed(9000, OUT, b"\x1b[31mred\x07\ttab \xff \xc2\x9b\n")

    assert lines() == ["\\x1b[31mred\\x07\ttab \ufffd \\x9b"]


def test_the_last_hundred_lines_are_kept(output: WorkerOutput) -> None:
    """
    For the answer of a failed load.
    """
    output.feed(9000, ERR, b"".join(b"%d\n" % n for n in range(250)))

    assert output.tail(9000) == [str(n) for n in range(150, 250)]


def test_a_flood_is_counted_and_its_end_survives(
    output: WorkerOutput, lines: Callable[[], list[str]]
) -> None:
    """
    A handler that prints in a loop must fill neither the disk nor the loop's
    time, and the traceback that follows is what one needs.
    """
    chunk = b"spam spam\n" * 1000
    for _ in range(200):
        output.feed(9000, OUT, chunk)
    output.feed(9000, ERR, b"Traceback: here\n")
    assert output.tail(9000)[-1] == "Traceback: here"

    output.close(9000)

    written = lines()
    assert written[-1] == "Traceback: here"
    (note,) = [line for line in written if "suppressed" in line]
    suppressed = int(note.split()[2])
    assert len(written) - 1 + suppressed == 200 * 1000 + 1
    assert len(written) < 10_000


def test_after_a_flood_lines_flow_again(
    output: WorkerOutput, clock: FakeClock, lines: Callable[[], list[str]]
) -> None:
    """
    One bad minute must not silence a worker for the rest of its life.
    """
    for _ in range(40):
        output.feed(9000, OUT, b"spam\n" * 1000)

    clock.advance(10)
    output.feed(9000, OUT, b"calm\n")

    assert lines()[-1] == "calm"
    assert sum("suppressed" in line for line in lines()) == 1


def test_files_rotate_by_size_and_keep_one(tmp_path: Path) -> None:
    """
    The bound on disk is twice the setting per version.
    """
    output = WorkerOutput(tmp_path, 1000, is_logged=False)
    output.open(9000, "echo", "1.0")

    for n in range(100):
        output.feed(9000, OUT, b"line %d\n" % n)

    folder = tmp_path / "models" / "echo"
    assert sorted(path.name for path in folder.iterdir()) == ["1.0.log", "1.0.log.1"]
    assert all(path.stat().st_size <= 1000 for path in folder.iterdir())
    assert "line 99" in (folder / "1.0.log").read_text()


def test_a_restart_appends(tmp_path: Path, output: WorkerOutput) -> None:
    """
    The reason of the crash is above the new start's lines.
    """
    output.feed(9000, OUT, b"first\n")
    output.open(9000, "echo", "1.0")
    output.feed(9000, OUT, b"second\n")

    assert len((tmp_path / log_name("echo", "1.0")).read_text().splitlines()) == 2
    assert output.tail(9000) == ["second"]


def test_a_log_that_cannot_be_written_is_tried_again(tmp_path: Path, clock: FakeClock) -> None:
    """
    A full disk costs lines, not the supervisor; the tail is still there.
    """
    (tmp_path / "models").write_text("a file where a folder should be")
    output = WorkerOutput(tmp_path, 1000, is_logged=False, clock=clock)
    output.open(9000, "echo", "1.0")

    output.feed(9000, OUT, b"lost\n")
    (tmp_path / "models").unlink()
    output.feed(9000, OUT, b"still lost\n")
    clock.advance(worker_output.RETRY_S)
    output.feed(9000, OUT, b"written\n")

    assert output.tail(9000) == ["lost", "still lost", "written"]
    assert (tmp_path / log_name("echo", "1.0")).read_text().endswith("| written\n")


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    """
    Whoever can write the log folder must not choose what we append to.
    """
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "models" / "echo").mkdir(parents=True)
    (tmp_path / log_name("echo", "1.0")).symlink_to(target)
    output = WorkerOutput(tmp_path, 1000, is_logged=False)
    output.open(9000, "echo", "1.0")

    output.feed(9000, OUT, b"line\n")

    assert target.read_text() == ""


def test_strangers_are_ignored(output: WorkerOutput) -> None:
    """
    Output may come after a close.
    """
    output.feed(1, OUT, b"who\n")
    output.close(1)

    assert output.tail(1) == []


def test_lines_go_to_the_log_by_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Contract 6.5: stdout is INFO, stderr is WARN.
    """
    said: list[tuple[str, str, int]] = []

    class Log:
        def info(self, line: str, **facts: object) -> None:
            said.append(("info", line, facts["worker"]))  # type: ignore[arg-type]

        def warning(self, line: str, **facts: object) -> None:
            said.append(("warning", line, facts["worker"]))  # type: ignore[arg-type]

    monkeypatch.setattr(worker_output, "log", Log())
    output = WorkerOutput(tmp_path, 1000)
    output.open(9000, "echo", "1.0")

    output.feed(9000, OUT, b"fine\n")
    output.feed(9000, ERR, b"not\n")

    assert said == [("info", "fine", 9000), ("warning", "not", 9000)]


def test_files_are_closed_with_their_last_worker(output: WorkerOutput) -> None:
    """
    Two hundred registrations must leave no descriptor.
    """
    output.open(9001, "echo", "1.0")
    output.feed(9000, OUT, b"line\n")
    output.feed(9001, OUT, b"line\n")

    output.close(9000)
    output.feed(9001, OUT, b"line\n")
    output.close_all()

    assert not output._files
    assert not output._workers


@given(
    pieces=st.lists(
        st.tuples(
            st.sampled_from(Stream),
            st.one_of(
                st.binary(max_size=300),
                st.builds(lambda x, n: x * n, st.binary(max_size=3), st.integers(0, 20_000)),
            ),
        ),
        max_size=30,
    )
)
def test_any_bytes_are_survived_within_bounds(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[Stream, bytes]]
) -> None:
    """
    User code prints what it likes; what is kept is bounded and printable.
    """
    folder = tmp_path_factory.mktemp("logs")
    output = WorkerOutput(folder, 100_000, is_logged=False, clock=FakeClock())
    output.open(1, "echo", "1.0")

    for stream, data in pieces:
        output.feed(1, stream, data)
        worker = output._workers[1]
        assert all(
            len(part) <= worker_output.MAX_LINE_BYTES + 1 for part in worker.partial.values()
        )
        assert len(output.tail(1)) <= worker_output.KEPT_LINES
        assert all(len(line) <= worker_output.MAX_KEPT_CHARACTERS for line in output.tail(1))

    output.close(1)
    path = folder / log_name("echo", "1.0")
    if path.exists():
        for line in path.read_text().splitlines():
            assert line.isprintable() or "\t" in line or "\ufffd" in line or not line.isascii()
