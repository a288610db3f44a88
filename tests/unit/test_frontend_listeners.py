"""Which listeners settings ask for: contracts/torchserve.md 1.1, 1.2."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from stoker.addresses import parse_address
from stoker.frontend.listeners import (
    BindFailed,
    Role,
    addresses_by_role,
    open_socket,
    plan_listeners,
)
from stoker.settings import Settings

ALL = (Role.INFERENCE, Role.MANAGEMENT, Role.METRICS)


def test_three_listeners_by_default():
    """
    8080, 8081, 8082 on loopback.
    """
    planned = plan_listeners(Settings())

    assert [(str(one.address), one.roles) for one in planned] == [
        ("http://127.0.0.1:8080", (Role.INFERENCE,)),
        ("http://127.0.0.1:8081", (Role.MANAGEMENT,)),
        ("http://127.0.0.1:8082", (Role.METRICS,)),
    ]


def test_metrics_listener_can_be_left_out():
    """
    enable_metrics_api=false.
    """
    planned = plan_listeners(Settings(enable_metrics_api=False))

    assert [one.roles for one in planned] == [(Role.INFERENCE,), (Role.MANAGEMENT,)]


def test_equal_addresses_share_one_listener_with_metrics():
    """
    The separate metrics listener is opened all the same.
    """
    planned = plan_listeners(Settings(management_address="HTTP://127.0.0.1:8080/"))

    assert [one.roles for one in planned] == [ALL, (Role.METRICS,)]


def test_one_address_for_everything_is_one_listener():
    """
    Never two binds of one port.
    """
    same = "http://127.0.0.1:8080"

    planned = plan_listeners(Settings(management_address=same, metrics_address=same))

    assert [one.roles for one in planned] == [ALL]


def test_shared_listener_without_metrics_has_none():
    """
    enable_metrics_api=false means nowhere.
    """
    same = "http://127.0.0.1:8080"

    planned = plan_listeners(Settings(management_address=same, enable_metrics_api=False))

    assert [one.roles for one in planned] == [(Role.INFERENCE, Role.MANAGEMENT)]


def test_free_ports_are_never_shared():
    """
    Port 0 asks for a port of one's own.
    """
    free = "http://127.0.0.1:0"

    planned = plan_listeners(
        Settings(inference_address=free, management_address=free, metrics_address=free)
    )
    sockets = [open_socket(one.address) for one in planned]
    found = addresses_by_role(planned, sockets)
    for bound in sockets:
        bound.close()

    assert [one.roles for one in planned] == [(role,) for role in ALL]
    assert len(set(found.values())) == 3


def test_socket_in_use_is_not_stolen(tmp_path: Path):
    """
    A second server must not take the first one's path away.
    """
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(path))
        first.listen()

        with pytest.raises(BindFailed) as refused:
            open_socket(parse_address(f"unix:{path}"))

    assert refused.value.message == f"Failed to bind to address: unix:{path}"


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_unix_socket_is_for_whom_it_is_meant(tmp_path: Path, mode: int):
    """
    Whoever may connect may manage; the process's umask has no say.
    """
    path = tmp_path / "s"
    mask = os.umask(0)

    bound = open_socket(parse_address(f"unix:{path}"), mode)

    left = os.umask(mask)
    bound.close()
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert left == 0


def test_file_in_the_way_is_not_removed(tmp_path: Path):
    """
    Only a dead socket is ours to clear away.
    """
    path = tmp_path / "s"
    path.write_text("precious")

    with pytest.raises(BindFailed):
        open_socket(parse_address(f"unix:{path}"))

    assert path.read_text() == "precious"


def test_unknown_host_is_a_failed_bind():
    """
    One kind of failure for one kind of line in the log.
    """
    with pytest.raises(BindFailed):
        open_socket(parse_address("http://192.0.2.1:1"))
