"""The first word of a body says what is tried, or told."""

import ctypes
import errno
import json
import os
import resource
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

FLOOD_BYTES = 100 << 20


def status(name):
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(f"{name}:"))


def fence(rest):
    return {
        "no_new_privs": status("NoNewPrivs"),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "memory": resource.getrlimit(resource.RLIMIT_AS)[1],
    }


def hoard(rest):
    try:
        bytearray(int(rest) << 20)
    except MemoryError:
        return "refused"
    return "granted"


def flood(rest):
    """A hundred megabytes, in lines or in one that never ends."""
    piece = (b"x" * 1023 + b"\n" if rest == "lines" else b"x" * 1024) * 64
    for _ in range(FLOOD_BYTES // len(piece)):
        os.write(1, piece)
    return "said"


LEAVE = "import os, sys, time; os.write(int(sys.argv[1]), b'%d' % os.getpid()); time.sleep(600)"


def escape(how):
    """A process in a session of its own whose parent, but for `child`, has gone; its pid."""
    told, tell = os.pipe()
    if how == "forked":
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(tell, str(os.getpid()).encode())
                time.sleep(600)
            os._exit(0)
        os.wait()
    else:
        line = "exec" if how == "child" else "setsid"
        wait = "" if how == "child" else "&"
        run = f'{line} "$0" -c "$1" {tell} {wait}'
        subprocess.Popen(
            ["/bin/sh", "-c", run, sys.executable, LEAVE], pass_fds=[tell], start_new_session=True
        )
    return os.read(told, 32).decode()


def attempt(act):
    """What the kernel says to it: a value, or the name of the error."""
    try:
        return act()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def see(path):
    """What is in a folder or a file, by its first bytes."""
    if os.path.isdir(path):
        return attempt(lambda: sorted(os.listdir(path)))
    return attempt(lambda: Path(path).read_bytes()[:64].decode("latin-1"))


def write(path):
    return attempt(lambda: Path(path, "written").write_text("x"))


def connect(path):
    def act():
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(path)
        return "connected"

    return attempt(act)


def reach(address):
    """A TCP listener."""
    host, port = address.split()
    return attempt(lambda: socket.create_connection((host, int(port)), 5).close() or "connected")


def repeat(rest):
    word, times = rest.split()
    return word * int(times)


def lent(rest):
    """How many files this process has that it lends for answers, or has lent."""
    files = [attempt(lambda fd=fd: os.readlink(f"/proc/self/fd/{fd}")) for fd in range(3, 64)]
    return sum("stoker answer" in file for file in files)


def say(text):
    print(text)
    return "said"


def shoot(pid):
    return attempt(lambda: os.kill(int(pid), 0) or "allowed")


def who(rest):
    return {
        "pid": os.getpid(),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": sorted(os.getgroups()),
        "capabilities": [int(status(f"Cap{which}"), 16) for which in ("Inh", "Prm", "Eff", "Amb")],
        "folder": os.getcwd(),
        "home": os.environ.get("HOME"),
        "oom_score": int(Path("/proc/self/oom_score_adj").read_text()),
    }


def regain(rest):
    """Any way back to being root."""
    return [attempt(lambda: os.setuid(0)), attempt(lambda: os.setgid(0))]


def hang(rest):
    while True:
        time.sleep(60)


def crash(how):
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(7)
    os.abort()


ACTS = {
    "see": see,
    "write": write,
    "connect": connect,
    "reach": reach,
    "say": say,
    "shoot": shoot,
    "who": who,
    "regain": regain,
    "hang": hang,
    "crash": crash,
    "environment": lambda rest: dict(os.environ),
    "fence": fence,
    "hoard": hoard,
    "flood": flood,
    "escape": escape,
    "repeat": repeat,
    "lent": lent,
    "pid": lambda rest: str(os.getpid()),
}


def handle(data, context):
    if data is None:
        return None
    answers = []
    for item in data:
        body = bytes(item["body"])
        if len(body) > 4096:
            answers.append(f"{len(body)} {zlib.crc32(body)}")
            continue
        word, _, rest = body.decode().partition(" ")
        answers.append(json.dumps(ACTS[word](rest)))
    return answers
