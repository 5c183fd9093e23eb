"""Everything of RecBole's that takes a model's name takes the plugin's models."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from recbole.data import create_dataset
from recbole.quick_start import load_data_and_model, objective_function, run, run_recbole
from recbole.utils import get_model, get_trainer
from recbole.utils.case_study import full_sort_scores, full_sort_topk

import recbole_m3rec
from recbole_m3rec import registration
from recbole_m3rec.trainer.pipeline import M3RecTrainer
from tests.fresh_python import fresh_python

MODELS = ["M3Rec", "Mamba4Rec", "SASRecMM", "ContentKNN"]


@pytest.mark.parametrize("model", MODELS)
def test_recbole_finds_the_model_by_name(model):
    import recbole.model.sequential_recommender as family

    found = get_model(model)
    assert found.__name__ == model
    assert found.__module__ == registration.MODELS[model]
    assert getattr(family, model) is found


@pytest.mark.parametrize(
    ("runner", "model"), [(run, "M3Rec"), *((run_recbole, model) for model in MODELS)]
)
def test_recbole_runs_the_model_by_name(runner, model, make_config):
    keys = make_config(model).variable_config_dict
    result = runner(model, "tiny", config_dict=keys)
    assert 0 <= result["test_result"]["ndcg@5"] <= 1


def test_recboles_objective_function_takes_the_model(make_config):
    keys = make_config("M3Rec").variable_config_dict
    result = objective_function({**keys, "model": "M3Rec", "dataset": "tiny"})
    assert result["model"] == "M3Rec"


def test_a_checkpoint_gives_the_trained_models_scores(make_config, monkeypatch):
    from recbole.trainer import Trainer

    trained = []
    evaluate = Trainer.evaluate

    def keep(self, data, load_best_model=True, **options):
        result = evaluate(self, data, load_best_model=load_best_model, **options)
        if load_best_model:
            trained.append((self.model, data))
        return result

    monkeypatch.setattr(Trainer, "evaluate", keep)
    keys = make_config("M3Rec").variable_config_dict
    run_recbole("M3Rec", "tiny", config_dict=keys)
    checkpoint = next(Path("saved").glob("M3Rec-*.pth"))

    config, model, dataset, _, _, test = load_data_and_model(str(checkpoint))
    users = dataset.token2id("user_id", ["u03", "u07"])
    scores = full_sort_scores(users, model, test, device=config["device"])
    before = full_sort_scores(users, *trained[0], device=config["device"])
    assert torch.equal(scores, before)
    best, items = full_sort_topk(users, model, test, k=3, device=config["device"])
    assert torch.equal(best, scores.topk(3).values)
    assert items.shape == (2, 3)


@pytest.mark.parametrize("model", MODELS)
def test_the_model_gets_the_plugins_dataset(model, make_config):
    from recbole_m3rec.data.dataset import M3RecDataset

    assert type(create_dataset(make_config(model))) is M3RecDataset


def test_the_plugins_models_get_its_trainer(make_config):
    for model in MODELS:
        assert get_trainer(make_config(model)["MODEL_TYPE"], model) is M3RecTrainer
    assert get_trainer(make_config("SASRec")["MODEL_TYPE"], "SASRec").__name__ == "Trainer"


def test_every_function_of_recboles_is_wrapped_once():
    """What repairs RecBole stands apart, in patches/."""
    wrap = re.compile(r'\bwrap(?:_everywhere)?\((?:\w+\.)*(\w+(?:\(.*?\))?), "(\w+)"\)')
    root = Path(registration.__file__).parent
    files = [file for file in root.rglob("*.py") if file.parent.name != "patches"]
    wrapped = Counter(each for file in files for each in wrap.findall(file.read_text()))
    assert len(wrapped) > 40
    assert [name for name, count in wrapped.items() if count > 1] == []


def test_other_models_get_recboles_dataset(make_config):
    assert type(create_dataset(make_config("SASRec"))).__name__ == "SequentialDataset"


@pytest.mark.parametrize(("positions", "windows"), [("all", True), ("last", False)])
def test_train_positions_choose_the_loader(positions, windows, prepare):
    _, _, train, valid, _ = prepare("M3Rec", train_positions=positions)
    assert (type(train).__name__ == "WindowTrainDataLoader") is windows
    assert type(valid).__name__ == "FullSortEvalDataLoader"


def test_registering_again_changes_nothing(monkeypatch):
    monkeypatch.setattr(registration, "PATCHES", [lambda: pytest.fail("patched twice")])
    recbole_m3rec.register()


@pytest.mark.slow
def test_importing_the_package_is_enough(first_run):
    """In a process that knows nothing else, before anything of RecBole's is imported."""
    assert first_run["numpy names"]
    assert not first_run["traces"]
    assert first_run["hidden size"] == 128


@pytest.mark.slow
def test_registering_comes_first_where_a_program_wants_it_to():
    """And leaves on what that program turned on before, torch's anomaly detection."""
    done = fresh_python(
        "import torch; torch.autograd.set_detect_anomaly(True)\n"
        "import recbole_m3rec\nrecbole_m3rec.register()\n"
        "from recbole.utils import get_model\n"
        "print(get_model('M3Rec').__name__, torch.is_anomaly_enabled())"
    )
    assert done.stdout.split() == ["M3Rec", "True"]


@pytest.mark.slow
def test_names_that_a_program_imported_before_are_wrapped_too():
    done = fresh_python(
        "from recbole.data import create_dataset as make, data_preparation\n"
        "import recbole_m3rec, recbole.data.utils as utils\n"
        "print(make is utils.create_dataset, data_preparation is utils.data_preparation)\n"
        "print(make.__wrapped__ is not make)"
    )
    assert done.stdout.split() == ["True"] * 3


def test_hyper_tuning_takes_the_model(make_config):
    pytest.importorskip("hyperopt")
    from recbole.trainer import HyperTuning

    keys = make_config("M3Rec").variable_config_dict

    def objective(chosen, files):
        return objective_function({**keys, **chosen, "model": "M3Rec", "dataset": "tiny"}, files)

    tuning = HyperTuning(objective, params_dict={"choice": {"d_state": [2, 4]}}, algo="exhaustive")
    tuning.run()
    assert len(tuning.params2result) == 2


BASELINES = ["SASRec", "GRU4Rec", "BERT4Rec", "BPR", "LightGCN", "Pop", "FPMC", "DIN", "RepeatNet"]


@pytest.mark.parametrize("model", BASELINES)
def test_recboles_own_models_run_on_the_same_protocol(model, make_config):
    keys = make_config(model).variable_config_dict
    result = run_recbole(model, "tiny", config_dict=keys)
    assert set(result["test_result"]) == {
        f"{m}@{k}" for m in ("hit", "ndcg", "mrr") for k in (3, 5)
    }
