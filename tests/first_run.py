"""What a process does in which nothing is imported yet, for all tests that need one to begin.

It imports RecBole, tells by name what came of that, and trains.
"""

import json

import pytest

from tests.fresh_python import fresh_python
from tests.tiny import small, write_tiny

PROGRAM = """
import gc, json, sys
import recbole_m3rec, recbole

told = {"collects": gc.isenabled(), "frozen": gc.get_freeze_count() / len(gc.get_objects())}
import numpy as np, torch, recbole.quick_start, recbole.model.sequential_recommender.sine
from recbole.config import Config
from recbole.evaluator import metrics

told["numpy names"] = hasattr(np, "float_") or np.float is np.float64
told["traces"] = torch.is_anomaly_enabled()
told["hidden size"] = Config("M3Rec", "ml-100k")["hidden_size"]
told["early"] = [name for name in ("sklearn", "scipy.stats", "ray") if name in sys.modules]
told["error"] = metrics.mean_absolute_error([1, 2], [2, 4])
told["its file"] = sys.modules["sklearn.metrics"].__file__

from recbole_m3rec.cli import ablate, compare
from recbole_m3rec.cli.prepare import amazon, encode_images, encode_text
from recbole_m3rec.cluster.connect import connected

with connected(None) as cluster:
    told["mapped"] = list(cluster.map(len, [("ab",)]))
told["dask"] = sorted({"dask", "distributed"} & set(sys.modules))
print(json.dumps(told))
recbole.quick_start.run_recbole("SASRec", "tiny", config_dict=SETTINGS)
"""


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """What a process tells that imports RecBole first of all; ``log`` is its stderr."""
    folder = tmp_path_factory.mktemp("first")
    write_tiny(folder)
    paths = {"data_path": str(folder / "dataset"), "checkpoint_dir": str(folder / "saved")}
    done = fresh_python(f"SETTINGS = {small('SASRec') | paths}\n{PROGRAM}")
    return {**json.loads(done.stdout.splitlines()[0]), "log": done.stderr}
