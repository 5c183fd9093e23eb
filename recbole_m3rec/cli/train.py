"""The command line: RecBole's own, and three things to do with a checkpoint."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recbole_m3rec.cli.arguments import parse
from recbole_m3rec.cli.parsers import METRIC_KEYS, NEWEST, UsageError
from recbole_m3rec.config.layers import DATASET_KEYS, properties_folder
from recbole_m3rec.config.yaml_files import read_yaml
from recbole_m3rec.processes.launch import torchrun
from recbole_m3rec.quick_start import checkpoints as saved_runs
from recbole_m3rec.quick_start import resuming
from recbole_m3rec.quick_start.recommend import refuse_to_replace, write_recommendations
from recbole_m3rec.quick_start.screen import calm_screen
from recbole_m3rec.support.command_names import command
from recbole_m3rec.support.exit_codes import run_command
from recbole_m3rec.support.safe_write import is_stream
from recbole_m3rec.support.text_table import text_table
from recbole_m3rec.trainer.interruption import SIGNALS, Stopped
from recbole_m3rec.trainer.progress import best_checkpoint


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 for a user's error.

    130 if interrupted by Ctrl-C, 143 if by SIGTERM; training saves its state before.
    """
    process_arguments = sys.argv
    try:
        return run_command(launch, arguments, when_interrupted="No training was under way to save.")
    finally:
        sys.argv = process_arguments


def launch(arguments: Sequence[str]) -> int | None:
    """Do what the arguments ask for, and return the exit code, None for 0."""
    options, settings = parse(arguments)
    # RecBole reads settings from here, and warns about whatever else it finds.
    sys.argv = [sys.argv[0], *settings]
    with calm_screen():
        return dispatch(options)


def dispatch(options: argparse.Namespace) -> int | None:
    """Do what the options ask for, then say what came of it."""
    deeds = {"evaluate": evaluate, "topk": recommend, "export": export, "show": show}
    asked = next((name for name in deeds if getattr(options, name) is not None), None)
    return deeds.get(str(asked), train)(options)


def train(options: argparse.Namespace) -> None:
    """Train and test by ``recbole.quick_start.run``, from the start or from a checkpoint."""
    from recbole.quick_start import run

    settings = None
    model, dataset = options.model, options.dataset
    config_files = options.config_files or None
    if options.resume is not None:
        saved = run_to_resume(options)
        model, dataset = saved.model, saved.dataset
        settings = {**saved.settings, resuming.RESUME_KEY: saved.path.resolve()}
        config_files = None  # the checkpoint brings what they said
        epochs = resuming.resumed_configuration(saved)["epochs"]
        if saved.epoch + 1 >= epochs and not saved.is_exact:
            raise UsageError(
                f"{saved.path} is of epoch {saved.epoch} (from 0), and --epochs is {epochs}: "
                f"nothing is left to train. Give more, such as --epochs={saved.epoch + 101}."
            )
    else:
        named = read_names(options)
        model, dataset = named["model"], named["dataset"]
    resuming.install_resuming()
    started, several = torchrun(), options.nproc != 1 or options.world_size > 0
    if started is not None and several:
        raise UsageError("torchrun says how many processes there are: leave out --nproc.")
    with SIGNALS.caught(by_workers=several), saved_runs.noting_checkpoint() as checkpoints:
        result = run(
            model,
            dataset,
            config_file_list=config_files,
            config_dict=settings,
            nproc=options.nproc,
            world_size=options.world_size,
            ip=options.ip,
            port=options.port,
            group_offset=options.group_offset,
        )
        stopped = SIGNALS.pending or (result or {}).get("stopped")
        if stopped is not None:
            raise Stopped(stopped, (result or {}).get("saved"))
    if result is None or (started is not None and started.rank > 0):  # the first one says it
        return
    valid = result["best_valid_result"]
    print_metrics({"valid": valid or {}, "test": result["test_result"] or {}})
    # A resumed training that did not get better leaves its checkpoint as it was.
    noted = [*checkpoints, *result.get("checkpoint", ())]
    saved_files = [file for file in noted if file.is_file()]  # a full disk may have had no room
    if not saved_files and options.resume is not None:
        saved_files = [best_checkpoint(saved.path, saved.settings)]
    checkpoint = saved_files[-1] if saved_files else None
    print_places(checkpoint, result.get("log"))
    is_told = options.resume in (None, NEWEST)  # a checkpoint that is named brings its settings
    settings_next = [*repeated(options.config_files)] if is_told else None
    print_next(checkpoint, str(model), str(dataset), settings_next)


def evaluate(options: argparse.Namespace) -> None:
    """Compute a checkpoint's metrics on validation and test data again."""
    run = open_checkpoint(options.evaluate, options)
    config, model, _, loaders, _ = saved_runs.load_run(run)
    results = saved_runs.metrics(config, model, loaders, show_progress=config["show_progress"])
    for name, result in results.items():
        logging.getLogger().info(f"{name} result : {result}")
    print_metrics(results)
    print_places(run.path)


def recommend(options: argparse.Namespace) -> None:
    """Write the best items of every user into a CSV file."""
    refuse_to_replace(options.output)
    run = open_checkpoint(options.topk, options)
    config, model, dataset, _, interactions = saved_runs.load_run(run)
    users = write_recommendations(
        options.output,
        config=config,
        model=model,
        dataset=dataset,
        interactions=interactions,
        k=options.k,
        keep_seen=options.keep_seen,
    )
    # Where the recommendations may be what is printed, the rest goes elsewhere.
    with redirect_stdout(sys.stderr) if is_stream(options.output) else nullcontext():
        print(
            f"recommendations: {options.output}, up to {options.k} items for each of"
            f" {users:,} users"
        )
        print_places(run.path)


def read_names(options: argparse.Namespace) -> dict[str, str]:
    """Return model and dataset as the command line, or else a file of it, names them, or raise."""
    values: dict[str, Any] = {}
    for file in options.config_files:
        values.update(read_yaml(Path(file)))
    for key in ("model", "dataset"):
        values[key] = getattr(options, key) or values.get(key)
        if values[key] is None:
            raise UsageError(
                f"No {key} is named. Example: --model=M3Rec --dataset=ml-100k; --help shows more."
            )
    return values


def run_to_resume(options: argparse.Namespace) -> saved_runs.Checkpoint:
    """Read the checkpoint that is named, or find the newest run of this configuration.

    Raises:
        UsageError: a checkpoint of another model or dataset is named.
        CheckpointError: there is none.
    """
    if options.resume != NEWEST:
        return open_checkpoint(options.resume, options)
    from recbole.config import Config

    from recbole_m3rec.baselines import requirements

    values = read_names(options)
    files = options.config_files or None
    config = Config(values["model"], values["dataset"], config_file_list=files)
    requirements.set_chosen(config)  # a run's checkpoint has what was chosen
    return resuming.newest_run(config)


def export(options: argparse.Namespace) -> None:
    """Write the bundle of a checkpoint."""
    from recbole_m3rec.quick_start.export import export_checkpoint

    run = open_checkpoint(options.export, options)
    digest = export_checkpoint(
        run, options.output, precision=options.precision, with_histories=options.with_histories
    )
    print(f"bundle: {options.output} ({digest[:12]})")
    print(f"serve it: {command(f'serve {options.output}')}")
    print_places(run.path)


def show(options: argparse.Namespace) -> int:
    """Export a checkpoint into a temporary folder, and serve its page until interrupted."""
    import tempfile

    from recbole_m3rec.quick_start.export import export_checkpoint
    from recbole_m3rec.serving.serve import check_installed, listen
    from recbole_m3rec.serving.serve import main as serve

    check_installed()
    listen("127.0.0.1", options.page_port, "another --page_port; 0 takes a free one").close()
    run = open_checkpoint(options.show, options)
    with tempfile.TemporaryDirectory(prefix="m3rec-") as folder:
        bundle = Path(folder) / "bundle"
        export_checkpoint(run, bundle, with_histories=True)
        images = ["--images", str(options.images)] if options.images else []
        store = str(Path(folder) / "events.sqlite")
        arguments = [str(bundle), "--port", str(options.page_port), "--store", store]
        return serve([*arguments, *images])


def open_checkpoint(path: Path, options: argparse.Namespace) -> saved_runs.Checkpoint:
    """Read a checkpoint that may be named together with its own model and dataset only.

    Raises:
        UsageError: another model or dataset is named.
    """
    run = saved_runs.read_checkpoint(path)
    for key, saved, asked in (
        ("model", run.model, options.model),
        ("dataset", run.dataset, options.dataset),
    ):
        if asked is not None and asked != saved:
            raise UsageError(f"{path} is of {key} {saved}, not {asked}. Leave out --{key}.")
    return run


def print_metrics(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table with a row per metric and a column per result, missing values as a dash."""
    rows = [["metric", *results]]
    for metric in next(iter(sorted(results.values(), key=len, reverse=True)), {}):
        values = (result.get(metric) for result in results.values())
        rows.append([metric, *("-" if value is None else f"{value:.4f}" for value in values)])
    print(f"\n{text_table(rows)}\n")


def repeated(config_files: Sequence[str]) -> Iterator[str]:
    """Yield what of the command line other models on the same data need: files, data, metrics."""
    from recbole.utils.argument_list import dataset_arguments, evaluation_arguments

    keys = {*dataset_arguments, *evaluation_arguments, *DATASET_KEYS, *METRIC_KEYS}
    keys |= {"data_path", "feature_path"}
    files = [Path(file) for file in config_files if keys & read_yaml(Path(file)).keys()]
    if files:
        presets = properties_folder() / "presets"
        named = [file.stem if file.parent == presets else str(file) for file in files]
        yield from ("--config_files", *named)
    yield from (each for each in sys.argv[1:] if each[2:].partition("=")[0] in keys)


def print_next(
    checkpoint: Path | None, model: str, dataset: str, settings: Sequence[str] | None
) -> None:
    """Print the commands that a user is likely to want next, a comparison under known settings."""
    lines = []
    if checkpoint is not None:
        lines.append(f"recommend {checkpoint} --output top.csv")
        lines.append(f"evaluate {checkpoint}")
        if model in ("M3Rec", "Mamba4Rec") and find_spec("uvicorn"):  # of the extra serving
            lines.append(f"show {checkpoint}")
    if settings is not None:
        others = ",".join(dict.fromkeys([model, "M3Rec", "SASRec", "GRU4Rec"]))
        lines.append(shlex.join(["compare", "--models", others, "--datasets", dataset, *settings]))
    print("\nnext")
    for line in lines:
        print(f"  {command(line)}")


def print_places(checkpoint: Path | None, log: Path | None = None) -> None:
    """Print where the checkpoint is and where RecBole logged to, a worker's log if one is given."""
    print(f"checkpoint: {checkpoint or 'none was saved'}")
    print(f"log: {log or saved_runs.log_file() or 'none'}")
