"""The units, judged by systemd itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.exit_codes import FINAL
from stoker.supervisor.worker_user import FOR_ADOPTION, NEEDED

UNITS = Path(__file__).parents[2] / "systemd"
SERVICES = ("stoker-supervisor", "stoker-frontend")
MAX_EXPOSURE = 3.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and "CI" not in os.environ,
    reason="systemd-analyze is not installed (Debian: apt-get install systemd)",
)


@pytest.fixture
def installed(tmp_path) -> Path:
    """The units, with an interpreter that exists on this machine."""
    for unit in UNITS.glob("stoker*"):
        text = unit.read_text().replace("/opt/stoker/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # The colon keeps the distribution's own folders behind ours.
    environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:", "NO_COLOR": "1", "LC_ALL": "C"}
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        check=False,
        text=True,
        cwd=folder,
        env=environ,
        timeout=60,
    )


def read_unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Sections of keys; a key may be given several times."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(match[1], {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(installed):
    """
    A misspelt key is ignored at run time; here it fails.
    """
    units = sorted(f"./{unit.name}" for unit in installed.glob("stoker*"))

    verdict = analyze("verify", "--man=no", *units, folder=installed)

    assert len(units) == 4
    assert (verdict.stdout, verdict.stderr, verdict.returncode) == ("", "", 0)


@needs_systemd
@pytest.mark.parametrize("with_user", [False, True], ids=["plain", "worker-user"])
@pytest.mark.parametrize("service", SERVICES)
def test_the_services_are_hardened(installed, service, with_user):
    """
    A handler that is taken over must find little to do; also where workers are another user,
    for which the supervisor needs a few rights.
    """
    if with_user:
        drop_in = UNITS / "worker-user" / f"{service}.service.d" / "worker-user.conf"
        unit = installed / f"{service}.service"
        unit.write_text(f"{unit.read_text()}\n{drop_in.read_text()}")
        checked = analyze("verify", "--man=no", f"./{unit.name}", folder=installed)
        assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)
    verdict = analyze(
        "security",
        "--offline=yes",
        "--no-pager",
        f"--threshold={int(MAX_EXPOSURE * 10)}",
        f"./{service}.service",
        folder=installed,
    )

    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", verdict.stdout)
    assert match, verdict.stderr
    assert float(match[1]) <= MAX_EXPOSURE
    assert verdict.returncode == 0


@pytest.mark.parametrize("service", SERVICES)
def test_exit_codes_that_would_repeat_are_not_retried(service):
    """
    The units and the launcher agree on what needs a person.
    """
    unit = read_unit(f"{service}.service")

    prevented = {int(code) for code in unit["Service"]["RestartPreventExitStatus"][0].split()}

    assert prevented <= set(FINAL)
    assert {64, 77, 78} <= prevented
    assert unit["Service"]["Restart"] == ["on-failure"]


def test_both_services_keep_the_folder_they_share():
    """
    It holds the sockets between them: one may be restarted without the other.
    """
    for service in SERVICES:
        section = read_unit(f"{service}.service")["Service"]
        assert section["RuntimeDirectory"] == ["stoker"]
        assert section["RuntimeDirectoryMode"] == ["0700"]
        assert section["RuntimeDirectoryPreserve"] == ["yes"]
        assert section["User"] == ["stoker"]


def test_workers_may_use_a_gpu_and_compile():
    """
    Hardening must not make the product useless.
    """
    section = read_unit("stoker-supervisor.service")["Service"]

    assert "char-nvidia* rw" in section["DeviceAllow"]
    assert section["DevicePolicy"] == ["closed"]
    assert "PrivateDevices" not in section
    assert "MemoryDenyWriteExecute" not in section


def test_a_restart_of_the_supervisor_leaves_its_workers_alone():
    """
    Neither systemd nor the supervisor ends what a successor will adopt.
    """
    section = read_unit("stoker-supervisor.service")["Service"]

    assert section["KillMode"] == ["process"]
    assert section["RestartKillSignal"] == ["SIGUSR2"]


def test_the_target_pulls_in_both_services():
    """
    One name to start and stop.
    """
    target = read_unit("stoker.target")["Unit"]

    assert {f"{service}.service" for service in SERVICES} == set(target["Wants"][0].split())
    for service in SERVICES:
        assert read_unit(f"{service}.service")["Unit"]["PartOf"] == ["stoker.target"]


def test_the_rights_for_another_user_are_those_that_the_product_asks_for():
    """
    One more would be one too many, one less no start.
    """
    drop_in = read_unit("worker-user/stoker-supervisor.service.d/worker-user.conf")["Service"]

    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert set(drop_in[key][0].split()) == {*NEEDED, *FOR_ADOPTION}
    users = (UNITS / "sysusers.d" / "stoker.conf").read_text()
    assert re.search(r"^u stoker-worker ", users, re.MULTILINE)
    for service in SERVICES:
        section = read_unit(f"worker-user/{service}.service.d/worker-user.conf")["Service"]
        assert section["RuntimeDirectoryMode"] == section["CacheDirectoryMode"] == ["0711"]
