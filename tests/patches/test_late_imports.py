"""scikit-learn and ray are imported when RecBole uses them, and work as ever then."""

import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from recbole_m3rec.patches import late_imports


@pytest.mark.slow
def test_starting_imports_neither_and_using_imports_the_real_one(first_run):
    assert first_run["early"] == []
    assert first_run["error"] == 1.5
    assert Path(first_run["its file"]).is_file()


def test_metrics_are_those_of_scikit_learn():
    from recbole.evaluator import metrics

    assert metrics.sk_auc([0, 0.5, 1], [0, 1, 1]) == 0.75
    assert metrics.mean_squared_error([1, 2], [2, 4]) == 2.5


def test_a_linear_model_hides_the_same_warnings(prepare, monkeypatch):
    from recbole.utils import get_model
    from sklearn import linear_model
    from sklearn.exceptions import ConvergenceWarning

    fit = linear_model.ElasticNet.fit

    def warn_and_fit(self, matrix, target):
        warnings.warn("not converged", ConvergenceWarning, stacklevel=1)
        warnings.warn("of another kind", UserWarning, stacklevel=1)
        return fit(self, matrix, target)

    monkeypatch.setattr(linear_model.ElasticNet, "fit", warn_and_fit)
    config, _, train, *_ = prepare("SLIMElastic")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        get_model("SLIMElastic")(config, train.dataset)
    assert "of another kind" in {str(warning.message) for warning in shown}
    assert "not converged" not in {str(warning.message) for warning in shown}


@pytest.mark.parametrize("takes_a_dictionary", [False, True])
def test_a_ray_that_imports_is_told(takes_a_dictionary, monkeypatch):
    from recbole.quick_start import quick_start

    told = []
    ray = ModuleType("ray.tune")
    if takes_a_dictionary:
        ray.report = lambda metrics, *, checkpoint=None: told.append(metrics)
    else:
        ray.report = lambda **metrics: told.append(metrics)
    monkeypatch.setitem(sys.modules, "ray.tune", ray)
    quick_start.tune.report(**{"hit@10": 0.5})
    assert told == [{"hit@10": 0.5}]


def test_a_ray_that_cannot_be_imported_is_no_error(tmp_path, monkeypatch):
    from recbole.quick_start import quick_start

    broken = tmp_path / "ray"
    broken.mkdir()
    (broken / "__init__.py").write_text("")
    (broken / "tune.py").write_text("raise AttributeError('np.bool8')")
    for name in [name for name in sys.modules if name.split(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert quick_start.tune.report(**{"hit@10": 0.5}) is None


def test_stand_ins_leave_what_was_imported_before():
    before = sys.modules["json"]
    with late_imports.stand_ins("json", "surely.not.imported"):
        assert sys.modules["json"] is before
        assert isinstance(sys.modules["surely.not.imported"], late_imports.StandIn)
    assert "surely.not.imported" not in sys.modules
