"""The README's picture is made from a real run, by a script."""

from __future__ import annotations

from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"


def test_every_line_of_the_terminal_is_in_the_picture() -> None:
    """
    Text that XML would choke on must come through as it was.
    """
    import picture

    lines = ["[1/5] A heading", "", '  <b> & "c"', "equal: all"]

    drawn = ElementTree.fromstring(picture.draw(lines, "make <x>"))

    texts = [element.text for element in drawn.iter(f"{SVG}text")]
    assert texts == ["$ make <x>", *(line for line in lines if line)]


def test_a_long_run_is_cut_to_a_picture() -> None:
    """
    A README is not a log file.
    """
    import picture

    drawn = picture.draw(["x" * 500] * 500, "t")

    assert "x" * (picture.MAX_COLUMNS + 1) not in drawn
    assert drawn.count("<text") == picture.MAX_LINES + 1
