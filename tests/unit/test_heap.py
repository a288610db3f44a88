"""Messages of a megabyte come and go without the kernel's help."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOP = """
import resource, sys
from stoker.heap import keep_what_is_freed

def messages(count):
    for _ in range(count):
        frame = bytes([1]) * (1 << 20)
        packed = frame + b"head"
        del frame, packed

if sys.argv[1] == "kept":
    keep_what_is_freed()
messages(5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
messages(50)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOP, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.slow
def test_large_messages_take_no_page_faults() -> None:
    """
    Two megabytes are 512 pages; each fault is a trip into the kernel, and a
    page to be cleared.
    """
    assert page_faults("kept") < 200
