"""Draw a terminal's text as an SVG, for the README.

    make demo 2>&1 | python examples/picture.py --title 'make demo' > docs/run.svg

Plain text in, one self-contained file out; no fonts are embedded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from html import escape

CHARACTER_WIDTH = 7.85
LINE_HEIGHT = 18
MARGIN = 18
TITLE_HEIGHT = 34
MAX_COLUMNS = 110
MAX_LINES = 80

PAPER, INK, FAINT, BRIGHT = "#16191f", "#d6dae2", "#8a93a3", "#ffb454"
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


def colour_of(line: str) -> str:
    """Headings stand out, and so does the line that everything is about."""
    if line.startswith("["):
        return BRIGHT
    return "#7fd88f" if line.lstrip().startswith("equal:") else INK


def draw(lines: Sequence[str], title: str) -> str:
    shown = [line.rstrip().expandtabs()[:MAX_COLUMNS] for line in lines[:MAX_LINES]]
    columns = max((len(line) for line in [*shown, title]), default=0)
    width = round(columns * CHARACTER_WIDTH + 2 * MARGIN)
    height = TITLE_HEIGHT + len(shown) * LINE_HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>',
        f'<g font-family="{FONT}" font-size="13" xml:space="preserve">',
        f'<text x="{MARGIN}" y="22" fill="{FAINT}">$ {escape(title)}</text>',
    ]
    for number, line in enumerate(shown):
        if line:
            y = TITLE_HEIGHT + (number + 0.8) * LINE_HEIGHT
            parts.append(
                f'<text x="{MARGIN}" y="{y:.0f}" fill="{colour_of(line)}">{escape(line)}</text>'
            )
    return "\n".join([*parts, "</g>", "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--title", default="make demo", help="the command that was typed")
    options = parser.parse_args()
    lines = sys.stdin.read().strip("\n").splitlines()
    sys.stdout.write(draw(lines, options.title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
