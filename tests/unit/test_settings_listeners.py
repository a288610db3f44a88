"""`listeners`: which address speaks which dialect and serves what."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.errors import SettingsError
from stoker.settings import Settings
from stoker.settings.listeners import (
    dialect_names,
    listener_names,
    listeners_of,
    read_listener,
)
from stoker.settings.load import load


def shown(settings: Settings) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(str(one.address), one.dialect, one.apis) for one in listeners_of(settings)]


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(argv, environ)
    return refused.value.message


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_without_listeners_there_are_the_peers_three():
    """
    Who changes nothing has TorchServe's 8080, 8081 and 8082.
    """
    assert shown(Settings()) == [
        ("http://127.0.0.1:8080", "torchserve", ("inference",)),
        ("http://127.0.0.1:8081", "torchserve", ("management",)),
        ("http://127.0.0.1:8082", "torchserve", ("metrics",)),
    ]


def test_dialect_is_that_of_all_listeners_that_name_none(tmp_path):
    """
    A peer's config.properties stays as it is; one setting says whose it is.
    """
    other = next(name for name in dialect_names() if name != "torchserve")

    assert {dialect for _, dialect, _ in shown(load(["--dialect", other], {}))} == {other}
    listed = load(["--dialect", other, "--listeners", "http://127.0.0.1:1 metrics"], {})
    assert shown(listed) == [("http://127.0.0.1:1", other, ("metrics",))]


@pytest.mark.parametrize(
    ("text", "address", "apis"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000", ("inference", "management")),
        ("http://[::1] management", "http://[::1]:8081", ("management",)),
        ("https://localhost torchserve", "https://localhost:443", ("inference", "management")),
        ("unix:/run/s metrics+inference", "unix:/run/s", ("metrics", "inference")),
        ("unix:/run/s torchserve inference", "unix:/run/s", ("inference",)),
        ("unix:/run/s inference torchserve", "unix:/run/s", ("inference",)),
    ],
)
def test_an_item_is_an_address_a_dialect_and_apis(text, address, apis):
    """
    Both may be left out, and a port is that of the first API.
    """
    item = read_listener(text)

    assert (str(item.address), item.dialect, item.apis) == (address, "torchserve", apis)


def test_every_way_of_saying_it_means_the_same(tmp_path):
    """
    TOML texts, TOML tables, properties, the environment and flags.
    """
    compact = "http://127.0.0.1:1 inference, unix:/run/m torchserve management+metrics"
    texts = "listeners = ['http://127.0.0.1:1 inference', 'unix:/run/m management+metrics']\n"
    tables = (
        "[[listeners]]\naddress = 'http://127.0.0.1:1'\napis = 'inference'\n"
        "[[listeners]]\naddress = 'unix:/run/m'\ndialect = 'torchserve'\n"
        "apis = ['management', 'metrics']\n"
    )
    below = tables.replace("[[listeners]]", "[[stoker.listeners]]")
    loaded = [
        load(["--listeners", compact], {}),
        load([], {"STOKER_LISTENERS": compact}),
        load(["--config", write(tmp_path, "c.properties", f"listeners={compact}\n")], {}),
        *(
            load(["--config", write(tmp_path, f"{i}.toml", text)], {})
            for i, text in enumerate((texts, tables, below))
        ),
    ]

    for settings in loaded:
        assert shown(settings) == [
            ("http://127.0.0.1:1", "torchserve", ("inference",)),
            ("unix:/run/m", "torchserve", ("management", "metrics")),
        ]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (
            "http://x:1 torchsrve",
            "'torchsrve' is neither an API nor a dialect; did you mean torchse",
        ),
        ("http://x:1 managment", "did you mean management?"),
        ("http://x:1 inference+metric", "'metric' is neither"),
        ("http://x:1 inference management", "'management' says it twice"),
        ("http://x:1 torchserve torchserve", "'torchserve' says it twice"),
        ("ftp://x", "Invalid binding address: ftp://x"),
    ],
)
def test_what_cannot_be_a_listener_is_refused_with_its_place(tmp_path, item, said):
    """
    File, line, and what was probably meant.
    """
    path = write(tmp_path, "stoker.toml", f"log_level = 'info'\nlisteners = ['{item}']\n")

    message = refusal("--config", path)

    assert message.startswith(f"{path}:2: listeners cannot be {item!r}: ")
    assert said in message


def test_a_bad_table_is_refused_at_its_own_line(tmp_path):
    """
    The second of two tables, not the first.
    """
    good = "[[listeners]]\naddress = 'http://127.0.0.1:1'\n"
    path = write(tmp_path, "stoker.toml", f"{good}[[listeners]]\nadress = 'http://127.0.0.1:2'\n")

    message = refusal("--config", path)

    assert message.startswith(f"{path}:3: ")
    assert "adress is not a key of a listener; did you mean address?" in message


def test_an_unknown_dialect_is_refused_with_the_nearest():
    """
    As any setting.
    """
    message = refusal("--dialect", "torchserv")

    assert "dialect must be one of" in message
    assert message.endswith("did you mean torchserve?")


def test_listeners_and_addresses_cannot_both_speak(tmp_path):
    """
    Silence would leave somebody waiting at the other address.
    """
    path = write(
        tmp_path,
        "config.properties",
        "management_address=http://127.0.0.1:7\nlisteners=http://127.0.0.1:1\n",
    )

    message = refusal("--config", path)

    assert message.startswith(f"{path}:2: listeners says where everything is served; take ")
    assert f"management_address out ({path}:1)" in message


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--listeners", "http://x:1 inference, http://x:1 metrics"], "names http://x:1 twice"),
        (
            ["--listeners", "http://127.0.0.1:1 metrics", "--enable-metrics-api", "false"],
            "enable_metrics_api=false (flag --enable-metrics-api)",
        ),
        (["--listeners", ",".join(f"http://127.0.0.1:{i}" for i in range(1, 66))], "at most 64"),
    ],
)
def test_contradictions_are_refused(flags, said):
    """
    Which of two texts counts must not be a matter of order.
    """
    assert said in refusal(*flags)


def test_free_ports_may_be_named_twice():
    """
    Port 0 is never the same port.
    """
    assert len(shown(load(["--listeners", "http://127.0.0.1:0,http://127.0.0.1:0"], {}))) == 2


def test_each_exposed_management_listener_is_refused():
    """
    One that is safe does not make another one so (docs/access.md).
    """
    exposed = "http://127.0.0.1:1, http://0.0.0.0:2 management"

    message = refusal("--listeners", exposed)

    assert "listeners http://0.0.0.0:2 can be reached from other hosts" in message
    assert load(["--listeners", exposed, "--insecure-management"], {})
    assert load(["--listeners", "http://127.0.0.1:1, http://0.0.0.0:2 inference"], {})
    assert load(["--listeners", exposed, "--disable-token-authorization=false"], {})


def test_client_certificates_need_one_https_management_listener(tmp_path):
    """
    Beside a local socket for the operator, which needs none.
    """
    ca = ["--client-ca-file", write(tmp_path, "ca.pem", "")]

    assert "client_ca_file needs an https listeners" in refusal("--listeners", "unix:/run/m", *ca)
    assert load(["--listeners", "unix:/run/m, https://0.0.0.0:2", *ca], {})


def test_each_listener_has_names_to_ask_for_it():
    """
    An API's own listener is found first, and that of every dialect.
    """
    names = listener_names(
        [
            ("mms", ("inference", "management")),
            ("torchserve", ("inference",)),
            ("torchserve", ("management",)),
            ("torchserve", ("inference",)),
        ]
    )

    assert names == [
        ["mms/inference", "mms/management"],
        ["inference", "torchserve/inference"],
        ["management", "torchserve/management"],
        [],
    ]


def test_the_example_of_the_manual_is_understood(tmp_path):
    """
    docs/operations.md, as it stands there.
    """
    page = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text("utf-8")
    example = page.partition("```toml\n")[2].partition("```")[0]
    assert example.startswith("listeners = [")

    settings = load(["--config", write(tmp_path, "stoker.toml", example)], {})

    assert [dialect for _, dialect, _ in shown(settings)] == [
        "torchserve",
        "torchserve",
        "mms",
        "djl",
    ]
