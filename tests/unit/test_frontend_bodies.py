"""Room for bodies, and what errors become: pure parts of the frontend."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker import errors
from stoker.frontend.bodies import read_parameters
from stoker.frontend.dialects.torchserve.problems import torchserve_problems
from stoker.frontend.limits import Limits
from stoker.frontend.problems import solve

#: Errors that never reach an HTTP client: between our processes, or at start.
INSIDE = {"protocol", "settings", "runtime_dir_in_use"}


@given(
    st.sampled_from(("multipart/form-data; boundary=x", "application/x-www-form-urlencoded")),
    st.binary(max_size=200) | st.text('-x\r\n :;="name&+%', max_size=80).map(str.encode),
)
def test_any_form_is_read_or_refused(content_type, body):
    """
    Strangers write these.
    """
    try:
        found = read_parameters(content_type, body, Limits())
    except errors.InvalidBody:
        return

    assert all(isinstance(one.name, str) and isinstance(one.body, bytes) for one in found)


@pytest.mark.parametrize(
    "error",
    [
        value
        for value in vars(errors).values()
        if inspect.isclass(value)
        and issubclass(value, errors.StokerError)
        and value is not errors.StokerError
        and value.code not in INSIDE
    ],
    ids=lambda error: error.code,
)
def test_every_error_has_a_row_of_its_own(error):
    """
    An error without a row would be told as a bug of ours.
    """
    table = torchserve_problems(503)

    assert error.code in table
    problem = solve(table, error("said", model="m", version="1"), "verb", {"url": "u"})

    assert 400 <= problem.status <= 599
    assert problem.message
    assert "{" not in problem.message


def test_text_lacking_a_field_is_still_a_text():
    """
    A supervisor of another release must not turn a 404 into a 500.
    """
    problem = solve(torchserve_problems(503), errors.ModelNotFound())

    assert problem.message == "Model not found: "
