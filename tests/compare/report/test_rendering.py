"""Reports in three formats: every text is shown as it is, whatever signs it holds."""

import csv
import html.parser
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_m3rec.compare.report import figures, latex, markdown, write
from recbole_m3rec.compare.report import html as web
from recbole_m3rec.compare.report.aggregate import tables
from recbole_m3rec.compare.report.document import Entry, Grid, Heading, Paragraph, Picture
from recbole_m3rec.support.safe_write import write_whole

NASTY = r"<b>&_%|$x$ #1 {y} ~^ `c` *d* \e [f](g) <script>alert('h')</script>" + '"'


class Reader(html.parser.HTMLParser):
    """Collects tags and text."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


BLOCKS = [
    Heading(NASTY, level=1),
    Paragraph(NASTY),
    Grid(NASTY, [NASTY, "n"], [[Entry(NASTY, bold=True), Entry("0.1", underlined=True)]]),
]


def test_html_shows_every_sign_and_runs_nothing(tmp_path):
    page = web.render(BLOCKS, tmp_path)
    read = Reader(page)
    assert read.text.count(NASTY) == 6  # title, heading, paragraph, caption, head, cell
    names = {tag for tag, _ in read.tags}
    assert "script" not in names
    assert "b" not in names
    assert "<strong>&lt;b&gt;" in page
    assert "<u>0.1</u>" in page


def test_html_needs_no_other_file(tmp_path):
    (tmp_path / "p.png").write_bytes(b"\x89PNG")
    page = web.render([Picture(Path("p.png"), NASTY)], tmp_path)
    (image,) = [attributes for tag, attributes in Reader(page).tags if tag == "img"]
    assert image["alt"] == NASTY
    assert image["src"] == "data:image/png;base64,iVBORw=="
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http" not in page


def test_latex_escapes_every_special_sign():
    assert latex.escape(r"<b>&_%$#{}~^\|") == (
        r"\textless{}b\textgreater{}\&\_\%\$\#\{\}\textasciitilde{}\textasciicircum{}"
        r"\textbackslash{}\textbar{}"
    )
    text = latex.render(BLOCKS)
    body = text.split("\\begin{document}")[1]
    assert not re.search(r"(?<!\\)[#$%]", body)
    assert body.count("{") - body.count(r"\{") == body.count("}") - body.count(r"\}")
    assert r"\textbf{\textless{}b\textgreater{}\&\_\%" in text
    assert r"\underline{0.1}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)


def test_latex_names_signs_that_its_fonts_lack():
    assert latex.escape("é Ł ğ “µ” λ ≠ 模\x07\u202e") == (
        "é Ł ğ “µ” [U+03BB] [U+2260] [U+6A21][U+0007][U+202E]"
    )


def test_latex_puts_no_more_on_a_page_than_fits():
    long = Grid("c", ["name"], [[Entry(str(row))] for row in range(2 * latex.ROWS + 1)])
    text = latex.render([Heading("a"), long, Heading("b")])
    tables = text.split("\\begin{table}")[1:]
    assert [len(re.findall(r"^\d+ ", each, re.MULTILINE)) for each in tables] == [40, 40, 1]
    assert text.count("\\clearpage") == 4  # a section, two pages of its table, a section


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles_whatever_the_names(tmp_path):
    names = [NASTY, "".join(map(chr, range(0x600))), "模型 🚀", *map(str, range(200))]
    table = Grid(names[1], ["name"], [[Entry(name, bold=True)] for name in names])
    section = [Heading(names[1]), table, *[Grid(NASTY, ["name"], [[Entry("A")]])] * 11]
    write_whole(tmp_path / "report.tex", latex.render(section * 8).encode())
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert found.returncode == 0, found.stdout[-2000:]


def test_deviations_of_latex_are_small_and_no_part_of_what_is_bold():
    row = [Entry("A ± B"), Entry("0.1 ± 0.2", bold=True), Entry("0.3", underlined=True)]
    text = latex.render([Grid("c", ["name", "x", "y"], [row])])
    small = r"{\tiny $\pm$ "
    assert rf"A{small}B}} & \textbf{{0.1}}{small}0.2}} & \underline{{0.3}} \\" in text


def test_no_cell_of_latex_is_an_argument_of_the_row_before():
    text = latex.render([Grid("c", ["name"], [[Entry("[1, 2]")], [Entry("*")]])])
    assert not re.search(r"\\\\\s*[\[*]", text)


def test_markdown_escapes_what_would_be_markup_or_another_column():
    assert markdown.escape("<b>&_%|") == r"&lt;b&gt;&amp;\_%\|"
    text = markdown.render(BLOCKS)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    assert "<script" not in text
    assert rows[-1].startswith(r"| **&lt;b&gt;&amp;\_%\|")
    assert "<ins>0.1</ins>" in rows[-1]


def test_a_line_break_in_a_message_breaks_no_table():
    for escape in (markdown.escape, latex.escape):
        assert escape("first\nsecond\r\n third") == "first second third"


def test_the_whole_report_of_a_nasty_name(outcome, tmp_path):
    runs = [
        outcome(NASTY, {"ndcg@5": [0.5, 0.1, 0.0]}, seed=s, dataset="a/b<i>") for s in (1, 2)
    ] + [outcome("B", None, dataset="a/b<i>", failure=NASTY)]
    files = write.write_report(runs, tmp_path, title=NASTY)
    assert [file.name for file in files] == [
        "results.csv",
        "report.md",
        "report.tex",
        "report.html",
    ]
    read = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert NASTY in read.text
    assert not {"script", "b", "i"} & {tag for tag, _ in read.tags}
    with open(tmp_path / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [NASTY, NASTY, "B"]
    assert [row["status"] for row in rows] == ["done", "done", "failed"]
    assert rows[2]["message"] == NASTY
    assert rows[0]["mask_seen"] == "False"
    assert float(rows[0]["ndcg@5"]) == pytest.approx(0.2)


def test_pictures_are_drawn_embedded_and_beside_the_report(outcome, tmp_path):
    pytest.importorskip("matplotlib")
    runs = [
        outcome(name, {"ndcg@5": [x * 0.01 for x in range(40)], "hit@5": [1.0] * 40}, seed=s)
        for name in ("M3Rec", "$B_1$")
        for s in (1, 2)
    ]
    write.write_report(runs, tmp_path)
    drawn = sorted(file.name for file in (tmp_path / "pictures").glob("*.png"))
    kinds = ["history", "hit", "learning", "popularity", "time"]
    assert drawn == [f"tiny-1-{kind}.png" for kind in kinds]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(f"(pictures/{name})" in text for name in drawn)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5


def test_without_matplotlib_there_is_a_report_that_says_why_it_has_no_pictures(
    outcome, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    write.write_report([outcome("A", {"ndcg@5": [0.5, 0.1]})], tmp_path)
    assert not (tmp_path / "pictures").exists()
    for name in ("report.md", "report.html", "report.tex"):
        text = (tmp_path / name).read_text(encoding="utf-8").replace("\\", "")
        assert "pip install 'recbole_m3rec[plots]'" in text.replace("&#x27;", "'")


def test_learning_is_drawn_in_one_metric_whatever_a_run_watched(outcome):
    pytest.importorskip("matplotlib")
    runs = [outcome("A", {"ndcg@5": [0.5]}), outcome("B", {"ndcg@5": [0.5]}, valid_metric="Hit@5")]
    (table,) = tables(runs)
    with figures.figure() as (_, axes):
        figures.draw_learning(axes, table, ["A", "B"], "ndcg@5")
        assert [line.get_ydata() == pytest.approx([0, 0.1, 0.2]) for line in axes.lines] == [
            True
        ] * 2
        assert axes.get_ylabel() == "valid NDCG@5"


def test_a_legend_names_every_line_and_leaves_room_for_them(outcome):
    pytest.importorskip("matplotlib")
    names = ["_hidden", "$x$", "x" * 150, *map(str, range(25))]
    (table,) = tables([outcome(name, {"ndcg@5": [0.5]}) for name in names])
    with figures.figure() as (canvas, axes):
        figures.draw_hits(axes, table, names, "ndcg@5")
        figures.legend(canvas, axes, names)
        canvas.savefig(io.BytesIO())
        (legend,) = canvas.legends
        box = legend.get_window_extent()
        assert canvas.bbox.y0 <= box.y0 < box.y1 <= canvas.bbox.y1
        assert axes.bbox.x1 <= box.x0
        assert axes.bbox.width > canvas.bbox.width / 3
    shown = [text.get_text().strip() for text in legend.get_texts()]
    assert [*shown[:2], *shown[3:]] == ["_hidden", r"\$x\$", *names[3:]]
    assert len(shown[2]) == figures.LONGEST_NAME


def test_groups_are_about_as_large_and_none_is_empty():
    import numpy as np

    edges = figures.group_edges(np.arange(100))
    assert edges.tolist() == [19, 39, 59, 79]
    assert figures.group_edges(np.array([5, 5, 5, 5])).tolist() == []


def test_csv_counts_epochs_from_one(outcome):
    text = write.results_csv([outcome("A", {"hit@5": [1.0]})])
    (row,) = csv.DictReader(text.splitlines())
    assert (row["epochs"], row["best_epoch"]) == ("3", "3")
    assert len(row["hash"]) == 64
