"""Image features through a small callable, by function and by encode_images."""

import csv
import os
import sys

import numpy as np
import pytest

from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.prepare import encode_images
from recbole_m3rec.features.encoders.batches import EncoderError
from recbole_m3rec.features.encoders.image_models import ImageEncoder
from recbole_m3rec.features.feature_file import read_features
from recbole_m3rec.features.from_images import images_digest, make_image_features
from recbole_m3rec.features.image_sources import ImageSourceError, images_in_folder

Image = pytest.importorskip("PIL.Image")

SHADES = {"a": 10, "b": 60, "c": 110, "d/e": 160, "f": 210}

ENCODER = """
import numpy as np

def encode(images):
    return np.array([[np.asarray(image).mean(), image.width] for image in images])

nothing = 5

def flat(images):
    return np.ones(len(images))

def ragged(images):
    return np.ones((len(images), len({image.size for image in images})))
"""


class Shades:
    """Mean shade and width; counts the images it sees, and fails after ``stop_after`` batches."""

    def __init__(self, stop_after=None, nan_at=None):
        self.batches = []
        self.stop_after, self.nan_at = stop_after, nan_at

    def encode(self, images):
        if images[0].size == (64, 64):  # what tells the width
            return np.zeros((1, 2))
        if len(self.batches) == self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(images))
        shades = [round(float(np.asarray(image).mean())) for image in images]
        return np.array(
            [
                [np.nan if s == self.nan_at else s, i.width]
                for s, i in zip(shades, images, strict=True)
            ]
        )

    @property
    def encoder(self):
        return ImageEncoder(lambda image: image, self.encode, {"encoder": "shades"})


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for item, shade in SHADES.items():
        name = item.replace("/", "%2F")
        Image.new("RGB", (8 + len(item), 8), (shade,) * 3).save(folder / f"{name}.png")
    return folder


def made(photos, shades, **options):
    settings = {"batch_size": 2, "show_progress": False} | options
    return make_image_features("image", shades.encoder, images_in_folder(photos), **settings)


def test_each_item_gets_the_row_of_its_own_image(photos):
    table, reasons = made(photos, Shades())
    assert table.item_ids.tolist() == list(SHADES)
    assert table.values.dtype == np.float32
    assert table.values.tolist() == [[shade, 8 + len(item)] for item, shade in SHADES.items()]
    assert reasons == {}


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_bad_images_leave_their_items_missing_and_the_others_in_place(photos, batch_size):
    (photos / "a.png").write_bytes(b"")
    (photos / "c.png").write_bytes(b"<html>")
    (photos / "f.png").write_bytes((photos / "b.png").read_bytes()[:40])
    table, reasons = made(photos, Shades(), batch_size=batch_size, items=["a", "b", "x", "d/e"])
    assert table.item_ids.tolist() == ["b", "d/e"]
    assert table.values[:, 0].tolist() == [60, 160]
    assert list(reasons) == ["a", "c", "f", "x"]
    assert reasons["a"] == "empty file"
    assert reasons["c"] == "an HTML or XML page, not an image"
    assert reasons["f"].startswith(("damaged or cut off", "not an image"))
    assert reasons["x"] == "no image"


def test_missing_items_may_get_the_mean_of_the_others(photos):
    (photos / "a.png").write_bytes(b"")
    table, reasons = made(photos, Shades(), missing="mean", items=["zz", *SHADES])
    rows = dict(zip(table.item_ids, table.values[:, 0], strict=True))
    assert list(rows) == ["a", "b", "c", "d/e", "f", "zz"]
    assert rows["a"] == rows["zz"] == np.float32((60 + 110 + 160 + 210) / 4)
    assert rows["b"] == 60
    assert list(reasons) == ["a", "zz"]


def test_a_mapping_to_a_file_that_is_not_there_leaves_the_item_missing(photos):
    images = {"a": photos / "a.png", "b": photos / "none.png"}
    table, reasons = make_image_features("image", Shades().encoder, images, show_progress=False)
    assert table.item_ids.tolist() == ["a"]
    assert reasons == {"b": "there is no such file"}


def test_numbers_that_are_not_finite_leave_the_item_missing(photos):
    table, reasons = made(photos, Shades(nan_at=110))
    assert "c" not in table.item_ids
    assert reasons == {"c": "the encoder gave numbers that are not finite"}


def test_no_usable_image_at_all_is_an_error(photos):
    for path in photos.iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        ImageSourceError, match="none of the 5 images .*item 'a': .*a.png: empty file"
    ):
        made(photos, Shades())


@pytest.mark.parametrize("shape", [(1,), (2, 3)])
def test_an_encoder_of_another_shape_is_refused_at_once(photos, shape):
    encoder = ImageEncoder(lambda image: image, lambda images: np.ones(shape), {})
    with pytest.raises(EncoderError, match=r"for 1 images, expected \[1, dimensions\]"):
        make_image_features("image", encoder, images_in_folder(photos), show_progress=False)


@pytest.mark.parametrize("probe", [1, 5])
def test_rows_of_another_width_than_for_the_white_image_are_refused(photos, probe):
    widths = [probe, 2]
    encoder = ImageEncoder(
        lambda image: image, lambda images: np.ones((len(images), widths.pop(0))), {}
    )
    with pytest.raises(EncoderError, match=f"rows of 2 numbers for 5 images, but of {probe} for"):
        make_image_features("image", encoder, images_in_folder(photos), show_progress=False)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(photos, tmp_path):
    (photos / "b.png").write_bytes(b"")
    whole, _ = made(photos, Shades())
    with pytest.raises(KeyboardInterrupt):
        made(photos, Shades(stop_after=1), work=tmp_path / "work")
    rest = Shades()
    table, reasons = made(photos, rest, work=tmp_path / "work")
    assert rest.batches == [2, 1]
    assert table.values.tobytes() == whole.values.tobytes()
    assert reasons == {"b": "empty file"}


def test_a_changed_image_is_encoded_again(photos, tmp_path):
    made(photos, Shades(), work=tmp_path / "work")
    before = images_digest(images_in_folder(photos))
    Image.new("RGB", (30, 30), (1, 1, 1)).save(photos / "a.png")
    assert made(photos, Shades(), work=tmp_path / "work")[0].values[0].tolist() == [1, 30]
    assert images_digest(images_in_folder(photos)) != before


def test_an_image_that_was_exchanged_for_one_of_the_same_size_is_encoded_again(photos, tmp_path):
    for path in photos.iterdir():
        path.unlink()
    for shade, written in ((10, 1_000_000_000), (200, 1_000_000_001)):
        Image.new("RGB", (9, 9), (shade,) * 3).save(photos / "a.bmp")
        os.utime(photos / "a.bmp", (written, written))
        table, _ = made(photos, Shades(), work=tmp_path / "work")
        assert table.values[0, 0] == shade


# The script


def run(photos, *arguments):
    (photos.parent / "shades_encoder.py").write_text(ENCODER)
    step = ["encode", "--dataset", "shop"]
    step += [] if "--mapping" in arguments else ["--images", str(photos)]
    return run_script(
        encode_images.encode_images, [*step, "--encoder", "shades_encoder:encode", *arguments]
    )


def write_items(folder, *items):
    path = folder / "dataset" / "shop" / "shop.item"
    path.parent.mkdir(parents=True)
    path.write_text("item_id:token\n" + "".join(f"{item}\n" for item in items))


def test_the_script_writes_features_and_a_report(photos, tmp_path, capsys):
    write_items(tmp_path, "b", "f", "q")
    (photos / "f.png").write_bytes(b"")
    assert run(photos) == 0
    said = capsys.readouterr().out
    assert "5 images, 2 to encode of 3 items" in said
    assert "2 items are missing" in said
    folder = tmp_path / "dataset" / "shop"
    table = read_features(folder / "shop.image.parquet")
    assert table.item_ids.tolist() == ["b"]
    assert table.metadata["encoder"] == "shades_encoder:encode"
    with open(folder / "shop.image.missing.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["item_id", "file", "reason"],
        ["f", str(photos / "f.png"), "empty file"],
        ["q", "", "no image"],
    ]
    assert {path.name for path in folder.iterdir()} == {
        "shop.item",
        "shop.image.parquet",
        "shop.image.missing.csv",
    }
    assert run(photos) == 0
    assert "is up to date" in capsys.readouterr().out
    assert run(photos, "--missing", "mean") == 2
    assert "made with other missing. Add --overwrite" in capsys.readouterr().err
    assert run(photos, "--missing", "mean", "--overwrite") == 0
    assert len(read_features(folder / "shop.image.parquet").item_ids) == 3


def test_a_file_is_up_to_date_only_for_the_same_pictures_items_and_encoder(
    photos, tmp_path, capsys, monkeypatch
):
    write_items(tmp_path, *SHADES)
    mapping = tmp_path / "pictures.csv"
    mapping.write_text("item_id,path\na,photos/1.bmp\nb,photos/2.bmp\nc,none.bmp\n")
    for name, shade in (("1", 10), ("2", 200)):
        Image.new("RGB", (9, 9), (shade,) * 3).save(photos / f"{name}.bmp")
        os.utime(photos / f"{name}.bmp", (10**9, 10**9))
    mine = ["--mapping", str(mapping), "--missing", "mean"]
    code, items = tmp_path / "my_encoder.py", tmp_path / "dataset" / "shop" / "shop.item"

    def encode(*more):
        monkeypatch.delitem(sys.modules, "my_encoder", raising=False)
        step = ["encode", "--dataset", "shop", "--encoder", "my_encoder:encode", *mine, *more]
        status = run_script(encode_images.encode_images, step)
        told = capsys.readouterr()
        return status, told.out + told.err

    code.write_text(ENCODER)
    assert encode()[0] == 0
    for change, what in (
        (lambda: items.write_text(items.read_text() + "zz\n"), "items"),
        (lambda: code.write_text(ENCODER + "\n# of another day\n"), "code or weights"),
        (lambda: mapping.write_text(mapping.read_text().translate({49: 50, 50: 49})), "pictures"),
        (lambda: (photos / "1.bmp").write_bytes((photos / "2.bmp").read_bytes()), "pictures"),
    ):
        assert "is up to date" in encode()[1]
        assert "up to date" in encode("--dry-run")[1]
        change()
        status, said = encode()
        assert (status, f"made with other {what}" in said) == (2, True), said
        assert f"other {what}" in encode("--dry-run")[1]
        assert encode("--overwrite")[0] == 0


def test_a_dry_run_writes_nothing(photos, tmp_path, capsys):
    assert run(photos, "--dry-run") == 0
    assert "5 images, 5 to encode" in capsys.readouterr().out
    assert not (tmp_path / "dataset").exists()


def test_files_that_may_be_meant_for_an_item_are_named(photos, tmp_path, capsys):
    write_items(tmp_path, "a", "2", "v1.5", "7", "08", "q")
    for name in ("2.heic", "v1.5", "007.png", "q.d"):
        (photos / name).mkdir() if name == "q.d" else (photos / name).touch()
    assert run(photos) == 0
    said = capsys.readouterr().out
    assert "  2: no image, but a file of an unknown kind (2.heic)\n" in said
    assert "  1: no image, but one whose id has other zeros in front (007.png)\n" in said
    assert "  2: no image\n" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--encoder", "no_such_module_here:encode"],
            "is no module that can be imported from here",
        ),
        (["--encoder", "shades_encoder:nothing"], "has no callable 'nothing'"),
        (["--encoder", "shades_encoder:flat"], "numbers of shape [1] for 1 images"),
        (
            ["--encoder", "shades_encoder:ragged", "--batch-size", "2"],
            "the encoder gave rows of 2 numbers",
        ),
        (["--encoder", "clip"], "there is no image encoder 'clip'"),
        (["--missing", "mean"], "--missing mean needs the items"),
        (["--images", "nowhere"], "nowhere: there is no such folder of images"),
        (["--mapping", "nothing.csv"], "nothing.csv: there is no such mapping file"),
        (["--mapping", "a.csv", "--images", "photos"], "exclude each other"),
        (["--item-file", "none.item"], "--item-file none.item: there is no such file"),
        (["--output", "a.npz"], "a feature file is written as .parquet"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(photos, capsys, arguments, expected):
    assert run(photos, *arguments) == 2
    last = capsys.readouterr().err.strip().split("\n")[-1]
    assert last.startswith("error: ")
    assert expected in last
    assert not list(photos.parent.rglob(".*.work"))


@pytest.mark.parametrize("option", ["--timeout", "--max-mb"])
@pytest.mark.parametrize("value", ["nan", "inf", "0", "-3"])
def test_limits_of_a_download_are_above_zero(option, value, capsys):
    with pytest.raises(SystemExit):
        encode_images.parser().parse_args(["download", "--dataset", "shop", f"{option}={value}"])
    assert f"argument {option}: expected a number" in capsys.readouterr().err


def test_the_download_step_says_what_there_is_to_do(tmp_path, capsys):
    write_items(tmp_path)
    item_file = tmp_path / "dataset" / "shop" / "shop.item"
    item_file.write_text("item_id:token\timage_url:token\na\tftp://h/1.jpg\nb\t\n")
    step = ["download", "--dataset", "shop"]
    assert run_script(encode_images.encode_images, [*step, "--dry-run"]) == 0
    assert "2 items, 1 different addresses" in capsys.readouterr().out
    assert run_script(encode_images.encode_images, step) == 0
    said = capsys.readouterr().out
    assert "0 of 2 items have an image" in said
    assert "1: no address" in said
    assert run_script(encode_images.encode_images, [*step, "--url-field", "photo"]) == 2
    assert "no field 'photo'" in capsys.readouterr().err
