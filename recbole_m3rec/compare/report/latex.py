"""A report as a LaTeX document that compiles by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from recbole_m3rec.compare.report.document import Block, Entry, Grid, Heading, Paragraph, Picture

SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "–": "--",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "−": r"$-$",
}
FONTS = ("cp1252", "cp1250", "cp1254")  # what T1 and TS1 have signs for, at least
ROWS = 40  # of a table on one page
START = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\setlength{\belowcaptionskip}{6pt}
% A table as wide as the text at most.
\newcommand{\fitted}[1]{\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{#1}}
\begin{document}
"""


def escape(text: str) -> str:
    """Return plain text as LaTeX on one line that shows it as it is, foreign signs by number."""
    return "".join(map(_sign, re.sub(r"\s+", " ", text)))


def _sign(sign: str) -> str:
    if sign in SPECIAL:
        return SPECIAL[sign]
    known = sign.isprintable() and any(sign.encode(font, "ignore") for font in FONTS)
    return sign if known else f"[U+{ord(sign):04X}]"


def render(blocks: Sequence[Block]) -> str:
    """Return a document as LaTeX; needs booktabs and graphicx."""
    return START + "\n" + "\n\n".join(_block(block) for block in blocks) + "\n\n\\end{document}\n"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        if block.level == 1:
            return f"\\title{{{escape(block.text)}}}\n\\author{{}}\n\\date{{}}\n\\maketitle"
        # TeX keeps so many tables and figures waiting for a page, and no more.
        command = "\\clearpage\n\\section" if block.level == 2 else "\\subsection"
        return f"{command}{{{escape(block.text)}}}"
    if isinstance(block, Paragraph):
        return escape(block.text)
    if isinstance(block, Picture):
        place = "/".join(block.path.parts)
        return (
            "\\begin{figure}[htbp]\n\\centering\n"
            "\\includegraphics[width=0.8\\linewidth,height=0.8\\textheight,keepaspectratio]"
            f"{{{place}}}\n"
            f"\\caption{{{escape(block.caption)}}}\n\\end{{figure}}"
        )
    pages = [block.rows[start : start + ROWS] for start in range(0, len(block.rows), ROWS)]
    return "\n\\clearpage\n".join(_grid(replace(block, rows=rows)) for rows in pages)


def _grid(grid: Grid) -> str:
    columns = "".join(
        "l" if column == 0 or column in grid.texts else "r" for column in range(len(grid.head))
    )
    lines = [
        "\\begin{table}[htbp]",
        "\\centering",
        f"\\caption{{{escape(grid.caption)}}}",
        f"\\fitted{{\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(escape(name) for name in grid.head) + r" \\",
        "\\midrule",
        *map(_row, grid.rows),
        "\\bottomrule",
        "\\end{tabular}}",
        "\\end{table}",
    ]
    return "\n".join(lines)


def _row(row: Sequence[Entry]) -> str:
    line = " & ".join(_entry(entry) for entry in row) + r" \\"
    # The end of the row before would take these for its arguments.
    return f"{{}}{line}" if line.startswith(("[", "*")) else line


def _entry(entry: Entry) -> str:
    mean, sign, deviation = map(escape, entry.text.partition(" ± "))
    if entry.bold:
        mean = f"\\textbf{{{mean}}}"
    elif entry.underlined:
        mean = f"\\underline{{{mean}}}"
    # Small, so that a table of many metrics can be read on a page.
    return f"{mean}{{\\tiny{sign}{deviation}}}" if deviation else mean
