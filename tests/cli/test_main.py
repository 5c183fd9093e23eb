"""The one command: which subcommand is called, with what, and what is said of a slip."""

import importlib
import threading
from pathlib import Path

import pytest

from recbole_m3rec.cli import main as cli
from recbole_m3rec.cli.arguments import split_files
from tests.fresh_python import fresh_python


@pytest.fixture
def called(monkeypatch):
    """Have every subcommand note its module and arguments, and do nothing."""
    calls = []
    for module in {each.module for each in cli.SUBCOMMANDS.values()}:
        monkeypatch.setattr(
            importlib.import_module(f"recbole_m3rec.{module}"),
            "main",
            lambda arguments, module=module: calls.append((module, *arguments)) or 0,
        )
    return calls


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("train --model=M3Rec", "train --model=M3Rec"),
        ("--model=M3Rec --dataset=tiny", "train --model=M3Rec --dataset=tiny"),
        ("--resume x.pth", "train --resume x.pth"),
        ("resume x.pth --epochs=9", "train --resume x.pth --epochs=9"),
        ("resume --epochs=9", "train --resume --epochs=9"),
        ("evaluate x.pth --topk=[1]", "train --evaluate x.pth --topk=[1]"),
        ("recommend x.pth --output top.csv", "train --topk x.pth --output top.csv"),
        ("recommend --help", "train --topk --help"),
        ("serve shop-bundle --port 0", "serving.serve shop-bundle --port 0"),
        ("onnx shop-bundle --output x", "serving.onnx shop-bundle --output x"),
        ("compare --models A", "compare --models A"),
        ("prepare amazon --category toys", "prepare.amazon --category toys"),
        ("prepare images --dataset shop", "prepare.encode_images download --dataset shop"),
        ("encode images --help", "prepare.encode_images encode --help"),
        ("import --dataset shop", "prepare.import_features --dataset shop"),
    ],
)
def test_a_subcommand_calls_its_module(called, given, expected):
    assert cli.main(given.split()) == 0
    [(module, *arguments)] = called
    assert [module.removeprefix("cli."), *arguments] == expected.split()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("trian", "Did you mean train"),
        ("prepare", "there are prepare amazon"),
        ("prepare amazn", "Did you mean prepare amazon"),
        ("evaluate", "evaluate CHECKPOINT"),
        ("serve --port 0", "serve BUNDLE"),
    ],
)
def test_a_command_that_cannot_be_meant_is_one_line_and_exit_code_2(
    called, capsys, given, expected
):
    assert cli.main(given.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert expected in error
    assert error.count("\n") == 1
    assert called == []


@pytest.mark.parametrize("word", ["prepare", "encode"])
def test_help_of_a_group_lists_its_commands(called, capsys, word):
    assert cli.main([word, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"{word} COMMAND …")
    listed = [" ".join(line.split()[:2]) for line in lines if line.startswith("  ")]
    assert listed == [name for name in cli.SUBCOMMANDS if name.startswith(word)]
    assert called == []


@pytest.mark.parametrize("module", ["cli.train", "serving.serve"])
def test_ctrl_c_while_a_command_is_imported_shows_no_traceback(module):
    code = (
        "import os, signal, sys\nfrom recbole_m3rec.cli import main\n"
        "signal.signal(2, signal.default_int_handler)\n"  # ignored in what a script has in the back
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': os.kill(os.getpid(), 2)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        f"main.call({module!r}, ['shop-bundle'])"
    )
    ended = fresh_python(code, ends_with=-2)
    assert (ended.stdout, ended.stderr) == ("", "")


def test_a_thread_that_is_not_the_main_one_runs_a_command(called):
    thread = threading.Thread(target=cli.main, args=(["describe", "--dataset", "x"],))
    thread.start()
    thread.join()
    assert len(called) == 1


def test_help_lists_every_subcommand_without_loading_any():
    code = (
        "import sys\nfrom recbole_m3rec.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n"
        "    print([m for m in ('torch', 'numpy', 'recbole') if m in sys.modules])"
    )
    shown = fresh_python(code).stdout
    assert all(f"\n  {name} " in shown for name in cli.SUBCOMMANDS)
    assert shown.splitlines()[-1] == "[]"


def test_help_of_each_subcommand_names_it(capsys):
    for name, subcommand in cli.SUBCOMMANDS.items():
        with pytest.raises(SystemExit) as stopped:
            cli.main([*name.split(), "--help"])
        assert stopped.value.code == 0
        shown = capsys.readouterr().out
        assert f" {name} " in shown
        if subcommand.before and subcommand.module == "cli.train":
            assert "CHECKPOINT" in shown.split("\n\n")[0]
            assert ("--nproc" in shown) == (name == "resume")
        assert "dataset_scripts" not in shown
        assert "run_recbole.py" not in shown


def test_a_preset_is_found_by_its_name_and_without_its_models():
    expected = [p for p in split_files("m3rec-published") if Path(p).is_file()]
    assert [Path(path).name for path in expected] == ["m3rec-published.yaml"]
    assert split_files("published") == expected
    with pytest.raises(ValueError, match="publishd, which is no file and no preset.*m3rec-publish"):
        split_files("publishd")
