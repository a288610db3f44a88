"""The first word of a body says what is tried, or told."""

import json
import os
import resource
import subprocess
import sys
import time

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


ACTS = {
    "environment": lambda rest: dict(os.environ),
    "fence": fence,
    "hoard": hoard,
    "flood": flood,
    "escape": escape,
    "pid": lambda rest: str(os.getpid()),
}


def handle(data, context):
    if data is None:
        return None
    answers = []
    for item in data:
        word, _, rest = bytes(item["body"]).decode().partition(" ")
        answers.append(json.dumps(ACTS[word](rest)))
    return answers
