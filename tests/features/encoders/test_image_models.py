"""Images through tiny models with random weights, saved to folders as real ones are."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recbole_m3rec.features.encoders.batches import EncoderError
from recbole_m3rec.features.encoders.image_models import image_encoder

Image = pytest.importorskip("PIL.Image")


def pictures():
    draw = np.random.RandomState(0)
    return [
        Image.fromarray(draw.randint(0, 255, (size, 40, 3), dtype=np.uint8))
        for size in (20, 40, 70)
    ]


def encoded(name, images=None):
    encoder = image_encoder(name, device="cpu")
    images = pictures() if images is None else images
    return encoder.encode([encoder.prepare(image) for image in images])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP whose pictures are 32 x 32 and whose embedding has 6 dimensions."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    small["num_attention_heads"] = 2
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 20, "max_position_embeddings": 8},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=6,
    )
    torch.manual_seed(1)
    transformers.CLIPModel(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    processor(transformers, "CLIP")(size={"shortest_edge": 32}, crop_size=size).save_pretrained(
        folder
    )
    return folder


def processor(transformers, kind):
    """The processor that works by Pillow: of its own class since transformers 5."""
    name = f"{kind}ImageProcessor"
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def test_clip_gives_its_image_embedding(clip):
    import transformers

    rows = encoded(f"transformers:{clip}")
    assert rows.shape == (3, 6)
    assert rows.dtype == np.float32
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    by_pillow = processor(transformers, "CLIP").from_pretrained(clip)
    for picture, row in zip(pictures(), rows, strict=True):
        pixels = by_pillow(images=picture, return_tensors="pt")["pixel_values"]
        with torch.no_grad():  # written out: the class token, normed, projected
            pooled = model.vision_model(pixel_values=pixels).pooler_output
            expected = model.visual_projection(pooled)[0]
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


def test_pictures_of_any_size_are_cut_by_pillow_without_torchvision(clip):
    encoder = image_encoder(f"transformers:{clip}", device="cpu")
    assert {tuple(encoder.prepare(image).shape) for image in pictures()} == {(3, 32, 32)}


def test_lower_precision_gives_nearly_the_same(clip):
    encoder = image_encoder(f"transformers:{clip}", device="cpu", precision="bfloat16")
    rough = encoder.encode([encoder.prepare(image) for image in pictures()])
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - encoded(f"transformers:{clip}")).max() < 0.05


def test_the_key_tells_weights_apart(clip, tmp_path):
    import transformers

    model = transformers.CLIPModel.from_pretrained(clip)
    with torch.no_grad():
        model.visual_projection.weight[0, 0] += 1
    model.save_pretrained(tmp_path)
    transformers.AutoImageProcessor.from_pretrained(clip).save_pretrained(tmp_path)
    keys = [image_encoder(f"transformers:{folder}", device="cpu").key for folder in (clip, clip)]
    assert keys[0] == keys[1]
    assert keys[0] != image_encoder(f"transformers:{tmp_path}", device="cpu").key


def test_other_vision_models_give_their_first_token(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    processor(transformers, "ViT")(size=size).save_pretrained(tmp_path)
    rows = encoded(f"transformers:{tmp_path}")
    model = transformers.ViTModel.from_pretrained(tmp_path).eval()
    by_pillow = processor(transformers, "ViT").from_pretrained(tmp_path)
    pixels = by_pillow(images=pictures(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixel_values=pixels).last_hidden_state[:, 0]
    np.testing.assert_allclose(rows, expected.numpy(), atol=1e-5)


def test_a_folder_without_a_model_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(EncoderError, match="the model cannot be loaded"):
        image_encoder(f"transformers:{tmp_path}")


# open_clip and timm are optional: what is called, and how, is shown on stand-ins.


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, pixels):
        return pixels.mean(dim=(1, 2, 3))[:, None] * self.scale

    encode_image = forward


def to_pixels(image):
    return torch.from_numpy(np.asarray(image.resize((4, 4)), np.float32)).permute(2, 0, 1) / 255


def expected_rows():
    means = [float(to_pixels(image).mean()) for image in pictures()]
    return np.float32([[2 * mean, 3 * mean] for mean in means])


def test_open_clip_gets_architecture_and_weights(monkeypatch):
    asked = []

    def create(name, pretrained, device):
        asked.append((name, pretrained))
        return Net(), None, to_pixels

    library = SimpleNamespace(create_model_and_transforms=create)
    monkeypatch.setitem(sys.modules, "open_clip", library)
    rows = encoded("open_clip:ViT-B-32,laion2b")
    np.testing.assert_allclose(rows, expected_rows(), rtol=1e-5)
    encoded("open_clip:hf-hub:some/model")
    assert asked == [("ViT-B-32", "laion2b"), ("hf-hub:some/model", None)]
    with pytest.raises(EncoderError, match="name the weights too"):
        image_encoder("open_clip:ViT-B-32")


def test_timm_gives_what_comes_before_the_classifier(monkeypatch):
    asked = []

    def create(name, **options):
        asked.append((name, options))
        return Net()

    library = SimpleNamespace(
        create_model=create,
        data=SimpleNamespace(
            resolve_model_data_config=lambda model: {"mean": 0},
            create_transform=lambda mean, is_training: to_pixels,
        ),
    )
    monkeypatch.setitem(sys.modules, "timm", library)
    np.testing.assert_allclose(encoded("timm:resnet18"), expected_rows(), rtol=1e-5)
    assert asked == [("resnet18", {"pretrained": True, "num_classes": 0})]


@pytest.mark.parametrize("name", ["open_clip:a,b", "timm:a"])
def test_an_optional_library_that_is_absent_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name.split(":")[0], None)
    with pytest.raises(EncoderError, match=f"{name} needs the library .* pip install"):
        image_encoder(name)


# Callables


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's, and one that lacks what it needs."""
    (tmp_path / "mine_for_tests.py").write_text(
        "import torch\n"
        "def tensor(images): return torch.ones(len(images), 3, requires_grad=True)\n"
        "def text(images): return 'abc'\n"
    )
    (tmp_path / "broken_for_tests.py").write_text("import not_there_either\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine_for_tests", None)


def test_a_callable_may_give_tensors(mine):
    rows = encoded("mine_for_tests:tensor")
    assert rows.tolist() == [[1, 1, 1]] * 3


def test_a_callable_that_gives_no_numbers_is_named(mine):
    with pytest.raises(EncoderError, match="mine_for_tests:text: gave a str for 3 images"):
        encoded("mine_for_tests:text")


def test_what_a_module_of_the_users_lacks_is_not_taken_for_the_module(mine):
    with pytest.raises(ModuleNotFoundError, match="not_there_either"):
        image_encoder("broken_for_tests:encode")


def test_a_callable_of_python_itself_is_refused():
    with pytest.raises(EncoderError, match="sys:exit: sys is part of Python"):
        image_encoder("sys:exit")


@pytest.mark.parametrize("name", ["clip", "clip:", ":encode", ""])
def test_a_name_of_nothing_is_refused(name):
    with pytest.raises(EncoderError, match="there is no image encoder"):
        image_encoder(name)
