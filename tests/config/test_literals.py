"""Text is read as data: what is written as a program stays a text and leaves no trace."""

import importlib
import re
from pathlib import Path

import pytest
import recbole
from recbole.config import Config

from recbole_m3rec.config.literals import EVALUATING, read_value
from recbole_m3rec.config.yaml_files import ConfigurationError

MARK = "__import__('pathlib').Path('mark').touch()"
HOSTILE = [
    MARK,
    f"[{MARK}]",
    f"{{'a': {MARK}}}",
    "exit(7)",
    "open('mark', 'w')",
    "[*open('mark', 'w')]",
    "(lambda: 1)()",
    "!!python/object/apply:os.system ['touch mark']",
    "[!!python/object/apply:os.system ['touch mark']]",
    "{a: !!python/name:os.system }",
    "(" * 500,
    "9**9**9**9",
    "'a' * 10**12",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_program_stays_a_text_and_is_not_run(text):
    lists = {f"[{MARK}]": [MARK], f"{{'a': {MARK}}}": {"a": MARK}}
    assert read_value(text) == lists.get(text, text)
    assert not Path("mark").exists()


@pytest.mark.parametrize("text", [text for text in HOSTILE if len(text) < 200])
def test_a_program_on_the_command_line_is_not_run(text, monkeypatch):
    model = "SASRec"
    monkeypatch.setattr("sys.argv", ["run", f"--wandb_project={text}"])
    assert Config(model, "ml-100k")["wandb_project"] == text
    monkeypatch.setattr("sys.argv", ["run", f"--epochs={text}"])
    with pytest.raises(ConfigurationError, match="epochs must be an integer"):
        Config(model, "ml-100k")
    monkeypatch.setattr("sys.argv", ["run"])
    with pytest.raises(ConfigurationError, match="user_inter_num_interval must be an interval"):
        Config(model, "ml-100k", config_dict={"user_inter_num_interval": text})
    assert not Path("mark").exists()


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system ['touch mark']", "!!python/name:os.system"]
)
def test_a_program_in_a_file_is_an_error(text):
    Path("mine.yaml").write_text(f"epochs: {text}\n")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml, line 1, is no valid YAML"):
        Config("SASRec", "ml-100k", config_file_list=["mine.yaml"])
    assert not Path("mark").exists()


def test_a_program_in_a_search_space_is_an_error():
    from recbole.trainer import HyperTuning

    pytest.importorskip("hyperopt")
    Path("a.hyper").write_text(f"epochs choice [{MARK}]\n")
    read = HyperTuning._build_space_from_file("a.hyper")
    assert not Path("mark").exists()
    assert "mark" in str(read["epochs"])  # a text among the choices
    Path("a.hyper").write_text(f"epochs choice {MARK}\n")
    with pytest.raises(ConfigurationError, match="must be a list such as"):
        HyperTuning._build_space_from_file("a.hyper")
    assert not Path("mark").exists()


def test_the_teacher_of_a_model_is_one_of_its_networks():
    module = importlib.import_module("recbole.model.context_aware_recommender.kd_dagfm")
    assert vars(module)["eval"]("CrossNet") is module.CrossNet
    with pytest.raises(ConfigurationError, match="one of CIN, CINComp, CrossNet, DAGFM"):
        vars(module)["eval"](MARK)


def test_no_other_module_of_recbole_evaluates_text():
    root = Path(recbole.__file__).parent
    evaluating = {
        ".".join(("recbole", *file.relative_to(root).with_suffix("").parts))
        for file in root.rglob("*.py")
        if re.search(r"(?<![\w.])(eval|exec)\(", file.read_text(encoding="utf-8"))
    }
    assert evaluating == set(EVALUATING)
    for name in evaluating:
        assert vars(importlib.import_module(name))["eval"] is not eval


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-1", -1),
        ("1e-3", 0.001),
        ("0.5", 0.5),
        ("[5,10]", [5, 10]),
        ("['Hit','NDCG']", ["Hit", "NDCG"]),
        ("{'LS': 'valid_only'}", {"LS": "valid_only"}),
        ("0,1", (0, 1)),
        ("'adam'", "adam"),
        ("None", None),
        ("True", True),
        ("true", True),
        ("FALSE", False),
        ("[text,image]", ["text", "image"]),
        ("[id]", ["id"]),
        ("{split: {LS: valid_only}}", {"split": {"LS": "valid_only"}}),
        ("~", None),
        ("[1e-3, .5, 012, 1:30, 2014-07-23]", [0.001, 0.5, "012", "1:30", "2014-07-23"]),
        ("adam", "adam"),
        ("[5,inf)", "[5,inf)"),
        ("", ""),
        ("id", "id"),
        ("b'bytes'", "b'bytes'"),
        ("a: b", "a: b"),
        ("012", "012"),
    ],
)
def test_what_was_a_literal_still_is_and_names_are_names(text, value):
    read = read_value(text)
    assert read == value
    assert type(read) is type(value)


def test_strings_that_look_like_numbers_stay_strings(monkeypatch):
    monkeypatch.setattr(
        "sys.argv",
        ["run", "--checkpoint_dir=2024", "--user_inter_num_interval=[5,10]", "--gpu_id=0,1"],
    )
    monkeypatch.setattr("recbole_m3rec.processes.distributed.refuse_absent_gpus", lambda *_: None)
    config = Config("SASRec", "ml-100k")
    assert config["checkpoint_dir"] == "2024"
    assert config["user_inter_num_interval"] == "[5,10]"
    assert config["gpu_id"] == "0,1"
