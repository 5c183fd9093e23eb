"""Fetch the images of items, and turn images into image features, <dataset>.image.parquet.

    recbole-m3rec prepare images --dataset clothing
    recbole-m3rec encode images --dataset clothing --missing mean
    recbole-m3rec encode images --dataset shop --images photos --encoder my_module:encode

The first line fetches, from the addresses in a column of the .item file; the others read files
<item id>.jpg (the id percent-encoded), or a table of item_id and path. The second line is the
published setting. A run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.cli.commands import (
    add_cluster,
    documented_parser,
    folder_name,
    modality_name,
    run_script,
)
from recbole_m3rec.cluster.connect import connected
from recbole_m3rec.datasets.images.download import IMAGE_LIMITS, fetch_images
from recbole_m3rec.datasets.images.hosts import Politeness
from recbole_m3rec.datasets.images.report import REPORT_NAME, STORED, count_reasons, read_report
from recbole_m3rec.features.encoders.batches import EncoderError
from recbole_m3rec.features.encoders.image_models import IMAGE_ENCODER_NAMES, image_encoder
from recbole_m3rec.features.encoders.pretrained import PRECISIONS
from recbole_m3rec.features.feature_file import read_metadata, write_features
from recbole_m3rec.features.feature_table import FeatureTable
from recbole_m3rec.features.from_images import (
    MISSING,
    NO_IMAGE,
    images_digest,
    make_image_features,
)
from recbole_m3rec.features.from_text import work_folder
from recbole_m3rec.features.image_sources import (
    ImageSourceError,
    images_by_mapping,
    images_in_folder,
    images_of,
    near_misses,
)
from recbole_m3rec.support.argument_types import above_zero, positive
from recbole_m3rec.support.command_names import command
from recbole_m3rec.support.safe_write import write_whole

_NOTED = {
    "items_sha256": "items",
    "image_contents_sha256": "pictures",
    "encoder_parts": "code or weights of the encoder",
}
PUBLISHED_ENCODER = "transformers:openai/clip-vit-base-patch32"


def encode_images(arguments: Sequence[str]) -> None:
    options = parser().parse_args(arguments)
    mapping = getattr(options, "mapping", None)
    if mapping and options.images:
        raise ImageSourceError("--mapping and --images exclude each other: give one")
    if options.item_file and not options.item_file.is_file():
        raise ImageSourceError(f"--item-file {options.item_file}: there is no such file")
    options.folder = options.data_path / options.dataset
    options.item_file = options.item_file or options.folder / f"{options.dataset}.item"
    options.images = options.images or options.folder / "images"
    download(options) if options.step == "download" else encode(options)


def download(options: argparse.Namespace) -> None:
    file = ItemFile(options.item_file, options.item_id_field)
    tokens, [addresses] = file.read([options.url_field])
    urls = {token: address.strip() for token, address in zip(tokens, addresses, strict=True)}
    if options.dry_run:
        n_urls = len(set(filter(None, urls.values())))
        there = read_report(options.images).values()
        n_there = sum(entry.status == STORED for entry in there)
        print(f"{options.item_file}: {len(urls):,} items, {n_urls:,} different addresses")
        print(f"{options.images}: {n_there:,} images are there")
        return
    with connected(options.cluster) as cluster:
        entries = fetch_images(
            urls,
            options.images,
            limits=replace(
                IMAGE_LIMITS,
                max_bytes=round(options.max_mb * 1e6),
                stall=options.timeout,
                try_time=10 * options.timeout,
                tries=options.tries,
            ),
            politeness=Politeness(options.at_once, options.per_host),
            placeholder_from=options.placeholder_from,
            retry_refused=options.retry_refused,
            allow_private=options.allow_private,
            cluster=cluster,
        )
    n_stored = sum(entry.status == STORED for entry in entries)
    print(f"{options.images}: {n_stored:,} of {len(entries):,} items have an image")
    for reason, count in count_reasons(entries).items():
        print(f"  {count:,}: {reason}")
    if n_stored < len(entries):
        print(f"what became of each item: {options.images / REPORT_NAME}")


def encode(options: argparse.Namespace) -> None:
    output = options.output or options.folder / f"{options.dataset}.{options.modality}.parquet"
    if output.suffix != ".parquet":
        raise ImageSourceError(f"--output {output}: a feature file is written as .parquet")
    images = (
        images_by_mapping(options.mapping) if options.mapping else images_in_folder(options.images)
    )
    source, found = str(options.mapping or options.images), images
    items: list[str] = []
    if options.item_file.is_file():
        items, _ = ItemFile(options.item_file, options.item_id_field).read([])
        images = images_of(images, items, source)
    elif options.missing == "mean":
        raise ImageSourceError(f"--missing mean needs the items, {options.item_file} is not there")
    is_there = output.is_file()
    then = read_metadata(output) if is_there else {}
    now: dict[str, Any] = {
        "encoder": options.encoder,
        "precision": options.precision,
        "batch_size": options.batch_size,
        "missing": options.missing,
        "items_sha256": hashlib.sha256("\n".join(sorted(items)).encode()).hexdigest(),
    }
    if is_there or not options.dry_run:
        now["image_contents_sha256"] = images_digest(images)
    encoder = None
    replaces = options.overwrite or not is_there
    if not differences(then, now) or (replaces and not options.dry_run):
        sys.path.insert(0, "")  # modules of the working directory, for --encoder module:callable
        encoder = image_encoder(options.encoder, device=options.device, precision=options.precision)
        now["encoder_parts"] = encoder.parts
    other = differences(then, now)
    of_total = f" of {len(items):,} items" if items else ""
    summary = f"{source}: {len(found):,} images, {len(images):,} to encode{of_total}"
    if options.dry_run:
        print(summary)
        print(f"encoder: {options.encoder}, missing images: {options.missing}")
        state = f", which is there, other {', '.join(other)}" if other else ", up to date"
        print(f"output: {output}{state if is_there else ''}")
        return
    if is_there and not other and not options.overwrite:
        print(f"{output} is up to date")
        return
    if not replaces or encoder is None:
        raise ImageSourceError(
            f"{output} is there already, made with other {', '.join(other)}. Add --overwrite to"
            " replace it, or name another --output"
        )
    print(summary)
    work = work_folder(output)
    try:
        with connected(options.cluster) as cluster:
            table, reasons = make_image_features(
                options.modality,
                encoder,
                images,
                items=items,
                missing=options.missing,
                batch_size=options.batch_size,
                work=work,
                digest=now["image_contents_sha256"],
                cluster=cluster,
            )
    except (EncoderError, ImageSourceError):
        if not options.cluster:  # where a worker may be at fault, and the batches good
            shutil.rmtree(work, ignore_errors=True)
        raise
    unused = {item: path for item, path in found.items() if item not in images}
    bare = [item for item, reason in reasons.items() if reason == NO_IMAGE]
    reasons |= near_misses(bare, unused, None if options.mapping else options.images)
    report = output.with_name(f"{output.name.removesuffix('.parquet')}.missing.csv")
    write_report(report, reasons, {item: str(path) for item, path in images.items()})
    write_features(output, FeatureTable(table.item_ids, table.values, now))
    shutil.rmtree(work, ignore_errors=True)
    print(f"{output}: {len(table.item_ids):,} rows, {table.values.shape[1]}-d, {options.encoder}")
    if reasons:
        instead = "have the mean" if options.missing == "mean" else "are missing"
        print(f"{len(reasons):,} items {instead}, each with its reason in {report}")
        parts = [reason.partition(" (") for reason in reasons.values()]
        examples = {kind: detail.removesuffix(")") for kind, _, detail in reversed(parts)}
        for kind, count in Counter(kind for kind, _, _ in parts).most_common():
            print(f"  {count:,}: {kind}{f' ({examples[kind]})' if examples[kind] else ''}")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say, in a person's words, in what a file that is there was made otherwise."""
    return [
        _NOTED.get(key, key) + ("" if key in then else " (not noted then)")
        for key in now
        if now[key] != then.get(key)
    ]


def write_report(path: Path, reasons: dict[str, str], files: dict[str, str]) -> None:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["item_id", "file", "reason"])
    table.writerows((item, files.get(item, ""), reason) for item, reason in reasons.items())
    write_whole(path, text.getvalue().encode())


def parser() -> argparse.ArgumentParser:
    result = documented_parser(__doc__, "encode images")
    both = argparse.ArgumentParser(add_help=False)
    add = both.add_argument
    add("--dataset", type=folder_name, required=True, help="its name, as for training")
    add("--data-path", type=Path, default=Path("dataset"), help="folder of the datasets' folders")
    add("--item-file", type=Path, help="default <data path>/<dataset>/<dataset>.item")
    add("--item-id-field", default="item_id", help="column of item ids (default item_id)")
    add("--images", type=Path, help="folder of the images (default <data path>/<dataset>/images)")
    add("--dry-run", action="store_true", help="show what would be done, and do nothing")
    add_cluster(both)

    def step(words: str, does: str) -> dict[str, Any]:
        return {"prog": command(words), "parents": [both], "help": does, "description": does}

    steps = result.add_subparsers(dest="step", required=True)
    fetches = "Fetch images from the addresses in a column of the .item file."
    encodes = "Turn images into image features, <dataset>.image.parquet."
    add_download_options(steps.add_parser("download", **step("prepare images", fetches)))
    add_encode_options(steps.add_parser("encode", **step("encode images", encodes)))
    return result


def add_download_options(step: argparse.ArgumentParser) -> None:
    add = step.add_argument
    add("--url-field", default="image_url", help="column of addresses (default image_url)")
    add("--per-host", type=positive, default=4, help="fetches at once per host (default 4)")
    add("--at-once", type=positive, default=16, help="fetches at once in all (default 16)")
    add("--timeout", type=above_zero, default=30.0, help="seconds without data (default 30)")
    add("--tries", type=positive, default=4, help="per address (default 4)")
    add("--max-mb", type=above_zero, default=20.0, help="larger files are refused (default 20)")
    add(
        "--placeholder-from",
        type=int,
        default=20,
        help="a picture that so many addresses give is not kept (default 20; 0 keeps all)",
    )
    add("--retry-refused", action="store_true", help="try again also what was refused before")
    add("--allow-private", action="store_true", help="fetch from this machine or network, too")


def add_encode_options(step: argparse.ArgumentParser) -> None:
    add = step.add_argument
    add(
        "--encoder",
        default=PUBLISHED_ENCODER,
        help=f"{', '.join(IMAGE_ENCODER_NAMES)} (default {PUBLISHED_ENCODER})",
    )
    add("--mapping", type=Path, help="table of item_id and path, instead of a folder")
    add("--modality", type=modality_name, default="image", help="its name (default image)")
    add("--output", type=Path, help="default <data path>/<dataset>/<dataset>.<modality>.parquet")
    add(
        "--missing",
        choices=MISSING,
        default="leave",
        help="an item without a usable image gets no row (default), or the mean of the others",
    )
    add("--batch-size", type=positive, default=32, help="images at once (default 32)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="default auto: float16 on CUDA, else float32",
    )
    add("--overwrite", action="store_true", help="replace a file that is there")


main = partial(run_script, encode_images)
