"""ID vectors that start from content."""

import numpy as np
import pytest
import torch

from recbole_m3rec import ItemFeatures, M3RecNetwork
from recbole_m3rec.network import id_init
from recbole_m3rec.network.id_init import start_from_content

N_ITEMS = 40


def features(name, columns, scale=1.0, missing=0):
    values = torch.randn(N_ITEMS, columns, generator=torch.Generator().manual_seed(columns)) * scale
    present = torch.ones(N_ITEMS, dtype=torch.bool)
    present[N_ITEMS - missing :] = False
    return ItemFeatures(name, values * present[:, None], present, "", name)


@pytest.mark.parametrize("rows_at_once", [7, 1000])
def test_vectors_are_whitened_principal_components(rows_at_once, monkeypatch):
    monkeypatch.setattr(id_init, "ROWS_AT_ONCE", rows_at_once)
    text = features("text", 12, missing=3)
    embedding = torch.full((N_ITEMS, 5), 9.0)
    start_from_content(embedding, {"text": text}, 0.02)
    written = embedding[1:-3].double().numpy()

    values = text.values[1:-3].double().numpy()
    centred = values - values.mean(0)
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :5] * 0.02 * np.sqrt(len(left))
    np.testing.assert_allclose(np.abs(written), np.abs(expected), rtol=1e-4, atol=1e-7)
    assert (embedding[0] == 9).all()  # padding
    assert (embedding[-3:] == 9).all()  # items without text


def test_modalities_count_the_same_at_any_scale():
    small, large = torch.zeros(N_ITEMS, 6), torch.zeros(N_ITEMS, 6)
    start_from_content(small, {"a": features("a", 4), "b": features("b", 9)}, 0.02)
    start_from_content(large, {"a": features("a", 4, 1e3), "b": features("b", 9, 1e-3)}, 0.02)
    torch.testing.assert_close(small.abs(), large.abs(), rtol=1e-3, atol=1e-6)


def test_columns_beyond_the_rank_keep_their_noise():
    network = M3RecNetwork(
        N_ITEMS, {"text": features("text", 3)}, hidden_size=8, d_state=4, id_init="content"
    )
    weight = network.item_embedding.weight.detach()
    assert weight[:, 3:].std() == pytest.approx(0.02, rel=0.3)
    assert np.corrcoef(weight[1:, :3].T)[0, 1] == pytest.approx(0, abs=1e-4)


def test_degenerate_features_leave_finite_vectors():
    same = ItemFeatures(
        "text", torch.ones(N_ITEMS, 4), torch.ones(N_ITEMS, dtype=torch.bool), "", ""
    )
    nobody = features("text", 4, missing=N_ITEMS - 1)
    for of_items in (same, nobody):
        embedding = torch.randn(N_ITEMS, 5)
        kept = embedding.clone()
        start_from_content(embedding, {"text": of_items}, 0.02)
        assert torch.equal(embedding, kept)


def test_other_weights_are_those_of_noise():
    networks = []
    for rule in ("normal", "content"):
        torch.manual_seed(1)
        text = {"text": features("text", 6)}
        networks.append(M3RecNetwork(N_ITEMS, text, hidden_size=8, d_state=4, id_init=rule))
    for (name, noise), weight in zip(
        networks[0].named_parameters(), networks[1].parameters(), strict=True
    ):
        assert torch.equal(noise, weight) == (name != "item_embedding.weight"), name


def test_of_many_items_some_decide_the_components_and_all_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = features("text", 12)
    whole, some = torch.zeros(N_ITEMS, 5), torch.zeros(N_ITEMS, 5)
    start_from_content(whole, {"text": text}, 0.02)
    monkeypatch.setattr(id_init, "FITTED_ON", 20)
    start_from_content(some, {"text": text}, 0.02)
    assert not torch.equal(whole, some)
    assert (some[1:].abs().sum(1) > 0).all()
    half = some[2::2]
    assert half.std(0, correction=0).numpy() == pytest.approx(0.02, rel=0.1)
