"""A workflow as a picture: its nodes in columns, with queues and workers as they are just now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

SVG_TYPE: Final = "image/svg+xml"

_BOX_W: Final = 190
_BOX_H: Final = 84
_GAP_X: Final = 70
_GAP_Y: Final = 28
_MARGIN: Final = 24
_PILL_W: Final = 64
_HEAD_H: Final = 44
_NAME_CHARACTERS: Final = 22
_FONT: Final = "font-family='system-ui, sans-serif'"
#: Of a model, of a function, and of one that no worker is ready for.
_FILLS: Final = {"model": "#e8f0fe", "function": "#fef7e0", "down": "#fce8e6"}
_LINES: Final = {"model": "#1a73e8", "function": "#b06000", "down": "#c5221f"}

Nodes = Sequence[Mapping[str, Any]]


def draw_workflow(record: Mapping[str, Any]) -> bytes:
    """The record of `describe_workflow` as an SVG document."""
    nodes: Nodes = record["nodes"]
    columns = _columns(nodes)
    depth = max(columns.values()) + 1
    rows: dict[int, list[str]] = {}
    for node in nodes:
        rows.setdefault(columns[node["name"]], []).append(node["name"])
    height = max(len(row) for row in rows.values())
    inner_h = height * _BOX_H + (height - 1) * _GAP_Y
    start_x = _MARGIN + _PILL_W + _GAP_X
    places: dict[str, tuple[float, float]] = {}
    for column, names in rows.items():
        own_h = len(names) * _BOX_H + (len(names) - 1) * _GAP_Y
        for at, name in enumerate(names):
            left = start_x + column * (_BOX_W + _GAP_X)
            top = _MARGIN + _HEAD_H + (inner_h - own_h) / 2 + at * (_BOX_H + _GAP_Y)
            places[name] = (left, top)
    middle = _MARGIN + _HEAD_H + inner_h / 2
    end_x = start_x + depth * (_BOX_W + _GAP_X)
    width, total_h = end_x + _PILL_W + _MARGIN, inner_h + 2 * _MARGIN + _HEAD_H
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{total_h:g}' "
        f"viewBox='0 0 {width} {total_h:g}' role='img'>",
        "<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' "
        "markerHeight='7' orient='auto'><path d='M0 0L8 4L0 8z' fill='#5f6368'/></marker></defs>",
        f"<rect width='{width}' height='{total_h:g}' fill='white'/>",
        _title(record),
    ]
    for node in nodes:
        x, y = places[node["name"]]
        if node["takes_input"]:
            parts.append(_arrow(_MARGIN + _PILL_W, middle, x, y + _BOX_H / 2))
        for parent in node["parents"]:
            from_x, from_y = places[parent]
            parts.append(_arrow(from_x + _BOX_W, from_y + _BOX_H / 2, x, y + _BOX_H / 2))
        if node["is_output"]:
            parts.append(_arrow(x + _BOX_W, y + _BOX_H / 2, end_x, middle))
    parts.append(_pill(_MARGIN, middle, "in"))
    parts.append(_pill(end_x, middle, "out"))
    parts += [_box(node, *places[node["name"]]) for node in nodes]
    parts.append("</svg>\n")
    return "\n".join(parts).encode()


def _columns(nodes: Nodes) -> dict[str, int]:
    """A node stands right of everything that it takes something from."""
    columns: dict[str, int] = {}
    for node in nodes:
        columns[node["name"]] = max((columns[parent] + 1 for parent in node["parents"]), default=0)
    return columns


def _title(record: Mapping[str, Any]) -> str:
    said = f"{record['runs']} running, {record['requests']} asked for, {record['failures']} failed"
    name = escape(str(record["workflow"]))
    return (
        f"<text x='{_MARGIN}' y='{_MARGIN + 12}' {_FONT} font-size='17' font-weight='600' "
        f"fill='#202124'>{name}</text>"
        f"<text x='{_MARGIN}' y='{_MARGIN + 31}' {_FONT} font-size='12' fill='#5f6368'>"
        f"{said}</text>"
    )


def _box(node: Mapping[str, Any], x: float, y: float) -> str:
    kind = "function" if node["is_function"] else "model"
    style = "down" if not node["ready"] else kind
    name = str(node["name"])
    shown = name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"
    deaths = f", {node['deaths']} died" if node["deaths"] else ""
    lines = (
        f"{node['ready']} of {node['workers']} workers ready{deaths}",
        f"{node['queued']} queued, {node['in_hand']} in hand",
    )
    text = f"<text {_FONT} font-size='12' fill='#3c4043' x='{x + 12:g}' y='{{}}'>{{}}</text>"
    said = "".join(
        text.format(f"{y + 46 + 18 * at:g}", escape(line)) for at, line in enumerate(lines)
    )
    return (
        f"<g><title>{escape(name)} ({escape(str(node['model']))})</title>"
        f"<rect x='{x:g}' y='{y:g}' width='{_BOX_W}' height='{_BOX_H}' rx='8' "
        f"fill='{_FILLS[style]}' stroke='{_LINES[style]}' stroke-width='1.5'/>"
        f"<text x='{x + 12:g}' y='{y + 24:g}' {_FONT} font-size='14' font-weight='600' "
        f"fill='#202124'>{escape(shown)}</text>"
        f"<text x='{x + _BOX_W - 10:g}' y='{y + 14:g}' {_FONT} font-size='9' text-anchor='end' "
        f"fill='{_LINES[style]}'>{kind}</text>{said}</g>"
    )


def _pill(x: float, y: float, text: str) -> str:
    return (
        f"<rect x='{x:g}' y='{y - 16:g}' width='{_PILL_W}' height='32' rx='16' fill='#f1f3f4' "
        f"stroke='#5f6368'/><text x='{x + _PILL_W / 2:g}' y='{y + 5:g}' {_FONT} font-size='13' "
        f"text-anchor='middle' fill='#202124'>{text}</text>"
    )


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    bend = (x2 - x1) / 2
    return (
        f"<path d='M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}' "
        "fill='none' stroke='#5f6368' stroke-width='1.3' marker-end='url(#tip)'/>"
    )
