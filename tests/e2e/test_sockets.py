"""Every socket of a server as it starts by default: loopback, and a folder of our own."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import psutil


def inodes(pid: int) -> set[str]:
    """The sockets among a process's files."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def rows(table: str) -> list[list[str]]:
    path = Path("/proc/net") / table
    return [line.split() for line in path.read_text().splitlines()[1:]] if path.exists() else []


def test_a_default_start_listens_on_loopback_and_in_its_own_folder_only(server: Any, until: Any):
    """
    What nobody else can reach, nobody else can abuse (CVE-2023-43654, CVE-2024-35199).
    """
    server.register("m", "echo:handle", workers=2)
    server.predict("m", b"hi")
    processes = [psutil.Process(server.process.pid), *server.tree()]

    ours = set().union(*(inodes(process.pid) for process in processes))
    tcp = [row for table in ("tcp", "tcp6") for row in rows(table) if row[9] in ours]
    listening = sorted(row[1] for row in tcp if row[3] == "0A")
    others = [
        (table, row)
        for table in ("udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")
        for row in rows(table)
        if row[9] in ours
    ]
    unix = [row for row in rows("unix") if row[6] in ours]
    named = sorted({row[7] for row in unix if len(row) > 7})
    packets = [row for row in rows("packet") if row[8] in ours]

    ports = sorted(int(address.rpartition(":")[2]) for address in server.addresses.values())
    assert len(ports) == 3
    assert listening == sorted(f"0100007F:{port:04X}" for port in ports)
    assert [row for row in tcp if not row[1].startswith("0100007F:")] == []
    assert (others, packets) == ([], [])
    assert named
    folders = {server.runtime_dir, server.runtime_dir / "workers"}
    assert {Path(path).parent for path in named} == folders
    assert (server.runtime_dir / "workers").stat().st_mode & 0o777 == 0o700
    about = server.runtime_dir.stat()
    assert (stat.S_IMODE(about.st_mode), about.st_uid) == (0o700, os.geteuid())
