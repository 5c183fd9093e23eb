"""The table of all models says what happened, goes on where it stopped, and misses no model."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "zoo.py"
DONE = "metric       valid      test\nndcg@10     0.0100    0.0235\n"
NO_ROW = {"family": "general", "paper": "", "chosen": "", "ndcg": None, "seconds": 1.0}


@pytest.fixture(scope="module")
def zoo():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("zoo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_of_recboles_families_has_its_model(zoo):
    import recbole.model

    for family in zoo.FAMILIES:
        folder = Path(recbole.model.__file__).parent / f"{family}_recommender"
        files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        assert {name.lower() for name in zoo.models(family)} == files
    assert "M3Rec" not in zoo.models("sequential")
    assert "Self-Attentive" in zoo.paper(zoo.models("sequential")["SASRec"])


def test_a_run_passes_by_its_code_and_its_number(zoo):
    log = "INFO  Chosen for \x1b[1mX\x1b[0m: no sampled negatives; two\nINFO next\n"
    row = zoo.outcome("X", 0, DONE, log)
    assert row == {
        "passes": True,
        "chosen": "no sampled negatives; two",
        "ndcg": "0.0235",
        "reason": "",
    }
    assert not zoo.outcome("X", 1, DONE, "")["passes"]
    assert not zoo.outcome("X", 0, "", "")["passes"]
    failed = zoo.outcome("X", 2, "", "Traceback\n  line\nerror: no file /a/b/c.ent here\n\n")
    assert failed["reason"] == "no file c.ent here"


def test_a_second_call_runs_what_has_no_result_yet(zoo):
    wanted = [("general", "BPR"), ("general", "Pop"), ("sequential", "SASRec")]
    assert list(zoo.rows_to_run(wanted, {"Pop": {}}, [])) == [wanted[0], wanted[2]]
    assert list(zoo.rows_to_run(wanted, {"Pop": {}, "BPR": {}}, ["BPR"])) == [wanted[0], wanted[2]]


def test_the_page_counts_and_explains(zoo):
    results = {
        "A": {**NO_ROW, "passes": True, "ndcg": "0.5", "reason": ""},
        "B": {**NO_ROW, "passes": False, "reason": "needs a | graph"},
    }
    page = zoo.page({"dataset": "ml-100k", "settings": {"epochs": 1}, "results": results})
    assert "## General models: 1 of 2 pass" in page
    assert "| A | 0.5 | 1 | yes |  |  |" in page
    assert "no: needs a \\| graph" in page
    assert "`--epochs=1`" in page


@pytest.mark.slow
def test_a_model_runs_in_a_process_of_its_own_with_a_limit(zoo):
    row = zoo.run("Pop", "ml-100k", zoo.SETTINGS, 300)
    assert (row["reason"], row["passes"]) == ("", True)
    assert row["chosen"] == "one pass over the interactions"
    late = zoo.run("SASRec", "ml-100k", zoo.SETTINGS, 0.01)
    assert late["reason"] == "not done after 0 seconds"
