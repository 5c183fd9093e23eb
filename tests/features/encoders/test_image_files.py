"""Decoding images, good and bad."""

import io
import zlib

import numpy as np
import pytest

from recbole_m3rec.features.encoders.image_files import ImageFileError, decode_image, read_image

Image = pytest.importorskip("PIL.Image")

RED, GREEN = (200, 30, 10), (20, 180, 40)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def colour(image, at=(4, 4)):
    assert image.mode == "RGB"
    return list(image.getpixel(at))


def near(found, expected, by=12):
    return all(abs(a - b) <= by for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
def test_usual_files_keep_their_colours(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", Image.new("RGB", (16, 8), RED))
    image, image_format = decode_image(path)
    assert near(colour(image), RED)
    assert image.size == (16, 8)
    assert image_format.lower() in {"jpeg", "tiff", suffix}


def test_cmyk_becomes_rgb(tmp_path):
    image = Image.new("RGB", (16, 16), RED).convert("CMYK")
    assert near(colour(read_image(saved(tmp_path / "a.jpg", image, quality=100))), RED)


def test_sixteen_bits_keep_their_shades(tmp_path):
    shades = np.full((8, 8), 128 * 257, dtype=np.uint16)
    shades[4:] = 60_000
    image = read_image(saved(tmp_path / "a.png", Image.fromarray(shades)))
    assert colour(image, (0, 0)) == [128, 128, 128]
    assert near(colour(image, (0, 7)), (233, 233, 233), by=1)


def test_levels_of_eight_bits_in_a_file_of_32_are_not_scaled(tmp_path):
    levels = np.full((8, 8), 90, dtype=np.int32)
    assert colour(read_image(saved(tmp_path / "a.tif", Image.fromarray(levels)))) == [90, 90, 90]


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert near(colour(read_image(path)), RED)


def test_transparency_lies_on_white(tmp_path):
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert colour(read_image(saved(tmp_path / "a.png", clear))) == [255, 255, 255]
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, *GREEN])
    path = saved(tmp_path / "b.png", palette, transparency=0)
    assert colour(read_image(path)) == [255, 255, 255]
    deep = Image.fromarray(np.array([[700] * 4, [60_000] * 4], np.uint16).repeat(4, 0))
    path = saved(tmp_path / "c.png", deep)
    chunk = b"tRNS" + (700).to_bytes(2, "big")  # which older Pillows read and do not write
    chunk = b"\0\0\0\2" + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    path.write_bytes(path.read_bytes()[:33] + chunk + path.read_bytes()[33:])
    image = read_image(path)
    assert (colour(image, (0, 0)), colour(image, (0, 7))) == ([255] * 3, [233] * 3)


def test_a_photo_is_turned_as_the_camera_noted(tmp_path):
    image = Image.new("RGB", (16, 8), RED)
    image.paste(GREEN, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = read_image(saved(tmp_path / "a.png", image, exif=exif))
    assert turned.size == (8, 16)
    assert near(colour(turned, (4, 1)), GREEN)
    assert near(colour(turned, (4, 14)), RED)


def bad_files():
    buffer = io.BytesIO()
    noise = np.random.RandomState(0).randint(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    dot = io.BytesIO()
    Image.new("RGB", (1, 1)).save(dot, "GIF")
    deep = io.BytesIO()
    Image.fromarray(np.full((8, 8), 1 << 20, dtype=np.int32)).save(deep, "TIFF")
    floats = io.BytesIO()
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(floats, "TIFF")
    return {
        "empty": (b"", "empty file"),
        "page": (b"\n<!DOCTYPE HTML><html>404</html>", "an HTML or XML page, not an image"),
        "text": (b"not found", "not an image of a known format"),
        "cut": (jpeg[: len(jpeg) // 2], "damaged or cut off"),
        "header": (jpeg[:20], "not an image of a known format"),
        "dot": (dot.getvalue(), "only 1 x 1 pixels"),
        "deep": (deep.getvalue(), "pixels of 32 bits"),
        "floats": (floats.getvalue(), "floating-point pixels"),
    }


@pytest.mark.parametrize(
    "kind", ["empty", "page", "text", "cut", "header", "dot", "deep", "floats"]
)
def test_what_is_no_usable_image_is_named(tmp_path, kind):
    content, reason = bad_files()[kind]
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=f"^{reason}"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["eps", "ico", "pcx", "tga"])
def test_formats_whose_files_are_not_taken_for_images_are_not_opened(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", Image.new("RGB", (16, 16)))
    with pytest.raises(ImageFileError, match=r"^not an image of a known format \(.*PNG.*\)$"):
        read_image(path)


@pytest.mark.parametrize("times", [1.1, 2.5])
def test_the_limit_on_pixels_stays_on(tmp_path, monkeypatch, times):
    # Pillow itself warns above the limit and refuses from twice the limit on.
    path = saved(tmp_path / "a.png", Image.new("1", (1000, 1000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(1_000_000 / times))
    with pytest.raises(ImageFileError, match=r"more than [\d,]+ pixels, Pillow's limit"):
        read_image(path)
    assert Image.MAX_IMAGE_PIXELS is not None


def test_a_picture_of_100_megapixels_is_refused_without_decoding(tmp_path):
    path = saved(tmp_path / "a.png", Image.new("1", (10_000, 10_000)))
    with pytest.raises(ImageFileError, match="more than 89,478,485 pixels"):
        read_image(path)


def test_a_file_that_is_not_there_is_no_bad_image(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.jpg")
