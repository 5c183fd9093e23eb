"""A report as one self-contained HTML file without scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from recbole_m3rec.compare.report.document import Block, Entry, Grid, Heading, Paragraph, Picture

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff;
       max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.35rem; margin-top: 2.5rem; border-bottom: 1px solid #d0d7de; }
h3 { font-size: 1.1rem; margin-top: 1.8rem; }
figure { margin: 1.2rem 0; }
figcaption, summary { color: #4b535d; font-size: .92rem; margin-bottom: .4rem; }
summary { cursor: pointer; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #1b1f24; }
td { border-bottom: 1px solid #e3e7eb; }
th.text, td.text { text-align: left; }
td.text { white-space: normal; min-width: 7rem; overflow-wrap: anywhere; }
tr > :first-child { position: sticky; left: 0; background: #fff; white-space: nowrap; }
img { max-width: 100%; height: auto; }
.picture { display: inline-block; vertical-align: top; width: min(100%, 37rem); }
""".strip()


def render(blocks: Sequence[Block], folder: Path) -> str:
    """Return a document as HTML; pictures are read from ``folder`` and embedded."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    body = "\n".join(_block(block, folder) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _block(block: Block, folder: Path) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Picture):
        data = base64.b64encode((folder / block.path).read_bytes()).decode()
        return (
            f'<figure class="picture"><img alt="{escape(block.caption)}" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(block.caption)}</figcaption></figure>"
        )
    return _grid(block)


def _grid(grid: Grid) -> str:
    def kind(column: int) -> str:
        return ' class="text"' if column == 0 or column in grid.texts else ""

    head = "".join(f"<th{kind(i)}>{escape(name)}</th>" for i, name in enumerate(grid.head))
    rows = "\n".join(
        "<tr>" + "".join(f"<td{kind(i)}>{_entry(e)}</td>" for i, e in enumerate(row)) + "</tr>"
        for row in grid.rows
    )
    table = (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )
    caption = escape(grid.caption)
    if grid.folded:
        return f"<details><summary>{caption}</summary>\n{table}\n</details>"
    return f"<figure><figcaption>{caption}</figcaption>\n{table}</figure>"


def _entry(entry: Entry) -> str:
    text = escape(entry.text)
    if entry.bold:
        return f"<strong>{text}</strong>"
    return f"<u>{text}</u>" if entry.underlined else text
