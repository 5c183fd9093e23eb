"""Registers models, dataset and hooks with RecBole."""

from __future__ import annotations

import importlib
import sys

from recbole_m3rec.config.layers import OWN_MODELS
from recbole_m3rec.patches import (
    atomic_files,
    checkpoints,
    counts,
    full_disk,
    late_imports,
    libraries,
    runs,
    tables,
)

# RecBole finds a model in the module `recbole.model.<family>.<name in small letters>`.
MODELS = {name: f"recbole_m3rec.model.{name.lower()}" for name in OWN_MODELS}
FAMILY = "recbole.model.sequential_recommender"

PATCHES = (
    late_imports.import_scikit_learn_when_used,  # before anything else imports RecBole's metrics
    runs.train_without_tracing,  # before anything else imports RecBole's sequential models
    late_imports.report_to_any_ray,  # RecBole's quick start cannot be imported without
    libraries.name_numpy_scalars,
    libraries.restore_dok_update,
    libraries.draw_by_generator,
    tables.fill_blanks_by_assignment,
    atomic_files.read_without_quotes,
    tables.measure_each_list,
    tables.sort_stably,
    counts.count_every_interaction,
    counts.measure_whole_entropy,
    counts.leave_padding_out,
    checkpoints.load_whole_checkpoints,
    checkpoints.load_on_this_machine,
    runs.download_without_process_group,
    runs.collect_plain_values,
    runs.report_plain_numbers,
    runs.ask_for_deterministic_algorithms,
    runs.look_up_items_once,
    runs.tolerate_uncountable_flops,
    runs.measure_without_waiting,
    runs.name_checkpoints_uniquely,
    runs.train_in_bfloat16,
    runs.silence_known_warnings,
    runs.repair_log_of_ract,
    full_disk.end_logs_quietly,
    full_disk.end_tensorboard_quietly,
)

_registered = False


def register() -> None:
    """Patch RecBole and register the models, their dataset, configuration layers and checks.

    Importing ``recbole`` after or before ``recbole_m3rec`` does this; a second call does nothing.

    Example:
        >>> import recbole_m3rec
        >>> recbole_m3rec.register()
        >>> from recbole.utils import get_model
        >>> get_model("M3Rec").__module__
        'recbole_m3rec.model.m3rec'
    """
    global _registered
    if _registered:
        return
    _registered = True
    for patch in PATCHES:
        patch()

    from recbole_m3rec.baselines import requirements
    from recbole_m3rec.config import data_checks, layers, literals, values
    from recbole_m3rec.data import pipeline as data
    from recbole_m3rec.data import shared_batches, time_order
    from recbole_m3rec.data.saved import cache
    from recbole_m3rec.evaluator import all_processes, mask_seen
    from recbole_m3rec.evaluator import pipeline as evaluation
    from recbole_m3rec.processes import distributed, global_batch
    from recbole_m3rec.trainer import pipeline as training
    from recbole_m3rec.trainer import pretraining

    register_models()
    register_dataset_and_trainer()
    for module in (
        *(literals, layers, values, data_checks, distributed, global_batch),
        *(data, time_order, cache, shared_batches, requirements),
        *(training, pretraining, evaluation, all_processes, mask_seen),
    ):
        module.install()


def register_models() -> None:
    """Put each model's module, and the class, where RecBole looks for its own."""
    family = importlib.import_module(FAMILY)
    for name, module_name in MODELS.items():
        module = importlib.import_module(module_name)
        sys.modules[f"{FAMILY}.{name.lower()}"] = module
        setattr(family, name, getattr(module, name))


def register_dataset_and_trainer() -> None:
    """Put both where RecBole looks for ``<Model>Dataset`` and ``<Model>Trainer``.

    Its other sequential models get its own dataset in this package's form.
    """
    import recbole.trainer
    from recbole.data import dataset as datasets

    from recbole_m3rec.data.dataset import M3RecDataset
    from recbole_m3rec.data.sequential_dataset import SequentialDataset
    from recbole_m3rec.trainer.pipeline import M3RecTrainer

    datasets.SequentialDataset = SequentialDataset
    for name in MODELS:
        setattr(datasets, f"{name}Dataset", M3RecDataset)
        setattr(recbole.trainer, f"{name}Trainer", M3RecTrainer)
