"""A report as a LaTeX document that compiles by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
START = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\setlength{\belowcaptionskip}{6pt}
% A table as wide as the text at most.
\newcommand{\fitted}[1]{\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{#1}}
\begin{document}
"""


def escape(text: str) -> str:
    """Return plain text as LaTeX on one line that shows it as it is."""
    line = re.sub(r"\s+", " ", text)
    return re.sub(r'[&%$#_{}\\~^<>|"±–≤≥−]', lambda found: SPECIAL[found[0]], line)


def render(blocks: Sequence[Block]) -> str:
    """Return a document as LaTeX; needs booktabs and graphicx."""
    return START + "\n" + "\n\n".join(_block(block) for block in blocks) + "\n\n\\end{document}\n"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        if block.level == 1:
            return f"\\title{{{escape(block.text)}}}\n\\author{{}}\n\\date{{}}\n\\maketitle"
        command = "section" if block.level == 2 else "subsection"
        return f"\\{command}{{{escape(block.text)}}}"
    if isinstance(block, Paragraph):
        return escape(block.text)
    if isinstance(block, Picture):
        place = "/".join(block.path.parts)
        return (
            "\\begin{figure}[htbp]\n\\centering\n"
            f"\\includegraphics[width=0.8\\linewidth]{{{place}}}\n"
            f"\\caption{{{escape(block.caption)}}}\n\\end{{figure}}"
        )
    return _grid(block)


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
