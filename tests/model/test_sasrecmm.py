"""SASRecMM: SASRec whose items are fused from ID and content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from recbole.model.sequential_recommender.sasrec import SASRec
from recbole.utils import get_model, init_seed

from recbole_m3rec.evaluator.block_evaluation import offers_products
from recbole_m3rec.network.item_encoder import FeatureMismatchError

CODES = {"encoder": "random-codes", "dim": 6, "std": 0.5}
TWO = {"modalities": ["image", "text"], "features": {"image": CODES, "text": CODES}}
FUSIONS = pytest.mark.parametrize("fusion", ["sum", "concat"])


@pytest.fixture
def build(prepare: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, Any, Any]]:
    """Return a function from configuration keys to (model, a training batch, a test batch)."""

    def made(**keys: Any) -> tuple[Any, Any, Any]:
        config, _, train, _, test = prepare("SASRecMM", **{**TWO, **keys})
        init_seed(config["seed"], True)
        model = get_model("SASRecMM")(config, train.dataset)
        return model.eval(), next(iter(train)), next(iter(test))[0]

    return made


@FUSIONS
def test_an_item_is_its_id_and_its_projected_features(build: Any, fusion: str) -> None:
    model, _, _ = build(fusion=fusion)
    items = model.item_embedding
    parts = {}
    for number, (name, content) in enumerate(items.content.items()):
        content.weight.data.fill_(2.0 + number)
        parts[name] = content.weight * content.projector(content.features)
    expected = parts["image"] + parts["text"] + items.id.weight
    if fusion == "concat":
        expected = items.merge(torch.cat([parts["image"], parts["text"], items.id.weight], dim=1))
    torch.testing.assert_close(model.item_table(), expected)


@FUSIONS
@pytest.mark.parametrize("loss", ["CE", "BPR"])
def test_loss_and_scores_are_those_of_sasrec_with_that_table(
    build: Any, fusion: str, loss: str
) -> None:
    model, train, test = build(fusion=fusion, loss_type=loss)
    found = float(model.calculate_loss(train).detach()), model.full_sort_predict(test)
    one = model.predict(test)
    table = torch.nn.Embedding.from_pretrained(model.item_table())
    model.item_embedding = table
    torch.testing.assert_close(found[0], float(SASRec.calculate_loss(model, train).detach()))
    expected = SASRec.full_sort_predict(model, test)
    torch.testing.assert_close(found[1], expected.detach())
    torch.testing.assert_close(one, expected[torch.arange(len(one)), test["item_id"]])


def test_the_catalogue_is_fused_once_a_step_and_learns_from_both_of_its_uses(build: Any) -> None:
    model, train, _ = build()
    fused = []
    compute = model.item_embedding.table._compute
    model.item_embedding.table._compute = lambda: fused.append(1) or compute()
    model.calculate_loss(train).backward()
    assert len(fused) == 1
    assert not model.item_embedding.table._keeps
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_its_scores_are_products_for_evaluation_in_blocks(build: Any) -> None:
    model, _, test = build()
    assert offers_products(model)
    torch.testing.assert_close(
        model.queries(test) @ model.item_table().T, model.full_sort_predict(test)
    )


def test_a_checkpoint_fits_no_other_features(build: Any) -> None:
    weights = build()[0].state_dict()
    build()[0].load_state_dict(weights)
    other = {"features": {"image": CODES, "text": {**CODES, "std": 0.25}}}
    with pytest.raises(FeatureMismatchError, match="trained on other text features"):
        build(**other)[0].load_state_dict(weights)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"modalities": []}, "SASRecMM without a content modality is SASRec"),
        ({"fusion": "add"}, "fusion must be one of sum, concat, found 'add'"),
        ({"projector_experts": 0}, "projector_experts must be an integer"),
    ],
)
def test_settings_without_a_meaning_are_refused(
    build: Any, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(**keys)
