"""The script as a user runs it: guesses first, and nothing written before they are confirmed."""

import sys
from pathlib import Path

import pytest

from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.prepare import tables
from tests.fresh_python import fresh_python

TABLES = ("--name", "shop", "--log", "purchases.csv", "--items", "products.csv")


@pytest.fixture(autouse=True)
def shop(tmp_path, monkeypatch):
    """Make the working directory one with a shop's tables, and no terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    rows = [f"c{user},{item:03},{item + 1}.02.2024 10:00" for user in range(6) for item in range(6)]
    Path("purchases.csv").write_text("\n".join(["Customer ID,SKU,Bought at", *rows]))
    items = [f"{item:03},Shoe {item},Acme" for item in range(6)]
    Path("products.csv").write_text("\n".join(["sku,name,brand", *items]))


def run(*arguments):
    return run_script(tables.generic, arguments)


def test_without_a_terminal_the_guesses_are_shown_and_nothing_is_written(capsys):
    assert run(*TABLES) == 2
    said = capsys.readouterr()
    assert "user        <- Customer ID: 'c0', 'c1', 'c2'" in said.out
    assert "times are dates written %d.%m.%Y %H:%M, UTC" in said.out
    assert "add --yes" in said.err
    assert not Path("dataset").exists()


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 2)])
def test_on_a_terminal_it_asks(monkeypatch, answer, code):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    assert run(*TABLES) == code
    assert Path("dataset/shop/shop.inter").exists() == (code == 0)


def test_confirmed_it_writes_dataset_and_recipe_and_says_how_to_go_on(capsys):
    assert run(*TABLES, "--yes") == 0
    said = capsys.readouterr().out.splitlines()
    assert "users: 6" in said
    assert "after five-core, which training applies: 6 users, 6 items, 36 interactions" in said
    shorter = '--topk="[5]" --valid_metric=NDCG@5'
    assert said[-1] == f"  recbole-m3rec train --model=M3Rec --dataset=shop {shorter}"
    named = [
        [line.split()[-1] for line in said if line.startswith(f"{word} ")]
        for word in ("to", "wrote")
    ]
    assert sorted(named[0]) == sorted(named[1])
    assert "fields: [title, brand]" in Path("properties/dataset/shop.yaml").read_text()


def test_a_table_of_few_of_the_items_is_warned_of_and_no_file_is_promised_in_vain(capsys):
    Path("products.csv").write_text("sku,name\n000,\n")
    assert run(*TABLES, "--yes") == 0
    said = capsys.readouterr().out
    assert "warning: the table of items has only 1 of the 6 that were bought" in said
    assert "to write, if bought items have something for it: properties/dataset/shop.yaml" in said
    assert not Path("properties").exists()


def test_what_is_replaced_and_what_stays_is_shown_before_it_is_confirmed(capsys):
    assert run(*TABLES, "--yes") == 0
    assert "replacing" not in capsys.readouterr().out
    size = Path("dataset/shop/shop.inter").stat().st_size
    assert run(*TABLES[:4]) == 2
    said = capsys.readouterr().out
    assert f"to write: dataset/shop/shop.inter, replacing {size:,} bytes of 20" in said
    assert "to write: dataset/shop/shop.item" not in said
    assert said.endswith("there, and stays as it is: dataset/shop/shop.item\n")


def test_a_separator_may_be_written_as_a_shell_gives_a_tab(capsys):
    Path("log.tsv").write_text("user\titem\ttime\nu,1\ti\t2024-01-02\n")
    given = ["--name", "shop", "--log", "log.tsv", "--yes"]
    assert run(*given, "--separator", "\\t", "--encoding", "UTF8") == 0
    assert "log.tsv, text separated by tabs, utf-8" in capsys.readouterr().out


def test_a_dry_run_shows_the_guesses_and_ends_well(capsys):
    assert run(*TABLES, "--dry-run") == 0
    assert "to write: dataset/shop/shop.inter" in capsys.readouterr().out
    assert not Path("dataset").exists()


def test_a_long_cell_in_a_log_without_names_is_read(capsys):
    Path("log.csv").write_text(f"u,{'i' * 200_000},2024-01-02\nu,b,2024-01-03\n")
    columns = ["--user", "1", "--item", "2", "--time", "3", "--no-header", "--yes"]
    code = (
        "import csv\ncsv.field_size_limit(131072)\n"  # what a new process has
        "from recbole_m3rec.cli.main import main\n"
        f"raise SystemExit(main(['prepare', 'tables', '--name=a', '--log=log.csv', *{columns}]))"
    )
    assert "items: 2" in fresh_python(code).stdout


def test_a_log_that_five_core_would_empty_is_run_with_other_filters(capsys):
    Path("purchases.csv").write_text("user,item,time\nu,1,2024-01-01\nu,2,2024-01-02\n")
    assert run("--name", "shop", "--log", "purchases.csv", "--yes") == 0
    *_, said = lines = capsys.readouterr().out.splitlines()
    assert "longest history: 2, of user 'u'" in lines
    assert '--user_inter_num_interval="[0,inf)"' in said
    assert '--modalities="[]" --topk="[2]" --valid_metric=NDCG@2' in said


@pytest.mark.parametrize(
    ("log", "arguments", "message"),
    [
        ("who,what\na,b\n", [], "which column is the user? There are who, what."),
        ("user,item\na,b\n", [], "say --time - if the rows stand in the order of time"),
        ("user,item,time\na,b,soon\n", [], "how are the times in 'time' written?"),
        ("user,item,time\na,b,12\n", [], "--time - takes the rows to be in the order of time, wh"),
        ("user,item,time\na,b,01/02/2024\n", [], "can be read as %d/%m/%Y and as %m/%d/%Y"),
        ("user,item,time\na,b,2024-01-01\n", ["--item", "sku"], "no column 'sku', named as item"),
        ("user,item,time\na,b,2024-01-01\n", ["--title", "item"], "--title names a column of the"),
        (
            "user,item,time\na,b,2024-01-01\n",
            ["--user", "item", "--item", "item"],
            "purchases.csv: column 'item' is named as user and as item, expected a column for each",
        ),
        ("user,item,time\na,b,2024-01-01\n", ["--items", "no.csv"], "there is no such file"),
        ("user,item,time\na,b,2024-01-01\n", ["--items", "."], ".: is a folder, expected a file."),
        ("user,item,time\na,b,2024-01-01\n", ["--k-core", "2"], "--k-core 2 leaves none"),
    ],
)
def test_what_cannot_be_known_is_asked_for(capsys, log, arguments, message):
    Path("purchases.csv").write_text(log)
    assert run("--name", "shop", "--log", "purchases.csv", "--yes", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("dataset").exists()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--time-format", "%Q"], "'%Q' is no format of times ('Q' is a bad directive"),
        (["--time-format", "%d %d"], "'%d %d' is no format of times (redefinition"),
        (["--time-format", "monday"], "'monday' is no format of times (without %"),
        (["--name", "a b"], "'a b' cannot name a dataset: expected letters"),
        (["--name", "../x"], "'../x' cannot name a dataset"),
        (["--name", "a=b"], "'a=b' cannot name a dataset"),
        (["--name", ""], "'' cannot name a dataset"),
        (["--separator", ",,"], "',,' separates no values: expected one character"),
        (["--separator", ""], "'' separates no values"),
        (["--separator", "\n"], "'\\n' separates no values"),
        (["--separator", '"'], "separates no values"),
        (["--encoding", "foo"], "'foo' is unknown, expected one such as utf-8"),
        (["--encoding", "base64"], "'base64' is unknown"),
        (["--encoding", "a\0"], "is unknown"),
    ],
)
def test_names_and_time_formats_are_checked_before_anything_is_read(option, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        tables.parser().parse_args(["--name", "shop", "--log", "log.csv", *option])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
