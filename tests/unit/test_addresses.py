"""Listener addresses (contract 1.1)."""

from __future__ import annotations

import pytest

from stoker.addresses import Address, parse_address
from stoker.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:8080", Address("http", "127.0.0.1", 8080)),
        ("HTTPS://Host.example:1", Address("https", "Host.example", 1)),
        ("http://[::1]:9000", Address("http", "::1", 9000)),
        ("http://localhost:0", Address("http", "localhost", 0)),
        ("unix:/run/x.sock", Address("unix", path="/run/x.sock")),
        ("http://localhost", Address("http", "localhost", 8081)),
        ("https://localhost", Address("https", "localhost", 8444)),
    ],
)
def test_every_form_of_an_address_is_read(text, expected):
    """
    The peer's grammar, and IPv6 beside it.
    """
    assert expected == parse_address(text, "management")


@pytest.mark.parametrize(
    ("listener", "ports"),
    [("inference", (80, 443)), ("management", (8081, 8444)), ("metrics", (8082, 8445))],
)
def test_a_missing_port_is_the_listeners_own(listener, ports):
    """
    Each listener of the peer has its own default, with and without TLS.
    """
    assert ports == tuple(
        parse_address(f"{scheme}://h", listener).port for scheme in ("http", "https")
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://h:1",
        "h:1",
        "http://",
        "http://a:b",
        "unix:relative",
        "http://::1:80",
        "http://[zz]:1",
        "http://a b:1",
        "http://h:1/path",
        "http://h:1\n",
        "unix:/" + "a" * 200,
    ],
)
def test_anything_else_is_an_invalid_binding_address(text):
    """
    The peer's text, so that people find it in a search.
    """
    with pytest.raises(SettingsError) as caught:
        parse_address(text)

    assert f"Invalid binding address: {text}" == caught.value.message


@pytest.mark.parametrize("port", ["65535", "65536", "99999999999"])
def test_a_port_out_of_range_is_an_invalid_port_number(port):
    """
    The peer refuses 65535 as well (port >= 65535).
    """
    with pytest.raises(SettingsError) as caught:
        parse_address(f"http://h:{port}")

    assert f"Invalid port number: {port}" == caught.value.message


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.8.8.8:1", True),
        ("http://[::1]:1", True),
        ("http://localhost:1", True),
        ("unix:/x", True),
        ("http://0.0.0.0:1", False),
        ("http://[::]:1", False),
        ("http://10.0.0.1:1", False),
        ("http://localhost.example:1", False),
    ],
)
def test_only_this_hosts_addresses_count_as_local(text, is_local):
    """
    On it hangs whether management may go without credentials.
    """
    assert is_local == parse_address(text).is_local


def test_an_address_prints_as_it_is_bound():
    """
    Bind errors and logs name it in the form a person would type.
    """
    assert str(parse_address("HTTP://[::1]")) == "http://[::1]:80"
    assert parse_address("unix:/run/x").bind == "unix:/run/x"
    assert parse_address("http://[::1]").bind == "[::1]:80"
