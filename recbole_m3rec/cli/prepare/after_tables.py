"""What is said of the tables that became a dataset: counts, and how to go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_m3rec.cli.commands import short
from recbole_m3rec.config.yaml_files import read_yaml
from recbole_m3rec.features.recipes import files_by_modality
from recbole_m3rec.support.command_names import command

EVERYTHING = '--user_inter_num_interval="[0,inf)" --item_inter_num_interval="[0,inf)"'


def show(result: Mapping[str, Any]) -> None:
    """Print the counts."""
    shown = ("users", "items", "interactions", "repeated_interactions", "of_these_at_the_same_time",
             "dropped_as_duplicates", "dropped_by_k_core", "items_in_the_table",
             "items_not_in_the_table", "items_of_the_table_never_bought", "image_addresses",
             "images", "items_with_image", "items_without_image", "images_of_other_items",
             "images_missing_or_empty", "image_names_without_file")  # fmt: skip
    for key in shown:
        if result.get(key) or key in ("users", "items", "interactions"):
            print(f"{key.replace('_', ' ')}: {result[key]:,}")
    user = short(result["user_of_the_longest_history"])
    print(f"longest history: {result['longest_history']:,}, of user {user!r}")
    for kind in ("log", "items"):
        for problem, count in result[f"problems_of_the_{kind}"].items():
            print(f"problem of the {kind}: {problem.replace('_', ' ')}: {count:,}")
    found, missing = result.get("items_in_the_table", 0), result.get("items_not_in_the_table", 0)
    if found < missing:
        print(
            f"warning: the table of items has only {found:,} of the {result['items']:,} that were"
            " bought: are the ids in both written alike?"
        )
    left = result["five_core"]
    print(
        f"after five-core, which training applies: {left['users']:,} users,"
        f" {left['items']:,} items, {left['interactions']:,} interactions"
    )


def say_next(
    result: Mapping[str, Any], output: Path, name: str, images: Path | None, recipe: Path
) -> None:
    """Print what was written, and the commands up to a training.

    Args:
        result: of ``prepare_shop``.
        output: folder of the datasets' folders.
        name: of the dataset.
        images: folder of photos.
        recipe: file of the dataset's settings.
    """
    for path in result["written"]:
        print(f"wrote {path}")
    if str(recipe) not in result["written"] and recipe.exists():
        print(f"{recipe} was there and is unchanged")
    data_path = other_folder(output)
    if result.get("items_with_image"):
        mapping = output / name / f"{name}.images.csv"
        is_mapped = str(mapping) in result["written"]
        source = f"--mapping {mapping}" if is_mapped else f"--images {images}"
        print("next, features of the images, by an encoder of your choice:")
        print(f"  {command('encode images')} --dataset {name}{data_path} {source}")
    elif result.get("image_addresses"):
        print("next, fetch the images:")
        print(f"  {command('prepare images')} --dataset {name}{data_path}")
    say_training(output, name, needed_settings(result, output / name, name))


def other_folder(output: Path) -> str:
    """Return what a script of the prepared datasets needs where they are elsewhere."""
    return f" --data-path {output}" if output != Path("dataset") else ""


def say_training(output: Path, name: str, needed: str = "") -> None:
    """Print the command of a training, with the settings that it needs."""
    if output != Path("dataset"):
        needed = f" --data_path={output} --feature_path={output / name}{needed}"
    print(f"then:\n  {command('train')} --model=M3Rec --dataset={name}{needed}")


def dataset_settings(name: str) -> dict[str, Any]:
    """Return what the YAML files of M3Rec and of a dataset set."""
    from recbole_m3rec.config.layers import layer_files, properties_folder

    values: dict[str, Any] = {}
    for properties in (properties_folder(), Path("properties")):
        for file in layer_files(properties, "M3Rec", name):
            values.update(read_yaml(file))
    return values


def needed_settings(result: Mapping[str, Any], folder: Path, name: str) -> str:
    """Return the settings without which a training would refuse the dataset, and say why."""
    from recbole_m3rec.config.values import shorter_lists

    values = dataset_settings(name)
    needed, n_items = "", result["five_core"]["items"]
    if not n_items:
        needed, n_items = f" {EVERYTHING}", result["items"]
        print("five-core leaves nothing of this dataset, hence the filters here:")
    has_images = result.get("items_with_image") or result.get("image_addresses")
    if not (has_images or values.get("features") or files_by_modality(name, folder)):
        needed += ' --modalities="[]"'
        print("there are no texts and images of the items, hence a training on ids alone:")
    shorter = shorter_lists(values["topk"], values["valid_metric"], n_items)
    if shorter:
        needed += f" {shorter}"
        print(f"{n_items:,} items are less than lists usually hold, hence shorter ones:")
    return needed
