"""Texts through tiny language models with random weights, saved to folders as real ones are."""

import numpy as np
import pytest

from recbole_m3rec.features.encoders import (
    EncoderError,
    encode_texts,
    encoder_options,
    text_encoder,
)

WORDS = ["red", "blue", "wool", "silk", "hat", "shoe", "coat", "scarf"]
TEXTS = [
    "red wool hat",
    "shoe",
    "blue silk scarf\nred coat\n" + "wool " * 30,
    "red wool hat",
    " \n",
    "silk",
    "blue coat hat shoe",
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT of two layers, 12 dimensions and 16 positions."""
    transformers = pytest.importorskip("transformers")
    import torch

    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = transformers.BertTokenizerFast(
        vocab=dict(zip(vocabulary, range(len(vocabulary)), strict=True))
        if int(transformers.__version__.split(".")[0]) >= 5
        else None,
        vocab_file=str(folder / "vocab.txt"),
        model_max_length=16,
    )
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoded(folder, texts=TEXTS, **options):
    return encode_texts(f"transformers:{folder}", texts, options, device="cpu")


def reference(folder, text, pooling):
    """One text alone, written out."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        states = model(**tokens).last_hidden_state[0]
    row = (states[0] if pooling == "cls" else states.mean(dim=0)).numpy()
    return row


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_batches_by_length_give_each_text_the_row_it_has_alone(bert, pooling, batch_size):
    rows = encoded(bert, pooling=pooling, batch_size=batch_size)
    assert rows.dtype == np.float32
    for text, row in zip(TEXTS, rows, strict=True):
        expected = reference(bert, text, pooling) if text.strip() else np.zeros(12)
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_poolings_differ(bert):
    assert np.abs(encoded(bert, pooling="cls") - encoded(bert, pooling="mean")).max() > 0.1


def test_a_text_is_cut_at_the_number_of_tokens(bert):
    cut = encoded(bert, ["red hat shoe", "red"], max_tokens=3)
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-5)
    whole = encoded(bert, ["red hat shoe", "red"])
    assert np.abs(whole[0] - whole[1]).max() > 0.01


@pytest.mark.parametrize("family", ["transformers", "sentence-transformers"])
def test_a_model_whose_positions_begin_behind_padding_cuts_texts_in_time(bert, tmp_path, family):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip(family.replace("-", "_"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 13}
    config = transformers.RobertaConfig(**sizes, max_position_embeddings=18, pad_token_id=1)
    transformers.RobertaModel(config).save_pretrained(tmp_path)
    rows = encode_texts(f"{family}:{tmp_path}", ["wool " * n for n in (14, 40)], {}, device="cpu")
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_rows_of_length_one_on_demand(bert):
    rows = encoded(bert, ["red", "hat"], unit_rows=True)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_lower_precision_gives_nearly_the_same(bert):
    exact, rough = encoded(bert), encoded(bert, precision="bfloat16")
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() < 0.1


def test_progress_counts_items_although_equal_texts_are_encoded_once(bert):
    done = []
    encode_texts(f"transformers:{bert}", TEXTS[:4], {"batch_size": 1}, progress=done.append)
    assert len(done) == 3
    assert sum(done) == 4


def test_a_run_that_stopped_ends_with_the_same_bytes(bert, tmp_path):
    name, options = f"transformers:{bert}", {"batch_size": 2}
    whole = encode_texts(name, TEXTS, options)
    count = 0

    def stop(n_texts):
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_texts(name, TEXTS, options, work=tmp_path, progress=stop)
    steps = []
    again = encode_texts(name, TEXTS, options, work=tmp_path, progress=steps.append)
    assert again.tobytes() == whole.tobytes()
    assert len(steps) == 2  # what was done, and the one batch that was left
    done = []
    encode_texts(name, TEXTS, {**options, "pooling": "mean"}, work=tmp_path, progress=done.append)
    assert len(done) == 3  # none of the batches pooled otherwise was used


def test_a_sentence_transformer_pools_as_its_folder_says(bert, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    try:
        from sentence_transformers.models import Pooling, Transformer
    except ImportError:
        from sentence_transformers.sentence_transformer.models import Pooling, Transformer
    model = library.SentenceTransformer(modules=[Transformer(str(bert)), Pooling(12, "mean")])
    model.save(str(tmp_path / "model"))
    name = f"sentence-transformers:{tmp_path / 'model'}"
    rows = encode_texts(name, TEXTS, {"batch_size": 3}, device="cpu")
    expected = encoded(bert, pooling="mean")
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    unit = encode_texts(name, ["red"], {"unit_rows": True}, device="cpu")
    assert np.linalg.norm(unit) == pytest.approx(1, rel=1e-5)


def test_a_checkpoint_that_lacks_weights_is_refused(bert, tmp_path):
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(bert)
    weights = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if "layer.1." not in name and "pooler" not in name
    }
    model.save_pretrained(tmp_path, state_dict=weights)
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match=r"has no weights for 16 parts .*layer\.1"):
        encoded(tmp_path, ["red"])
    weights = {name: tensor for name, tensor in model.state_dict().items() if "pooler" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    torch.rand(3)
    np.testing.assert_array_equal(encoded(tmp_path, ["red"]), encoded(bert, ["red"]))


@pytest.mark.parametrize("family", ["transformers", "sentence-transformers"])
def test_a_model_that_is_not_there_is_named(family, tmp_path, monkeypatch):
    pytest.importorskip(family.replace("-", "_"))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EncoderError, match=rf"{family}:.*nothing: the model cannot be loaded"):
        encode_texts(f"{family}:{tmp_path / 'nothing'}", ["red"], {})


def test_a_missing_library_is_named_with_the_way_to_get_it(monkeypatch):
    from recbole_m3rec.features.encoders import pretrained

    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(pretrained.importlib, "import_module", absent)
    with pytest.raises(EncoderError, match=r"transformers:a needs .* pip install 'recbole_m3rec\["):
        encode_texts("transformers:a", ["red"], {})


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "max"},
        {"max_tokens": 0},
        {"batch_size": 2.5},
        {"precision": "int8"},
        {"unit_rows": "maybe"},
    ],
)
def test_options_out_of_range_are_named(options):
    if "precision" in options:
        pytest.importorskip("transformers")
    with pytest.raises(EncoderError, match=f"transformers:a: {next(iter(options))} must be"):
        encode_texts("transformers:a", ["red"], options)


def test_a_device_that_is_not_here_is_named():
    pytest.importorskip("transformers")
    with pytest.raises(EncoderError, match="transformers:a: device 'cuda:7' cannot be used here"):
        encode_texts("transformers:a", ["red"], {}, device="cuda:7")


@pytest.mark.parametrize(
    "name",
    ["transformers", "transformers:", "sentence-transformer:a", "os:system", "builtins:eval", None],
)
def test_only_known_families_name_an_encoder(name):
    assert text_encoder(name) is None


def test_options_are_those_that_change_the_vectors():
    assert set(encoder_options("transformers:a")) == {
        "pooling",
        "max_tokens",
        "unit_rows",
        "batch_size",
        "precision",
    }
    assert set(encoder_options("random-codes")) == {"dim", "std"}
