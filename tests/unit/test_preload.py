"""What a forked worker would not have: contracts/mms.md 13."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

from stoker.worker.preload import why_not_forked


def test_an_ordinary_process_may_be_forked():
    """
    Files, sockets and imports are no reason.
    """
    others = [thread.name for thread in threading.enumerate()][1:]

    assert why_not_forked(()) == "" or others


def test_cuda_is_refused(monkeypatch):
    """
    A context on a GPU does not survive: its owner would get errors, or hang.
    """
    cuda = SimpleNamespace(is_initialized=lambda: True)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))

    assert why_not_forked(()) == "has initialised CUDA, which a fork cannot use"


def test_a_gpu_that_is_held_without_torch_is_refused(tmp_path, monkeypatch):
    """
    Whoever opened it: the kernel says so.
    """
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    (tmp_path / "7").symlink_to("/dev/nvidia-uvm")
    (tmp_path / "8").symlink_to("/dev/null")

    assert why_not_forked([tmp_path / "8", tmp_path / "7"]).startswith("holds a GPU")


def test_threads_are_refused_by_name(monkeypatch):
    """
    Their author knows them by it.
    """
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="prefetch")
    thread.start()

    reason = why_not_forked(())

    stop.set()
    thread.join()
    assert "prefetch" in reason
    assert reason.endswith("which a fork does not have")
