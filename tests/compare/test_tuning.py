"""Searches for settings: how many trials each model gets, what they share, what is kept of them."""

import json
import math
from types import SimpleNamespace

import pytest

from recbole_m3rec.cli import compare
from recbole_m3rec.compare import results, tuning
from recbole_m3rec.compare.runs import Run
from recbole_m3rec.config.yaml_files import ConfigurationError


@pytest.fixture
def write_space(tmp_path, write_dataset):
    """Return a function that writes BPR's search space, beside the tiny dataset."""
    pytest.importorskip("optuna")

    def write(*lines):
        write_dataset("tiny")
        spaces = tmp_path / "properties" / "tuning"
        spaces.mkdir(parents=True)
        (spaces / "BPR.hyper").write_text("\n".join(lines) + "\n", encoding="utf-8")

    return write


def test_every_model_gets_as_many_trials_and_a_killed_search_goes_on(
    write_space, tmp_path, small_settings, forked_workers, refuse_workers
):
    optuna = pytest.importorskip("optuna")

    write_space("learning_rate choice [0.05,0.001]")
    runs = [
        Run("BPR", "BPR", "tiny", 1, {**small_settings, "embedding_size": 8}),
        Run("Pop", "Pop", "tiny", 1, small_settings),
    ]
    study = tuning._Study(runs[0], tmp_path / "out", 2)
    cut_off = study.study.ask()  # a trial whose program was killed
    rate = cut_off.suggest_categorical("learning_rate", ["0.05", "0.001"])
    found = tuning.tune(runs, tmp_path / "out", 2, jobs=2, show_progress=False)
    assert [each.run.name for each in found] == ["BPR", "Pop"]
    assert sum(found[0].trials.values()) == 2
    assert found[0].chosen["learning_rate"] in (0.05, 0.001)
    assert found[0].run.settings["learning_rate"] == found[0].chosen["learning_rate"]
    assert found[1].space is None
    assert found[1].run == runs[1]
    for folder in (tmp_path / "out" / "trials").iterdir():
        trial = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        assert trial["test"] == {}
        assert not (folder / results.USERS).exists()
    best = max(
        json.loads((folder / "result.json").read_text(encoding="utf-8"))["score"]
        for folder in (tmp_path / "out" / "trials").iterdir()
    )
    assert found[0].score == best
    trials = tuning._Study(runs[0], tmp_path / "out", 2).study.trials
    assert trials[0].state == optuna.trial.TrialState.FAIL
    assert trials[1].params == {"learning_rate": rate}  # what was cut off comes first

    refuse_workers()
    assert tuning.tune(runs, tmp_path / "out", 2, jobs=1, show_progress=False) == found
    sentence = tuning.tuning_sentence(found, 2)
    assert "Not tuned, configured settings: Pop." in sentence
    (bpr, pop) = tuning.tuning_grid(found).rows
    assert "learning_rate: 0.05, 0.001" in bpr[-1].text
    assert pop[-1].text == "no search space: configured settings"


@pytest.mark.parametrize(
    ("score", "part"), [(0.5, "completed"), (None, "failed"), (math.nan, "failed")]
)
def test_trials_that_draw_the_same_settings_at_once_share_one_result(
    write_space, tmp_path, monkeypatch, small_settings, score, part
):
    write_space("learning_rate choice [0.05]")
    study = tuning._Study(Run("BPR", "BPR", "tiny", 1, small_settings), tmp_path / "out", 2)
    job = study.next_job()
    assert job is not None
    assert study.next_job() is None
    assert study.left() == 0
    outcome = SimpleNamespace(result={"score": score}, failure=None)
    monkeypatch.setattr(results, "read_outcome", lambda *_: outcome)
    study.ended(job)
    assert study.counted() == {**dict.fromkeys(tuning.PARTS, 0), part: 2}
    assert study.left() == 0


def test_a_journal_whose_last_line_was_cut_off_goes_on(write_space, tmp_path, small_settings):
    write_space("learning_rate choice [0.05]")
    run = Run("BPR", "BPR", "tiny", 1, small_settings)
    tuning._Study(run, tmp_path / "out", 2).study.ask()
    (journal,) = (tmp_path / "out" / "tuning").glob("*.journal")
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    for trials in (2, 3):  # one that is given back, and again
        study = tuning._Study(run, tmp_path / "out", 2).study
        study.ask()
        assert len(study.trials) == trials


def test_what_a_person_has_set_is_not_searched(write_space, tmp_path, small_settings):
    write_space("learning_rate choice [0.05]", "embedding_size choice [8,16]")
    run = Run("BPR", "BPR", "tiny", 1, {**small_settings, "embedding_size": 8})
    assert list(tuning._Study(run, tmp_path / "out", 1).space) == ["learning_rate"]


def test_a_model_whose_trials_all_fail_keeps_its_settings_and_the_report_says_why(
    write_dataset, tmp_path, small_settings
):
    pytest.importorskip("optuna")
    write_dataset("tiny")
    run = Run("BPR", "BPR", "tiny", 1, {**small_settings, "embedding_size": 8})
    study = tuning._Study(run, tmp_path / "out", 1)
    study._fail(study.study.ask(), "no memory left")
    assert study.left() == 0
    found = study.outcome()
    assert found.run == run
    assert "no memory left" in tuning.tuning_grid([found]).rows[0][4].text
    assert "Not tuned, configured settings: BPR." in tuning.tuning_sentence([found], 1)


def test_failed_trials_are_told_at_their_end(
    write_dataset, write_space, small_settings, tmp_path, capfd
):
    pytest.importorskip("optuna")
    write_dataset("tiny")
    write_space("embedding_size choice [-3]")
    run = Run("BPR", "BPR", "tiny", 1, {**small_settings})
    tuning.tune([run], tmp_path / "out", 1)
    said = capfd.readouterr().err
    assert "BPR on tiny: 1 of 1 trials failed, the last one: embedding_size" in said


def test_a_key_that_the_model_does_not_read_is_refused_before_any_trial(
    write_dataset, write_space, small_settings, tmp_path
):
    write_dataset("tiny")
    write_space("embeding_size choice [8,16]")
    run = Run("BPR", "BPR", "tiny", 1, {**small_settings})
    said = "`embeding_size` in the search space of BPR. Did you mean `embedding_size`"
    with pytest.raises(ConfigurationError, match=said):
        tuning.tune([run], tmp_path / "out", 1, show_progress=False)
    assert not (tmp_path / "out").exists()


def test_whole_numbers_are_another_study_than_others_of_the_range(
    write_space, small_settings, tmp_path
):
    write_space()
    run = Run("BPR", "BPR", "tiny", 1, {**small_settings})
    for values in ("8,16,8", "8.0,16.0,8.0"):
        line = f"embedding_size quniform {values}\n"
        (tmp_path / "properties" / "tuning" / "BPR.hyper").write_text(line, encoding="utf-8")
        tuning._Study(run, tmp_path / "out", 1).study.ask()
    assert len(list((tmp_path / "out" / "tuning").glob("*.journal"))) == 2


@pytest.mark.parametrize("keys", [{"eval_step": 0}, {"eval_step": -1}, {"epochs": 0}])
def test_tuning_without_validation_is_refused(
    write_dataset, write_space, small_settings, tmp_path, keys
):
    write_dataset("tiny")
    write_space("learning_rate choice [0.05]")
    run = Run("BPR", "BPR", "tiny", 1, {**small_settings, "embedding_size": 8, **keys})
    with pytest.raises(ConfigurationError, match="eval_step: .* leave the validation out"):
        tuning.tune([run], tmp_path / "out", 1, show_progress=False)
    assert not (tmp_path / "out").exists()


def test_each_model_is_told_with_the_metric_that_it_was_judged_by():
    runs = [Run(name, name, "tiny", 1, {}) for name in ("BPR", "Pop")]
    found = [
        tuning.Tuned(run, {}, dict.fromkeys(tuning.PARTS, 0), {}, score, metric)
        for run, score, metric in zip(runs, (0.25, 0.5), ("NDCG@10", "Hit@20"), strict=True)
    ]
    shown = [row[2].text for row in tuning.tuning_grid(found).rows]
    assert shown == ["NDCG@10 0.2500", "Hit@20 0.5000"]
    assert "judged by valid NDCG@10 or Hit@20;" in tuning.tuning_sentence(found, 2)


def test_without_optuna_tuning_says_how_to_get_it(
    write_dataset, tmp_path, monkeypatch, capsys, refuse_workers
):
    write_dataset("tiny")
    here = tuning.importlib.util.find_spec
    monkeypatch.setattr(
        tuning.importlib.util,
        "find_spec",
        lambda name, *more: None if name == "optuna" else here(name, *more),
    )
    refuse_workers()
    assert compare.main(["--models", "Pop", "--datasets", "tiny", "--tune", "2"]) == 2
    assert "pip install 'recbole_m3rec[tuning]'" in capsys.readouterr().err
