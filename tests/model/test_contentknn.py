"""ContentKNN: mean cosine to the history, by hand."""

import pytest
import torch

from recbole_m3rec.evaluator.block_evaluation import offers_products
from recbole_m3rec.network.settings import ModelConfigError

CODES = {"encoder": "random-codes", "dim": 2, "std": 0.5}


@pytest.fixture
def model(new_model):
    """Return a function from configuration keys to the model."""

    def build(**keys):
        settings = {"modalities": ["text"], "features": {"text": CODES}, **keys}
        return new_model("ContentKNN", **settings)[1]

    return build


def test_a_score_is_the_mean_cosine_to_the_items_of_the_history(model):
    knn = model()
    # Item 1 points east, 2 north, 3 north-east, 4 west, and 5 has no feature.
    half = 0.5**0.5
    knn.vectors[:6] = torch.tensor([[0, 0], [1, 0], [0, 1], [half, half], [-1, 0], [0, 0]])
    batch = {
        "item_id_list": torch.tensor([[1, 0, 0], [1, 2, 5]]),
        "item_length": torch.tensor([1, 3]),
        "item_id": torch.tensor([4, 3]),
    }
    scores = knn.full_sort_predict(batch)[:, :6]
    expected = [[0, 1, 0, half, -1, 0], [0, 1 / 3, 1 / 3, 2 * half / 3, -1 / 3, 0]]
    torch.testing.assert_close(scores, torch.tensor(expected))
    torch.testing.assert_close(knn.predict(batch), torch.tensor([-1, 2 * half / 3]))
    assert offers_products(knn)


def test_each_modality_has_the_same_say_and_padding_none(model):
    knn = model(modalities=["image", "text"], features={"image": CODES, "text": CODES})
    lengths = knn.vectors.view(knn.n_items, 2, 2).norm(dim=2)
    torch.testing.assert_close(lengths[1:], torch.ones(knn.n_items - 1, 2))
    assert not lengths[0].any()


def test_without_features_it_is_refused(model):
    with pytest.raises(ModelConfigError, match="ContentKNN has nothing but content"):
        model(modalities=[])
