"""Names of numpy and scipy that RecBole expects: present, and only where they were missing."""

import sys
from types import ModuleType

import numpy as np
import pytest
from scipy.sparse import dok_matrix

from recbole_m3rec.patches import libraries


def test_recboles_configuration_finds_its_numpy_names(make_config):
    make_config("SASRec")  # fails in Config.compatibility_settings without the mend
    for name, scalar in libraries.NUMPY_NAMES.items():
        assert getattr(np, name) is scalar


def test_numpy_is_left_alone_where_it_has_the_names(monkeypatch):
    from recbole.config import Config

    theirs = object()
    monkeypatch.setattr(Config, "compatibility_settings", theirs)
    for name in ("float_", "complex_", "unicode_"):
        monkeypatch.setattr(np, name, np.float64, raising=False)
    libraries.name_numpy_scalars()
    assert Config.compatibility_settings is theirs


def test_dok_update_adds_entries():
    matrix = dok_matrix((2, 3), dtype=np.float32)
    matrix._update({(0, 1): 1.0, (1, 2): 2.0})
    assert matrix.tocsr().toarray().tolist() == [[0, 1, 0], [0, 0, 2]]


def test_dok_update_of_scipy_is_kept(monkeypatch):
    theirs = object()
    monkeypatch.setattr(dok_matrix, "_update", theirs, raising=False)
    libraries.restore_dok_update()
    assert dok_matrix._update is theirs


def test_lightgcn_builds_its_graph(new_model):
    _, model, train, *_ = new_model("LightGCN")
    assert model.norm_adj_matrix._nnz() == 2 * len(train.dataset)


@pytest.mark.parametrize("modern", [True, False])
def test_a_search_draws_by_what_hyperopt_draws_by(modern, monkeypatch):
    from recbole.trainer import hyper_tuning

    stochastic = ModuleType("hyperopt.pyll.stochastic")
    draw = (lambda n, rng: rng.integers(n)) if modern else (lambda n, rng: rng.randint(n))
    stochastic.randint = draw
    monkeypatch.setitem(sys.modules, "hyperopt.pyll.stochastic", stochastic)
    source = hyper_tuning.np.random.RandomState(7)
    assert 0 <= draw(5, rng=source) < 5
    assert hyper_tuning.np.random.default_rng is np.random.default_rng
