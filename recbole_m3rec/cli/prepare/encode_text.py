"""Turn columns of a dataset's .item file into text features, <dataset>.text.parquet.

    recbole-m3rec encode text --dataset clothing
    recbole-m3rec encode text --dataset clothing --encoder sentence-transformers:all-MiniLM-L6-v2
    recbole-m3rec encode text --dataset clothing --encoder transformers:bert-base-uncased \\
        --pooling cls --max-tokens 512 --fields title brand categories description

The last one is the published setting. A run that was killed goes on where it was.
"""  # noqa: E501

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
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
from recbole_m3rec.config.literals import read_value
from recbole_m3rec.features.encoders import ENCODER_NAMES, RANDOM_CODES, encode_texts
from recbole_m3rec.features.encoders.batches import EncoderError
from recbole_m3rec.features.encoders.text_fields import join_fields
from recbole_m3rec.features.feature_file import read_metadata, write_features
from recbole_m3rec.features.from_text import make_text_features, work_folder
from recbole_m3rec.features.recipe_config import Recipe, RecipeError, parse_recipe
from recbole_m3rec.support.hashing import sha256_of

PUBLISHED_FIELDS = ("title", "brand", "categories", "description")


def encode_text(arguments: Sequence[str]) -> None:
    options = parsed(arguments)
    folder = options.data_path / options.dataset
    path = options.item_file or folder / f"{options.dataset}.item"
    item_file = ItemFile(path, options.item_id_field, options.field_separator)
    output = options.output or folder / f"{options.dataset}.{options.modality}.parquet"
    if output.suffix != ".parquet":
        raise RecipeError(f"--output {output}: a feature file is written as .parquet")
    recipe = recipe_of(options, item_file)
    state = state_of(output, recipe, path)
    if state == "up to date" and not (options.dry_run or options.overwrite):
        state = state_of_weights(output, recipe, options.device)
    if options.dry_run:
        show_plan(recipe, item_file, output, state)
        return
    if state == "up to date" and not options.overwrite:
        print(f"{output} is up to date: {recipe}")
        return
    if state and not options.overwrite:
        raise RecipeError(
            f"{output} is there already, {state}. Add --overwrite to replace it, or name another"
            " --output"
        )
    work = work_folder(output)
    with connected(options.cluster) as cluster:
        table, n_items = make_text_features(
            options.modality,
            recipe,
            item_file,
            work=work,
            device=options.device,
            cluster=cluster,
            key="--encoder",
        )
    write_features(output, table)
    shutil.rmtree(work, ignore_errors=True)
    n_made, dim = table.values.shape
    print(f"{output}: {n_made:,} of {n_items:,} items, {dim}-d, {recipe}")
    if n_made < n_items:
        print(f"{n_items - n_made:,} items are missing: nothing is known of their text")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = documented_parser(__doc__, "encode text")
    add = parser.add_argument
    add("--dataset", type=folder_name, required=True, help="its name, as for training")
    add("--data-path", type=Path, default=Path("dataset"), help="folder of the datasets' folders")
    add("--item-file", type=Path, help="default <data path>/<dataset>/<dataset>.item")
    add("--output", type=Path, help="default <data path>/<dataset>/<dataset>.<modality>.parquet")
    add("--modality", type=modality_name, default="text", help="its name (default text)")
    add("--encoder", default="tfidf-svd", help=", ".join(ENCODER_NAMES[:-1]))
    add(
        "--fields",
        nargs="+",
        help=f"columns in reading order (default {' '.join(PUBLISHED_FIELDS)}, those there are)",
    )
    add("--keep-html", action="store_true", help="leave tags and entities such as &amp; in texts")
    add("--pooling", choices=("cls", "mean"), help="of transformers: first token or mean of all")
    add("--max-tokens", type=int, help="longer texts are cut")
    add("--batch-size", type=int, help="texts at once")
    add("--precision", help="auto (float16 on CUDA, else float32), float32, float16, bfloat16")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another option of the encoder, e.g. dim=256 of tfidf-svd; may be repeated",
    )
    add("--item-id-field", default="item_id", help="column of item ids (default item_id)")
    add("--field-separator", default="\t", help="of the .item file (default tab)")
    add("--overwrite", action="store_true", help="replace a file that is there")
    add("--dry-run", action="store_true", help="show what would be done, and do nothing")
    add_cluster(parser)
    return parser.parse_args(arguments)


def recipe_of(options: argparse.Namespace, item_file: ItemFile) -> Recipe:
    if options.encoder == RANDOM_CODES:
        raise RecipeError(
            f"--encoder {RANDOM_CODES}: these encode no text and are never stored. Declare them in"
            f" the configuration, as features: {{{options.modality}: {{encoder: {RANDOM_CODES}}}}}"
        )
    recipe: dict[str, Any] = {"encoder": options.encoder}
    for text in options.option:
        name, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"--option {text}: expected NAME=VALUE")
        recipe[name] = read_value(value)
    for name in ("pooling", "max_tokens", "batch_size", "precision"):
        if getattr(options, name) is not None:
            recipe[name] = getattr(options, name)
    fields = [part for field in options.fields or () for part in field.split(",") if part]
    if not fields:
        there = item_file.types()
        fields = [field for field in PUBLISHED_FIELDS if field in there]
        if not fields:
            raise RecipeError(f"{item_file.path} has the columns {', '.join(there)}: name --fields")
    if options.keep_html:
        recipe["keep_html"] = True
    return parse_recipe(options.modality, recipe | {"fields": fields}, key="--encoder")


def state_of(output: Path, recipe: Recipe, item_file: Path) -> str:
    """Say how a feature file that is there was made, "up to date" if as it would be now."""
    if not output.is_file():
        return ""
    metadata = read_metadata(output)
    now = {
        "encoder": recipe.encoder,
        "fields": list(recipe.fields),
        "keep_html": recipe.keep_html,
        **recipe.options,
    }
    then = metadata | metadata.get("options", {})
    other = [f"{key} {then.get(key)}" for key in now if now[key] != then.get(key)]
    if other:
        return f"made otherwise ({', '.join(other)})"
    if metadata.get("item_file_sha256") != sha256_of(item_file):
        return f"made before {item_file} was changed"
    return "up to date"


def state_of_weights(output: Path, recipe: Recipe, device: str) -> str:
    """Say the same of the model, where it can be loaded and its weights were noted."""
    metadata, weights = read_metadata(output), dict[str, str]()
    if "weights_sha256" in metadata:
        try:
            encode_texts(recipe.encoder, [], recipe.options, device=device, note=weights.update)
        except EncoderError as error:
            print(f"Whether its weights are the same is not known: {error}")
    same = weights.items() <= metadata.items()
    return "up to date" if same else f"made with other weights of {recipe.encoder}"


def show_plan(recipe: Recipe, item_file: ItemFile, output: Path, state: str) -> None:
    tokens, columns = item_file.read(recipe.fields)
    texts = sorted(filter(None, join_fields(columns, keep_html=recipe.keep_html)), key=len)
    print(f"{item_file.path}: {len(tokens):,} items, {len(texts):,} with text")
    for field, column in zip(recipe.fields, columns, strict=True):
        filled = [value for value in join_fields([column]) if value]
        example = f', for example "{filled[0][:60]}"' if filled else ""
        print(f"  {field}: {len(filled):,} items{example}")
    if texts:
        lengths = [len(texts[round(share * (len(texts) - 1))]) for share in (0, 0.5, 0.95, 1)]
        print("characters (least, half, 95 %, most): " + ", ".join(f"{n:,}" for n in lengths))
    settings = ", ".join(f"{name} {value}" for name, value in recipe.options.items())
    print(f"encoder: {recipe.encoder} ({settings})")
    if work_folder(output).is_dir():
        print("an earlier run left finished batches, which are used if nothing has changed")
    print(f"output: {output}{f', which is there, {state}' if state else ''}")


main = partial(run_script, encode_text)
