"""What a process leaves to those it forks, and what it does not hold on to."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from stoker.heap import unwritten_files

LIBRARY = "/usr/lib/libcrypto.so.3"
SMAPS = f"""\
7f00-8000 r--p 00000000 00:1b 17  {LIBRARY}
Size:                  4 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
8000-9000 r-xp 00001000 00:1b 17  {LIBRARY}
Anonymous:             0 kB
Swap:                  0 kB
9000-9800 r--p 00002000 00:1b 17  {LIBRARY}
Anonymous:             4 kB
Swap:                  0 kB
9800-a000 r--p 00002800 00:1b 17  {LIBRARY}
Anonymous:             0 kB
Swap:                  4 kB
a000-b000 rw-p 00003000 00:1b 17  {LIBRARY}
Anonymous:             0 kB
Swap:                  0 kB
b000-c000 r--s 00000000 00:01 18  /dev/shm/an arena of ours
Anonymous:             0 kB
Swap:                  0 kB
c000-d000 r--p 00000000 00:00 0
Anonymous:             0 kB
Swap:                  0 kB
e000-f000 r-xp 00000000 00:00 0   [vdso]
Anonymous:             0 kB
Swap:                  0 kB
"""

# Prints how much of OpenSSL is mapped before and after, and a hash.
LETTING_GO = """
import gc, hashlib, ssl
from stoker.heap import let_go_of_files

def mapped_kb():
    rss_kb, counts = 0, False
    for line in open("/proc/self/smaps"):
        name, *words = line.split()
        if not name.endswith(":"):
            counts = "r-xp" in words and "libcrypto" in line
        elif name == "Rss:" and counts:
            rss_kb += int(words[0])
    return rss_kb

before = mapped_kb()
let_go_of_files()
print(before, mapped_kb(), hashlib.sha256(b"stoker").hexdigest(), ssl.create_default_context())
"""

# A child of a process that shares what it has looks at attributes that its parent never
# looked at, and says how many names of others it wrote to meanwhile.
SHARING = """
import os, struct, sys
from stoker.heap import share_what_exists

names = [f"name_{i}" for i in range(4000)]
kept = type("Kept", (), {name: None for name in names})
for name in names:
    getattr(kept, name)
if sys.argv[1] == "shared":
    share_what_exists()

def counts():
    return [sys.getrefcount(name) for name in names]

before = counts()
other = type("Other", (), {f"other_{i}": None for i in range(4000)})
for name in vars(other):
    getattr(other, name, None)
print(sum(a != b for a, b in zip(before, counts())))
"""


def run(code: str, *argv: str) -> list[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *argv], capture_output=True, text=True, check=True
    ).stdout.split()


def test_only_files_that_were_never_written_to_are_let_go() -> None:
    """
    What the loader has relocated exists nowhere but in memory, or in swap, where it is not
    counted as anonymous any more: without it the process dies.
    """
    assert unwritten_files(SMAPS.splitlines()) == [(0x7F00, 0x8000), (0x8000, 0x9000)]


@pytest.mark.slow
def test_a_library_that_was_let_go_works_and_is_mapped_as_far_as_it_is_used() -> None:
    """
    The launcher waits for signals for months; OpenSSL, which only its imports started, is 3 MB.
    """
    before_kb, after_kb, digest, *_ = run(LETTING_GO)

    assert int(before_kb) > 500
    assert int(after_kb) < int(before_kb) / 4
    assert digest == hashlib.sha256(b"stoker").hexdigest()


@pytest.mark.slow
def test_looking_at_attributes_writes_to_no_name_that_was_shared() -> None:
    """
    The count of references of a name lies in its page, and each page that is written to
    is one more for every process.
    """
    assert int(run(SHARING, "kept")[0]) > 100
    # The loop's own variable is one.
    assert int(run(SHARING, "shared")[0]) <= 1
