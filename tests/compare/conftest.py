"""What the tests of comparisons share: small runs, runs refused, and outcomes of runs made up."""

import numpy as np
import pytest

from recbole_m3rec.compare import results
from recbole_m3rec.compare.results import Outcome
from recbole_m3rec.compare.runs import Identity, Run
from recbole_m3rec.compare.user_values import UserValues
from tests.compare.forked_workers import forked_workers  # noqa: F401  (a fixture)

PROTOCOL = {
    "mask_seen": False,
    "valid_metric": "NDCG@5",
    "user_inter_num_interval": "[5,inf)",
    "item_inter_num_interval": "[5,inf)",
    "eval_args": {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "group_by": "user",
        "mode": {"valid": "full", "test": "full"},
    },
}


@pytest.fixture
def small_settings():
    """Settings under which a model trains on the tiny dataset in a moment."""
    return {
        "epochs": 2,
        "hidden_size": 8,
        "train_batch_size": 32,
        "MAX_ITEM_LIST_LENGTH": 5,
        "topk": [3, 5],
        "valid_metric": "NDCG@5",
        "data_path": "dataset",
        "gpu_id": "",
    }


@pytest.fixture
def tiny_of_fourteen(write_dataset, tiny_interactions):
    """The tiny dataset with two more users: for fewer, scipy's Wilcoxon test tries all signs."""
    more = [(f"v{user}", *rest) for user, *rest in tiny_interactions if user < "u02"]
    return write_dataset("tiny", [*tiny_interactions, *more])


@pytest.fixture
def outcome(tmp_path):
    """Return a function that writes the result of a made-up run and returns its outcome."""

    def make(
        name,
        values,
        seed=1,
        dataset="tiny",
        model=None,
        failure=None,
        lists=None,
        parts=None,
        **config,
    ):
        """Make an outcome.

        Args:
            name: the run's name.
            values: of each user, by metric; None for a run that failed.
            seed: its seed.
            dataset: its dataset.
            model: its model; default the name.
            failure: why it failed.
            lists: what it recommended.
            parts: metrics of parts of the targets, such as "cold hit@5".
            config: keys that differ from ``PROTOCOL``.
        """
        run = Run(name, model or name, dataset, seed)
        identity = Identity({**PROTOCOL, "name": name, "seed": seed, **config}, {"x.inter": "0"})
        folder = tmp_path / "made" / identity.hash[:20]
        if values is None:
            return Outcome(run, identity, folder, None, failure or "broken")
        columns = np.array(list(values.values()), dtype=float).T
        n = len(columns)
        users = UserValues(
            users=np.array([f"u{i:03d}" for i in range(n)]),
            targets=np.array([f"i{i:03d}" for i in range(n)]),
            history=np.arange(n) % 9 + 3,
            popularity=np.arange(n) % 7,
            cold=np.zeros(n, dtype=bool),
            rank=np.arange(n) + 1,
            metrics=tuple(values),
            values=columns,
        )
        epochs = [
            {"epoch": e, "loss": 1.0, "seconds": 2.0, "score": 9.0, "valid": {"ndcg@5": 0.1 * e}}
            for e in range(3)
        ]
        result = {
            "hash": identity.hash,
            "test": dict(zip(values, columns.mean(axis=0).tolist(), strict=True))
            | dict(parts or {}),
            "valid": {"ndcg@5": 0.2},
            "epochs": epochs,
            "best_epoch": 2,
            "training_seconds": 6.0,
            "seconds_per_epoch": 2.0,
            "seconds": 7.0,
            "parameters": 1000,
            "peak_memory_mib": 500.0,
            "peak_gpu_memory_mib": None,
            "versions": {"torch": "2"},
        }
        results.write_result(folder, result, users, lists)
        made = results.read_outcome(run, identity, folder)
        assert made is not None
        return made

    return make
