"""Runs that end in an error with RecBole alone, whatever the libraries."""

import logging
import re
import time
import warnings
from importlib.util import find_spec

import pytest
import torch
from recbole.data.dataset import Dataset
from recbole.evaluator.collector import Collector
from recbole.quick_start import run_recbole

from recbole_m3rec.patches import runs


def test_a_download_in_a_single_process_waits_for_nobody(make_config, monkeypatch, tmp_path):
    from recbole.data.dataset import dataset as module

    def download(url, folder):
        from pathlib import Path

        (Path(folder) / "archive.zip").touch()
        return str(Path(folder) / "archive.zip")

    monkeypatch.setattr(module, "decide_download", lambda url: True)
    monkeypatch.setattr(module, "download_url", download)
    monkeypatch.setattr(module, "extract_zip", lambda path, folder: None)
    config = make_config("BPR", "jester", data_path=str(tmp_path / "dataset"))
    with pytest.raises(ValueError, match=r"jester\.inter does not exist"):  # after the barrier
        Dataset(config)


def test_several_processes_wait_for_the_download_and_nobody_else_sees_that_barrier(monkeypatch):
    from recbole.data.dataset import dataset as module

    waited = []
    assert module.torch.distributed.barrier is not torch.distributed.barrier
    assert module.torch.distributed.get_rank is torch.distributed.get_rank
    assert module.torch.tensor is torch.tensor
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: waited.append(True))
    module.torch.distributed.barrier()
    assert waited == [True]


def test_reproducibility_asks_torch_for_one_order_and_its_absence_does_not():
    import recbole.quick_start.quick_start as quick_start

    try:
        quick_start.init_seed(1, True)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
        quick_start.init_seed(1, False)
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_metrics_over_counts_are_computed_and_print_as_numbers(make_config):
    metrics = ["ItemCoverage", "GiniIndex", "AveragePopularity", "TailPercentage"]
    keys = make_config("Pop").variable_config_dict
    keys |= {"metrics": metrics, "valid_metric": "ItemCoverage@5"}
    result = run_recbole("Pop", "tiny", config_dict=keys)["test_result"]
    assert {f"{metric.lower()}@5" for metric in metrics} <= set(result)
    assert all(0 <= value <= 12 for value in result.values())
    assert "float64" not in str(result)


def test_counts_are_still_there_for_the_next_evaluation(make_config):
    config = make_config("Pop", metrics=["ItemCoverage"], valid_metric="ItemCoverage@5")
    collector = Collector(config)
    collector.data_struct.set("data.num_items", 7)
    collector.data_struct.set("rec.items", torch.tensor([[1]]))
    for _ in range(2):
        assert collector.get_data_struct().get("data.num_items") == 7
    assert "rec.items" not in collector.data_struct


def test_a_collector_that_copes_is_left_alone(monkeypatch):
    before = Collector.get_data_struct
    assert not runs._collector_fails_on_counts(Collector, _struct_class())  # mended already
    runs.collect_plain_values()
    assert Collector.get_data_struct is before


def _struct_class():
    from recbole.evaluator.collector import DataStruct

    return DataStruct


@pytest.mark.parametrize("model", ["GRU4RecCPR", "SASRecCPR"])
def test_a_model_whose_flops_cannot_be_counted_trains(model, make_config):
    if not find_spec(f"recbole.model.sequential_recommender.{model.lower()}"):
        pytest.skip("not yet in this RecBole")
    config = make_config(model, reranker_CAN_NUM=5)
    result = run_recbole(model, "tiny", config_dict=config.variable_config_dict)
    assert 0 <= result["test_result"]["ndcg@5"] <= 1


def test_uncountable_flops_are_reported_with_the_reason():
    from recbole.quick_start import quick_start

    said = []

    class Logger:
        warning = said.append

    class Uncountable(torch.nn.Linear):
        type = None

    flops = quick_start.get_flops(Uncountable(1, 1), None, "cpu", Logger, None)
    assert flops == "unknown"
    assert "FLOPs of Uncountable cannot be counted (TypeError" in said[0]


def test_flops_that_can_be_counted_are_counted():
    from recbole.quick_start import quick_start
    from recbole.utils import ModelType

    class Tree:
        type = ModelType.DECISIONTREE

    assert quick_start.get_flops(Tree(), None, "cpu", None, None) == 1


def test_the_use_of_the_cpu_is_logged_without_waiting(make_config, monkeypatch):
    from recbole.quick_start import quick_start

    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"slept {seconds} s"))
    assert re.search(
        r"CPU +\| +\d+\.\d\d %", quick_start.get_environment(make_config("BPR")).draw()
    )


@pytest.mark.slow
def test_a_run_says_nothing_that_nobody_can_change(first_run):
    """Of a process of its own: pytest shows every warning."""
    assert "test result" in first_run["log"]
    assert "Warning" not in first_run["log"]


def test_runs_begun_in_the_same_second_have_checkpoints_of_their_own(make_config):
    from recbole.trainer import Trainer

    config = make_config("BPR")
    model = torch.nn.Linear(1, 1)
    files = {Trainer(config, model).saved_model_file for _ in range(8)}
    assert len(files) == 8


@pytest.mark.parametrize(("supported", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_mixed_precision_is_bfloat16_where_the_gpu_has_it(monkeypatch, supported, expected):
    from recbole.trainer import trainer

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no GPU
        context = trainer.torch.autocast(device_type="cuda", enabled=True)
    assert context.fast_dtype == getattr(torch, expected)


def test_the_path_that_ract_loads_is_logged(caplog):
    caplog.set_level(logging.INFO)
    logging.getLogger().info("Load pretrained model from", "saved/RaCT.pth")  # noqa: PLE1205
    assert "Load pretrained model from saved/RaCT.pth" in caplog.text


@pytest.mark.parametrize(
    ("metric", "method"), [("AveragePopularity", "get_pop"), ("TailPercentage", "get_tail")]
)
def test_metrics_that_look_items_up_once_are_recboles(metric, method):
    from recbole.evaluator import metrics

    config = {"topk": [3], "metric_decimal_place": 4, "tail_ratio": 0.4}
    lists = torch.randint(1, 12, (40, 3), generator=torch.Generator().manual_seed(1)).numpy()
    counts = {item: 20 - item for item in range(1, 10)}
    patched = getattr(metrics, metric)(config)
    found = getattr(patched, method)(lists, counts)
    expected = getattr(metrics, metric).__dict__[method].__wrapped__(patched, lists, counts)
    assert found.dtype == expected.dtype
    assert (found == expected).all()
    assert found.any()
