"""sd_notify, both ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from stoker.cli.notify_socket import NotifySocket
from stoker.notify import Notifier


@pytest.fixture
def receiver(tmp_path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify.sock") as receiver:
        yield receiver


@pytest.fixture
def notifier(receiver) -> Iterator[Notifier]:
    notifier = Notifier({"NOTIFY_SOCKET": str(receiver.path)})
    yield notifier
    notifier.close()


def test_every_state_arrives_as_systemd_spells_it(receiver, notifier):
    """
    The names are systemd's, sd_notify(3).
    """
    results = [
        notifier.ready("serving"),
        notifier.stopping(),
        notifier.watchdog(),
        notifier.status("3 models"),
        notifier.main_pid(42),
        notifier.extend_timeout(1.5),
    ]

    assert all(results)
    assert receiver.receive_nowait() == [
        {"READY": "1", "STATUS": "serving"},
        {"STOPPING": "1"},
        {"WATCHDOG": "1"},
        {"STATUS": "3 models"},
        {"MAINPID": "42"},
        {"EXTEND_TIMEOUT_USEC": "1500000"},
    ]


def test_reloading_carries_the_instant_it_began(receiver, notifier):
    """
    systemd refuses Type=notify-reload without it.
    """
    notifier.reloading()

    (message,) = receiver.receive_nowait()
    assert message["RELOADING"] == "1"
    assert int(message["MONOTONIC_USEC"]) > 0


def test_a_status_cannot_forge_a_state(receiver, notifier):
    """
    A status may quote a model's name.
    """
    notifier.status("bert\nREADY=1")

    assert receiver.receive_nowait() == [{"STATUS": "bert READY=1"}]


def test_an_abstract_socket_is_reached():
    """
    systemd may use one; it is written with an @.
    """
    name = f"stoker-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": "@" + name})

        notifier.ready()

        assert receiver.recv(100) == b"READY=1"
        notifier.close()


@pytest.mark.parametrize(
    "environ",
    [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": "/no/such/x"}],
)
def test_without_a_listener_nothing_happens(environ):
    """
    A lost status is no reason to fail.
    """
    notifier = Notifier(environ)

    assert notifier.ready() is False
    notifier.close()


def test_a_receiver_that_does_not_read_never_blocks_the_watchdog(receiver, notifier):
    """
    The loop that sends it must stay live, or it proves the opposite.
    """
    sent = 0
    while notifier.watchdog():
        sent += 1
        assert sent < 100_000

    assert sent > 0


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_interval_leaves_half_the_time(environ, expected):
    """
    And a variable inherited from a parent is not for us.
    """
    assert expected == Notifier(environ).watchdog_interval_s


def test_the_receiver_survives_nonsense(receiver):
    """
    Whoever can open the folder can write to the socket.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"\xff\xfe=\x00\nREADY\n=\n", str(receiver.path))

    assert receiver.receive_nowait() == [{"\ufffd\ufffd": "\0", "": ""}]
