"""What several processes on CPUs do otherwise than RecBole's on GPUs."""

import gc
import weakref

import torch
from recbole.quick_start import quick_start

from recbole_m3rec.processes import distributed


def test_workers_start_from_a_function_of_the_plugins():
    worker = quick_start.run_recboles
    assert worker.__module__.startswith("recbole_m3rec.")
    assert [each.__module__ for each in distributed._recboles_worker] == [quick_start.__name__]
    distributed.start_workers_here()
    assert quick_start.run_recboles is worker
    assert len(distributed._recboles_worker) == 1


def test_a_worker_takes_its_share_of_the_cores(monkeypatch):
    threads = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.setattr(distributed, "_recboles_worker", [lambda rank, *arguments: None])
    distributed.run_worker(0, "SASRec", "tiny", None, {"config_dict": {"nproc": 2}})
    assert threads == [3]


def test_alone_nothing_is_distributed(make_config):
    config = make_config("SASRec")
    assert config["single_spec"] is True
    assert config["device"] == torch.device("cpu")
    assert not torch.distributed.is_initialized()


def test_constant_buffers_are_not_sent_around(monkeypatch):
    model = torch.nn.Linear(2, 2)
    model.register_buffer("features", torch.zeros(3), persistent=False)
    model.register_buffer("statistics", torch.zeros(3))
    wrapped = {}
    real = distributed.DistributedDataParallel

    class Recorded:
        _set_params_and_buffers_to_ignore_for_model = staticmethod(
            real._set_params_and_buffers_to_ignore_for_model
        )

        def __init__(self, module, **options):
            wrapped.update(options, module=module)

    monkeypatch.setattr(distributed, "DistributedDataParallel", Recorded)
    distributed.data_parallel(model, device_ids=[1])
    assert wrapped["device_ids"] is None
    assert list(model._ddp_params_and_buffers_to_ignore) == ["features"]


def test_batch_norms_on_cpus_stay_batch_norms():
    from recbole.trainer import trainer

    norms = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    assert trainer.torch.nn.SyncBatchNorm.convert_sync_batchnorm(norms) is norms
    assert trainer.torch.nn.Module is torch.nn.Module


def test_folders_may_exist_already(tmp_path):
    from recbole.trainer import trainer
    from recbole.utils import logger

    for module in (trainer, logger):
        module.ensure_dir(str(tmp_path / "a" / "b"))
        module.ensure_dir(str(tmp_path / "a" / "b"))
        assert module.ensure_dir.__wrapped__ is not module.ensure_dir


def test_a_process_group_outlives_the_model_that_used_it(monkeypatch, tmp_path):
    monkeypatch.setattr(distributed.watch, "stop", lambda: None)
    dist = torch.distributed
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    group = weakref.ref(dist.group.WORLD)
    quick_start.dist.destroy_process_group()
    gc.collect()
    assert not dist.is_initialized()
    assert group() is not None
    distributed._left.clear()
