"""A page that an operator's browser has open changes nothing in the server on the same host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.frontend.problems import CrossSiteRefused
from stoker.frontend.same_site import SameSite

PAGE = (("Origin", "https://evil.example"),)
#: The raw client says `Host: test`.
OWN = (("Origin", "http://test"),)


@pytest.fixture
def serves(supervisor):
    """Whatever it is asked, it does; what it was asked is in `calls`."""
    for verb in ("register", "scale", "unregister", "set_default"):
        supervisor.verbs[verb] = lambda arguments: {}
    supervisor.verbs["list"] = lambda arguments: {"models": [], "total": 0}
    supervisor.verbs["health"] = lambda arguments: {"is_healthy": True}
    return supervisor


CHANGES = [
    ("POST", "/models?url=evil.mar"),
    ("PUT", "/models/m?min_worker=9"),
    ("DELETE", "/models/m"),
    ("PUT", "/models/m/2.0/set-default"),
]


@pytest.mark.parametrize(("method", "target"), CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        (*PAGE, ("Sec-Fetch-Site", "cross-site")),
        PAGE,
        (("Sec-Fetch-Site", "cross-site"),),
        # Another port of this host is somebody else's page.
        (("Origin", "http://test:3000"), ("Sec-Fetch-Site", "same-site")),
        (("Origin", "null"), ("Sec-Fetch-Site", "cross-site")),
        (("Origin", "null"),),
        (("ORIGIN", "http://test"), ("origin", "https://evil.example")),
    ],
)
def test_a_page_of_another_site_changes_nothing(frontend, serves, method, target, headers):
    """
    A simple request needs no leave of ours, and its sender need not read the answer.
    """
    answer = frontend.request("management", method, target, b"", headers)

    assert (answer.status, answer.json["type"]) == (403, "ForbiddenException")
    assert "cors_allowed_origin" in answer.json["message"]
    assert serves.calls == []


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (*OWN, ("Sec-Fetch-Site", "same-origin")),
        OWN,
        (("Sec-Fetch-Site", "none"),),
        # Behind a proxy that has another name.
        (("Origin", "https://models.example"), ("Sec-Fetch-Site", "same-origin")),
    ],
)
def test_programs_and_our_own_pages_change_what_they_like(frontend, serves, headers):
    """
    curl says neither where it comes from nor that it is a browser.
    """
    answer = frontend.request("management", "PUT", "/models/m?min_worker=1", b"", headers)

    assert answer.status != 403
    assert [verb for verb, _ in serves.calls] == ["scale"]


def test_reading_is_left_to_the_browser(frontend, serves):
    """
    A page gets no answer to read unless CORS lets it; a link may lead here.
    """
    headers = (*PAGE, ("Sec-Fetch-Site", "cross-site"))

    assert frontend.request("management", "GET", "/models", b"", headers).status == 200


def test_predictions_are_everybodys(frontend, echo):
    """
    What may be asked from where is CORS' business there, as with TorchServe.
    """
    headers = (*PAGE, ("Sec-Fetch-Site", "cross-site"))

    answer = frontend.request("inference", "POST", f"/predictions/{echo}", b"hi", headers)

    assert (answer.status, answer.body) == (200, b"hi")


@pytest.mark.parametrize(
    ("allowed", "status"),
    [("https://evil.example", 202), ("*", 202), ("https://other.example", 403), ("", 403)],
)
def test_an_origin_that_the_operator_allows_may_change_things(
    start_frontend, serves, allowed, status
):
    """
    Who may read the answers may ask the questions.
    """
    running = start_frontend(cors_allowed_origin=allowed)
    headers = (*PAGE, ("Sec-Fetch-Site", "cross-site"))

    answer = running.request("management", "PUT", "/models/m?min_worker=1", b"", headers)

    assert (answer.status == 403) == (status == 403)
    assert bool(serves.calls) == (status != 403)


def test_on_a_shared_listener_only_predictions_are_everybodys(start_frontend, serves, echo):
    """
    One address for both APIs is common in containers.
    """
    shared = start_frontend(
        inference_address="http://127.0.0.1:0", management_address="http://127.0.0.1:0"
    )
    headers = (*PAGE, ("Sec-Fetch-Site", "cross-site"))

    assert shared.request("inference", "POST", f"/predictions/{echo}", b"hi", headers).status == 200
    assert shared.request("management", "POST", "/models?url=x", b"", headers).status == 403


def test_an_exempt_path_is_exempt_in_its_plain_spelling_only():
    """
    Whoever spells it otherwise gets the stricter rule.
    """
    door = SameSite("", None, (b"/predictions/",))
    page = [(b"Sec-Fetch-Site", b"cross-site")]

    assert door.refusal(b"POST", b"/predictions/m", page) is None
    for url in (b"/models", b"//predictions/m", b"/Predictions/m", b"/%70redictions/m", b""):
        assert isinstance(door.refusal(b"POST", url, page), CrossSiteRefused)


origins = st.sampled_from(
    [b"http://test", b"http://test:8081", b"https://evil.example", b"null", b"", b"test", b"://"]
)


@given(
    st.lists(
        st.tuples(st.sampled_from([b"Origin", b"origin", b"Host", b"X-Other"]), origins), max_size=5
    ),
    st.sampled_from([b"cross-site", b"same-site", b"", b"Same-Origin", b"new-word"]),
)
def test_what_a_browser_calls_foreign_is_never_let_in(headers, site):
    """
    Whatever else stands beside it, while no origin is allowed.
    """
    door = SameSite("")

    assert door.refusal(b"POST", b"/models", [*headers, (b"sec-fetch-site", site)]) is not None
