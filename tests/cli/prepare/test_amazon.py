"""The script as a user runs it: from nothing to a dataset, and what it says where that fails."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from recbole_m3rec.atomic.inter_file import Filters
from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.prepare import amazon
from recbole_m3rec.datasets.amazon.prepare import prepare
from recbole_m3rec.datasets.amazon.raw_files import (
    MissingRawFileError,
    as_source,
    raw_files,
    require,
)
from recbole_m3rec.datasets.amazon.releases import RELEASES, CategoryError
from tests.datasets.amazon.raw_beauty import DAY, START, write_raw
from tests.datasets.http_server import serve_folder


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Make the working directory a new one with the raw files of Beauty where they are expected."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "raw/amazon-2014"
    write_raw(folder)
    return folder


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Serve the raw files of Beauty like the publisher; return the address."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mirror/categoryFiles"
    write_raw(folder)
    (folder / "reviews_Baby_5.json.gz").write_text("<html>log in first</html>")
    (folder / "ratings_Baby.csv").write_bytes(b"\x89PNG\r\n\0")
    with serve_folder(tmp_path / "mirror", []) as address:
        yield address


def run(*arguments):
    return run_script(amazon.amazon, arguments)


def test_a_short_name_is_all_it_takes(raw, capsys):
    assert run("--category", "beauty") == 0
    assert sorted(path.name for path in Path("dataset/beauty").iterdir()) == [
        "beauty.inter",
        "beauty.item",
        "beauty.stats.json",
    ]
    said = capsys.readouterr().out
    for line in ("users: 6", "items: 5", "interactions: 30", "items without metadata: 0"):
        assert line in said.splitlines()
    assert said.endswith("\nthen:\n  recbole-m3rec train --model=M3Rec --dataset=beauty\n")
    assert "encode text" not in said  # there is a recipe
    assert run("--category", "beauty", "--columns", "rating") == 0
    said = capsys.readouterr().out
    assert said.endswith('--dataset=beauty --modalities="[]"\n')
    assert "to write: dataset/beauty/beauty.inter, replacing" in said
    assert "there, and stays as it is: dataset/beauty/beauty.item" in said


def test_without_a_recipe_the_next_step_makes_features(raw, capsys):
    assert run("--category", "beauty", "--name", "mine", "--output", "data") == 0
    assert capsys.readouterr().out.endswith(
        "next, features of the texts:\n"
        "  recbole-m3rec encode text --dataset mine --data-path data\n"
        "then:\n  recbole-m3rec train --model=M3Rec --dataset=mine --data_path=data"
        " --feature_path=data/mine\n"
    )


def test_a_dry_run_shows_the_plan_and_does_nothing(raw, capsys):
    assert run("--category", "beauty", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "read: raw/amazon-2014/reviews_Beauty_5.json.gz" in said
    assert "write: dataset/beauty/beauty.inter" in said
    assert not Path("dataset").exists()


def test_days_in_the_wrong_order_are_refused_before_anything_is_read(raw, capsys):
    assert run("--category", "beauty", "--from", "2014-02-02", "--to", "2014-02-01") == 2
    assert capsys.readouterr().err == "error: --from names a later day than --to. Exchange them\n"
    assert not Path("dataset").exists()


def test_a_missing_file_is_an_error_with_address_and_command(raw, capsys):
    (raw / "meta_Beauty.json.gz").unlink()
    url = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_Beauty.json.gz"
    assert run("--category", "beauty") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: raw/amazon-2014/meta_Beauty.json.gz: no such file. Add --down")
    assert f"curl -L --create-dirs -o raw/amazon-2014/meta_Beauty.json.gz {url}\n" in said
    assert not Path("dataset").exists()


def test_metadata_is_not_needed_where_no_column_comes_from_it(raw):
    (raw / "meta_Beauty.json.gz").unlink()
    assert run("--category", "beauty", "--columns", "rating") == 0
    assert not Path("dataset/beauty/beauty.item").exists()


def test_download_fetches_what_is_missing_and_only_that(mirror):
    fetch = ("--category", "Beauty", "--download", "--base-url", mirror, "--allow-private")
    assert run(*fetch) == 0
    whole = Path("dataset/beauty/beauty.inter").read_bytes()
    there = Path("raw/amazon-2014/meta_Beauty.json.gz")
    before = there.stat().st_mtime_ns
    Path("raw/amazon-2014/reviews_Beauty_5.json.gz").unlink()
    assert run(*fetch) == 0
    assert there.stat().st_mtime_ns == before
    assert Path("dataset/beauty/beauty.inter").read_bytes() == whole


def test_a_mirror_on_this_machine_has_to_be_allowed(mirror, capsys):
    assert run("--category", "Beauty", "--download", "--base-url", mirror) == 2
    assert "127.0.0.1: an address of this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["Baby"], "log in first"),
        (["Baby", "--ratings"], "something else than a table, b'\\x89PNG"),
        (["Books"], "HTTP 404"),
    ],
)
def test_a_mirror_without_the_file_is_an_error(arguments, says, mirror, capsys):
    fetch = ("--download", "--base-url", mirror, "--allow-private")
    assert run("--category", *arguments, *fetch) == 2
    assert says in capsys.readouterr().err
    assert list(Path("raw/amazon-2014").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--category", "beuaty"), "Did you mean Beauty"),
        (("--category", "beauty", "--release", "2020"), "no release '2020'"),
        (("--category", "beauty", "--release", "2023", "--ratings"), "Leave out --ratings"),
        (("--category", "beauty", "--k-core", "9"), "Take --k-core 5"),
        (("--category", "beauty", "--from", "2030-01-01"), "of the days asked for"),
    ],
)
def test_a_users_error_is_one_line(arguments, says, raw, capsys):
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [("--k-core", "0"), ("--from", "yesterday"), ("--columns", "title,colour"), ("--name", "a/b"),
     ("--name", ".."), ("--duplicates", "some")],
)  # fmt: skip
def test_a_wrong_option_is_refused(arguments, raw, capsys):
    with pytest.raises(SystemExit) as exit:
        run("--category", "beauty", *arguments)
    assert exit.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_days_include_the_last(raw):
    days = ("--from", "2014-05-15", "--to", "2014-05-16", "--k-core", "1")
    assert run("--category", "beauty", *days) == 0
    rows = Path("dataset/beauty/beauty.inter").read_text().splitlines()[1:]
    assert {int(row.split("\t")[-1]) for row in rows} == {START + DAY, START + 2 * DAY}


def test_ratings_are_taken_where_they_alone_are_there_or_asked_for(tmp_path):
    def names(**options):
        files = raw_files(RELEASES["2014"], "Beauty", tmp_path, **options)
        return [file.path.name for file in files]

    assert names() == ["reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"]
    assert names(ratings=True, items=False) == ["ratings_Beauty.csv"]
    (tmp_path / "ratings_Beauty.csv.gz").touch()
    (tmp_path / "meta_Beauty.json").touch()
    assert names() == ["ratings_Beauty.csv.gz", "meta_Beauty.json"]
    (tmp_path / "reviews_Beauty_5.json").touch()
    assert names() == ["reviews_Beauty_5.json", "meta_Beauty.json"]
    require(raw_files(RELEASES["2014"], "Beauty", tmp_path))
    with pytest.raises(MissingRawFileError):
        require(raw_files(RELEASES["2014"], "Baby", tmp_path))
    with pytest.raises(CategoryError):
        raw_files(RELEASES["2023"], "Books", tmp_path, ratings=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_runs_killed_at_any_moment_and_one_more_end_with_the_same_bytes(tmp_path):
    raw = tmp_path / "raw"
    write_raw(raw, users=300, items=60)
    source = as_source(RELEASES["2014"], "Beauty", raw_files(RELEASES["2014"], "Beauty", raw))

    def build(folder):
        prepare(source, folder, "b", Filters(), ("rating", "title"))

    def content(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    started = time.monotonic()
    build(tmp_path / "whole")
    duration = time.monotonic() - started
    whole = content(tmp_path / "whole")
    draw = random.Random(3)
    for _ in range(8):
        child = os.fork()
        if child == 0:
            try:
                build(tmp_path / "killed")
            finally:
                os._exit(0)
        time.sleep(draw.uniform(0, 1.2 * duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if (tmp_path / "killed").exists():
            for name, found in content(tmp_path / "killed").items():
                assert name.endswith(".tmp") or found == whole[name]
    build(tmp_path / "killed")
    assert content(tmp_path / "killed") == whole
