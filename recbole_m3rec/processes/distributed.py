"""Several processes in RecBole: workers that know the plugin, on any device."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.hooks import Overlay, overlay, wrap, wrap_everywhere
from recbole_m3rec.processes import launch, rendezvous, watch


def install() -> None:
    """Put everything that several processes need into RecBole."""
    start_processes()
    start_workers_here()
    train_on_cpus()
    leave_together()
    make_folders_together()


def start_processes() -> None:
    """Let ``recbole.quick_start.run`` refuse what cannot be, join torchrun, and end lost runs."""
    from recbole.quick_start import quick_start

    @wrap_everywhere(quick_start, "run")
    def run(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = inspect.signature(original).bind(*args, **kwargs)
        call.apply_defaults()
        arguments = call.arguments
        options = rendezvous.Options(*(arguments[name] for name in rendezvous.Options._fields))
        rendezvous.check(options)
        started = launch.torchrun()
        if started is not None:
            names = ("model", "dataset", "config_file_list", "saved")
            settings = {**(arguments["config_dict"] or {}), **started.settings()}
            chosen = {name: arguments[name] for name in names}
            with launch.explained():
                return quick_start.run_recbole(**chosen, config_dict=settings)
        if options.nproc == 1 and options.world_size <= 0:
            return original(*args, **kwargs)
        return launch.spawn(quick_start.run_recboles, options, arguments)


def leave_together() -> None:
    """Stop watching before RecBole leaves the process group, and let the group outlive the model.

    Were the data-parallel wrapper its last owner, it would wait for gloo's threads with Python's
    lock held, and one of them may need the lock to free the tensor of the last barrier: both wait
    for ever. A group that Python frees is freed without the lock.
    """
    from recbole.quick_start import quick_start

    def leave() -> None:
        watch.stop()
        _left[:] = [dist.group.WORLD]
        dist.destroy_process_group()

    overlay(quick_start, "dist", destroy_process_group=leave)


_left: list[Any] = []


def make_folders_together() -> None:
    """Fix utils/utils.py:ensure_dir: processes meet between "is it there?" and "make it"."""
    from recbole.utils import utils

    @wrap_everywhere(utils, "ensure_dir")
    def ensure_dir(original: Callable[..., None], dir_path: str) -> None:
        os.makedirs(dir_path, exist_ok=True)


def start_workers_here() -> None:
    """Let ``recbole.quick_start.run`` spawn a function of the plugin's, so that workers import it.

    A spawned process unpickles its function by name: RecBole's own would leave RecBole unpatched,
    without models and configuration of this package.
    """
    from recbole.quick_start import quick_start

    if not _recboles_worker:
        _recboles_worker.append(quick_start.run_recboles)
        quick_start.run_recboles = run_worker


_recboles_worker: list[Callable[..., None]] = []


def run_worker(rank: int, *arguments: Any) -> None:
    """Run one process of RecBole's training, in a process that has imported this package."""
    nproc = int(arguments[-1]["config_dict"].get("nproc", 1))
    if "OMP_NUM_THREADS" not in os.environ:
        # Every process would take all cores.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // nproc))
    _recboles_worker[0](rank, *arguments)


def train_on_cpus() -> None:
    """Fix config/configurator.py:_init_device and trainer/trainer.py:60, which need CUDA.

    On a machine without CUDA processes talk through gloo, and neither the data-parallel wrapper nor
    batch norms ask for a GPU (norms then keep statistics of their own in every process).
    """
    from recbole.config import Config
    from recbole.trainer import trainer as trainers

    @wrap(Config, "_init_device")
    def init_device(original: Callable[..., None], self: Any) -> None:
        values = self.final_config_dict
        # As if alone: RecBole hides the other GPUs first and chooses the device then.
        rank = values.pop("local_rank", None)
        original(self)
        refuse_absent_gpus(self, 1 if rank is None else values["nproc"])
        if rank is None:
            return
        values.update(local_rank=rank, single_spec=False)
        if values["device"].type == "cuda":
            values["device"] = torch.device("cuda", rank)
            torch.cuda.set_device(rank)
        backend = "nccl" if values["device"].type == "cuda" else "gloo"
        started = launch.torchrun()
        if started is not None:
            rendezvous.join_torchrun(backend, started.restarts)
            return quieten(values)
        rendezvous.join(
            backend,
            rank + values["offset"],
            values["world_size"],
            values["ip"],
            int(values["port"]),
        )
        quieten(values)

    class OnAnyDevice:
        """``SyncBatchNorm`` where there is a GPU; batch norms as they are where there is none."""

        @staticmethod
        def convert_sync_batchnorm(module: torch.nn.Module, *args: Any) -> torch.nn.Module:
            if on_cpu(module):
                return module
            return torch.nn.SyncBatchNorm.convert_sync_batchnorm(module, *args)

    overlay(trainers, "torch", nn=Overlay(torch.nn, SyncBatchNorm=OnAnyDevice))
    trainers.DistributedDataParallel = data_parallel


def quieten(values: dict[str, Any]) -> None:
    """Let the first process of a machine alone say what happens."""
    if values["local_rank"] != 0:
        values.update(state="error", show_progress=False, verbose=False)


def refuse_absent_gpus(config: Any, processes: int) -> None:
    """Raise where a GPU that the command line or a file names is not there, or too few are named.

    Checkpoints name the GPU that they were trained on, which another machine need not have.

    Raises:
        ConfigurationError: RecBole would train on the CPU, or several processes on one GPU.
    """
    gpu_id = {**config.file_config_dict, **config.cmd_config_dict}.get("gpu_id")
    gpus = [gpu for gpu in str(config["gpu_id"]).split(",") if gpu.strip() not in ("", "-1")]
    on_gpu = config["device"].type == "cuda"
    count = torch.cuda.device_count() if on_gpu else 0
    if gpu_id is not None and gpus and config["use_gpu"] and count < min(processes, len(gpus)):
        raise ConfigurationError(
            f"gpu_id: {config['gpu_id']}, but {count or 'none'} of these GPUs can be used here. "
            "Name others, or train on the CPU by --gpu_id= with nothing behind it."
        )
    if on_gpu and len(gpus) < processes:
        raise ConfigurationError(
            f"gpu_id: {config['gpu_id']}, but each of --nproc={processes} needs a GPU of its own."
        )


def on_cpu(module: torch.nn.Module) -> bool:
    """Tell whether a module's parameters lie on the CPU."""
    return all(parameter.device.type == "cpu" for parameter in module.parameters())


def data_parallel(
    module: torch.nn.Module, device_ids: list[int] | None = None, **options: Any
) -> DistributedDataParallel:
    """Wrap a model as RecBole asks, on any device.

    Buffers that a checkpoint does not carry, such as feature tables, are the same in every process
    and are not sent around at every step.
    """
    saved = module.state_dict().keys()
    constant = [name for name, _ in module.named_buffers() if name not in saved]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, constant)
    return DistributedDataParallel(
        module, device_ids=None if on_cpu(module) else device_ids, **options
    )
