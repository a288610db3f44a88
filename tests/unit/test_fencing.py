"""Which fence a version gets, of what was asked for and what there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stoker.archives.model_config import ModelConfig
from stoker.errors import SandboxMissing
from stoker.settings import Settings
from stoker.supervisor.fences import BUBBLEWRAP, OFF, RLIMITS, Fence
from stoker.supervisor.fencing import FencingMeans, choose_fence

MIB = 1 << 20
PRESENT = FencingMeans("", lambda _: "")
MISSING = FencingMeans("", lambda _: "bwrap is not installed")
USER = "models"


@pytest.mark.parametrize(
    ("asked", "means", "fence"),
    [
        ("off", PRESENT, None),
        ("rlimits", PRESENT, Fence(RLIMITS)),
        ("bubblewrap", PRESENT, Fence(BUBBLEWRAP)),
        ("off", replace(PRESENT, user=USER), Fence(OFF, user=USER)),
        ("rlimits", replace(MISSING, user=USER), Fence(RLIMITS, user=USER)),
        ("bubblewrap", replace(PRESENT, user=USER), Fence(BUBBLEWRAP, user=USER)),
        (
            "bubblewrap",
            replace(MISSING, user=USER),
            Fence(RLIMITS, user=USER, instead="bwrap is not installed"),
        ),
    ],
)
@pytest.mark.parametrize("is_servers_word", [True, False])
def test_what_is_asked_for_is_had_or_what_stands_for_it(asked, means, fence, is_servers_word):
    """
    bubblewrap where present, else rlimits, no new privileges and a separate user.
    """
    settings = Settings(sandbox=asked) if is_servers_word else Settings()
    config = ModelConfig() if is_servers_word else ModelConfig(sandbox=asked)

    assert choose_fence(config, settings, means) == fence


@pytest.mark.parametrize(
    ("config", "settings", "means", "why"),
    [
        ({"sandbox": "bubblewrap"}, {}, MISSING, "there is no user to run workers as instead"),
        ({}, {"sandbox": "bubblewrap"}, MISSING, "bwrap is not installed"),
        (
            {"sandbox": "bubblewrap", "sandbox_network": False},
            {},
            replace(MISSING, user=USER),
            "nothing else takes the network away",
        ),
        ({"sandbox_network": False}, {}, PRESENT, "needs sandbox=bubblewrap"),
        ({"sandbox_network": False}, {"sandbox": "rlimits"}, PRESENT, "needs sandbox=bubblewrap"),
    ],
)
def test_what_nothing_can_stand_for_is_refused(config, settings, means, why):
    """
    Not done by halves: nobody would notice.
    """
    with pytest.raises(SandboxMissing, match=why):
        choose_fence(ModelConfig(**config), Settings(**settings), means)


def test_a_bubblewrap_without_a_network_may_be_one_too_many():
    """
    Making one takes a right more, so it is looked for by itself.
    """
    means = FencingMeans("", lambda has_network: "" if has_network else "no loopback")
    config = ModelConfig(sandbox="bubblewrap")

    assert choose_fence(config, Settings(), means) == Fence(BUBBLEWRAP)
    with pytest.raises(SandboxMissing, match="no loopback"):
        choose_fence(config, Settings(sandbox_network=False), means)


def test_nobody_looks_for_bubblewrap_who_does_not_want_it():
    """
    It costs a process.
    """

    def look(has_network: bool) -> str:
        raise AssertionError

    assert choose_fence(ModelConfig(), Settings(sandbox="rlimits"), FencingMeans("", look))


words = st.sampled_from([OFF, RLIMITS, BUBBLEWRAP])
STRENGTH = {OFF: 0, RLIMITS: 1, BUBBLEWRAP: 2}


def strength(fence: Fence | None) -> int:
    return 0 if fence is None else STRENGTH[fence.kind]


@given(
    st.builds(
        ModelConfig,
        sandbox=st.none() | words,
        sandbox_network=st.none() | st.booleans(),
        sandbox_memory_mb=st.none() | st.integers(0, 4096),
    ),
    st.builds(
        Settings,
        sandbox=words,
        sandbox_network=st.booleans(),
        sandbox_memory_mb=st.integers(0, 4096),
    ),
    st.sampled_from(["", USER]),
    st.booleans(),
)
def test_an_archive_never_gets_less_than_the_server_says(config, settings, user, is_present):
    """
    In no respect: kind, memory, network, user.
    """
    means = FencingMeans(user, lambda _: "" if is_present else "it is not there")
    try:
        plain = choose_fence(ModelConfig(), settings, means)
        fence = choose_fence(config, settings, means)
    except SandboxMissing:
        assume(False)

    assert strength(fence) >= strength(plain)
    if plain is not None:
        assert fence is not None
        assert fence.user == plain.user
        assert fence.has_network <= plain.has_network
        if plain.memory_bytes:
            assert 0 < fence.memory_bytes <= plain.memory_bytes
    if config.sandbox is not None and is_present:
        assert strength(fence) >= STRENGTH[config.sandbox]
    if config.sandbox_network is False:
        assert fence is not None
        assert not fence.has_network
    if fence is not None and fence.kind != OFF and config.sandbox_memory_mb:
        assert 0 < fence.memory_bytes <= config.sandbox_memory_mb * MIB
