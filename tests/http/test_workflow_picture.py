"""The picture of a workflow: whole, true, and harmless whatever names there are."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from stoker.frontend.workflow_picture import draw_workflow

SVG = "{http://www.w3.org/2000/svg}"


def node(name: str, parents: list[str], **about: Any) -> dict[str, Any]:
    return {
        "name": name,
        "model": f"w__{name}",
        "is_function": False,
        "takes_input": not parents,
        "is_output": False,
        "parents": parents,
        "workers": 2,
        "ready": 1,
        "queued": 3,
        "in_hand": 4,
        "capacity": 100,
        "deaths": 0,
        **about,
    }


def record(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"workflow": "w", "runs": 5, "requests": 60, "failures": 7, "nodes": list(nodes)}


DIAMOND = record(
    node("a", []), node("b", ["a"]), node("c", ["a"]), node("d", ["b", "c"], is_output=True)
)


def test_every_node_and_every_edge_is_drawn():
    """
    What is not in the picture is not looked for.
    """
    picture = ET.fromstring(draw_workflow(DIAMOND))

    titles = [item.text for item in picture.iter(f"{SVG}title")]
    assert titles == ["a (w__a)", "b (w__b)", "c (w__c)", "d (w__d)"]
    arrows = [item for item in picture.iter(f"{SVG}path") if item.get("marker-end")]
    assert len(arrows) == 1 + 4 + 1


def test_the_numbers_are_those_of_the_record():
    """
    Live: how long queues are, who works, who died.
    """
    text = draw_workflow(record(node("a", [], is_output=True, deaths=9))).decode()

    for said in ("5 running", "60 asked for", "7 failed", "1 of 2 workers ready, 9 died"):
        assert said in text
    assert "3 queued, 4 in hand" in text


def test_names_cannot_leave_their_place():
    """
    A name is a stranger's text.
    """
    hostile = "<script>'\"&"

    picture = draw_workflow(record(node(hostile, [], is_output=True)))

    assert b"<script" not in picture
    ET.fromstring(picture)


def test_boxes_do_not_lie_on_each_other():
    """
    Ten leaves, and a way of ten.
    """
    wide = [node(f"l{i}", ["a"], is_output=True) for i in range(10)]
    long = [node(f"s{i}", [f"s{i - 1}" if i else "a"]) for i in range(10)]

    picture = ET.fromstring(draw_workflow(record(node("a", []), *wide, *long)))

    boxes = [
        [float(item.get(key) or 0) for key in ("x", "y", "width", "height")]
        for group in picture.iter(f"{SVG}g")
        for item in group.iter(f"{SVG}rect")
    ]
    assert len(boxes) == 21
    for at, (x, y, w, h) in enumerate(boxes):
        assert x + w <= float(picture.get("width") or 0)
        assert y + h <= float(picture.get("height") or 0)
        for other_x, other_y, _, _ in boxes[at + 1 :]:
            assert abs(x - other_x) >= w or abs(y - other_y) >= h
