"""SASRecMM: SASRec whose items are fused from ID and content."""

import pytest
import torch
from recbole.model.sequential_recommender.sasrec import SASRec

from recbole_m3rec.data.windows import TARGET_LIST
from recbole_m3rec.evaluator.block_evaluation import offers_products
from recbole_m3rec.network import untrained_items
from recbole_m3rec.network.item_encoder import FeatureMismatchError
from tests.tiny import CODES, TWO_MODALITIES

# As RecBole's SASRec has it.
PLAIN = {"score": "dot", "repetition": False, "train_positions": "last", "feature_norm": "none"}
PLAIN["initializer_range"] = 0.5  # so that attention matters
FUSIONS = pytest.mark.parametrize("fusion", ["sum", "concat"])


@pytest.fixture
def build(new_model):
    """Return a function from configuration keys to (model, a training batch, a test batch)."""

    def made(**keys):
        _, model, train, _, test = new_model("SASRecMM", **{**PLAIN, **TWO_MODALITIES, **keys})
        return model.eval(), next(iter(train)), next(iter(test))[0]

    return made


@FUSIONS
def test_an_item_is_its_id_and_its_projected_features(build, fusion):
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
def test_loss_and_scores_are_those_of_sasrec_with_that_table(build, fusion, loss):
    model, train, test = build(fusion=fusion, loss_type=loss)
    found = float(model.calculate_loss(train).detach()), model.full_sort_predict(test)
    one = model.predict(test)
    table = torch.nn.Embedding.from_pretrained(model.item_table())
    model.item_embedding = table
    torch.testing.assert_close(found[0], float(SASRec.calculate_loss(model, train).detach()))
    expected = SASRec.full_sort_predict(model, test)
    torch.testing.assert_close(found[1], expected.detach())
    torch.testing.assert_close(one, expected[torch.arange(len(one)), test["item_id"]])


def test_the_catalogue_is_fused_once_a_step_and_learns_from_both_of_its_uses(build):
    model, train, _ = build()
    fused = []
    model.item_embedding.content["text"].register_forward_hook(lambda *_: fused.append(1))
    model.calculate_loss(train).backward()
    assert len(fused) == 1
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_its_scores_are_products_for_evaluation_in_blocks(build):
    model, _, test = build()
    assert offers_products(model)
    torch.testing.assert_close(
        model.queries(test) @ model.item_table().T, model.full_sort_predict(test)
    )


ALONE = {"modalities": [], "features": {}}


@pytest.mark.parametrize("loss", ["CE", "BPR"])
def test_without_modalities_it_is_sasrec(build, new_model, loss):
    model, train, test = build(loss_type=loss, **ALONE)
    recboles = new_model("SASRec", loss_type=loss)[1].eval()
    weights = {name.replace("embedding.id.", "embedding."): w for name, w in
               model.state_dict().items() if "extra_state" not in name}  # fmt: skip
    recboles.load_state_dict(weights)
    torch.testing.assert_close(model.calculate_loss(train), recboles.calculate_loss(train))
    torch.testing.assert_close(model.full_sort_predict(test), recboles.full_sort_predict(test))


@pytest.mark.parametrize("loss", ["CE", "BPR"])
@pytest.mark.parametrize("keys", [TWO_MODALITIES, ALONE], ids=["two modalities", "none"])
@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_all_positions_are_the_mean_over_targets_of_each_after_its_prefix(build, keys, loss, score):
    # Histories of five inputs at three a row: windows overlap, some positions are not scored.
    keys = {"score": score, "repetition": score == "cosine", "temperature": 0.5, **keys}
    keys = {"train_positions": "all", "loss_type": loss, "MAX_ITEM_LIST_LENGTH": 3, **keys}
    model, batch, _ = build(**keys)
    if score == "cosine":
        model.repeats.by_lag.data.fill_(0.1)
    assert int((batch[TARGET_LIST] > 0).sum()) < batch["item_length"].sum()
    negatives = batch["neg_" + TARGET_LIST] if loss == "BPR" else batch[TARGET_LIST]
    losses = []
    for row, end in batch[TARGET_LIST].nonzero().tolist():
        history = batch["item_id_list"][row, : end + 1]
        query = SASRec.forward(model, history[None], torch.tensor([end + 1]))
        table = model.item_embedding.weight
        if score == "cosine":
            scores = torch.nn.functional.cosine_similarity(query, table) / 0.5
            scores[history] += 30 * 0.1  # no item is twice in a history
        else:
            scores = (query @ table.T)[0]
        target = batch[TARGET_LIST][row, end]
        if loss == "CE":
            losses.append(scores.logsumexp(0) - scores[target])
        else:
            margin = scores[target] - scores[negatives[row, end]]
            losses.append(-torch.nn.functional.logsigmoid(margin))
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(model.calculate_loss(batch), expected, rtol=1e-5, atol=1e-6)


def test_a_held_out_item_borrows_an_id_and_is_no_candidate_in_training(build, monkeypatch):
    model, train, _ = build(fusion="sum")
    before = float(model.calculate_loss(train).detach())
    is_cold = torch.zeros(model.n_items, dtype=torch.bool)
    is_cold[int((~torch.isin(torch.arange(model.n_items), train["item_id"])).nonzero()[-1])] = True
    model.hold_out(is_cold)
    items = model.item_embedding
    content = sum(c.weight * c.projector(c.features) for c in items.content.values())
    is_mean = torch.softmax(torch.randn(model.n_items), 0)[None]
    monkeypatch.setattr(
        untrained_items, "lenders", lambda *_: (torch.arange(model.n_items)[None], is_mean)
    )
    expected_vector = content[is_cold] + is_mean @ items.id.weight
    torch.testing.assert_close(model.item_table()[is_cold], expected_vector.detach())
    query = model.queries(train)
    logits = (query @ model.item_table().T).masked_fill(is_cold, -torch.inf)
    loss = model.calculate_loss(train)
    expected = torch.nn.functional.cross_entropy(logits, train["item_id"])
    torch.testing.assert_close(loss.detach(), expected)
    assert float(loss.detach()) < before
    loss.backward()
    assert not items.id.weight.grad[is_cold].any()


def test_a_checkpoint_fits_no_other_features(build):
    weights = build()[0].state_dict()
    build()[0].load_state_dict(weights)
    other = {"features": {"image": CODES, "text": {**CODES, "std": 0.25}}}
    with pytest.raises(FeatureMismatchError, match="trained on other text features"):
        build(**other)[0].load_state_dict(weights)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"fusion": "add"}, "fusion must be one of sum, concat, found 'add'"),
        ({"projector_experts": 0}, "projector_experts must be an integer"),
    ],
)
def test_settings_without_a_meaning_are_refused(build, keys, message):
    with pytest.raises(ValueError, match=message):
        build(**keys)


@FUSIONS
def test_vectors_of_some_items_are_rows_of_the_table_and_touch_no_others(build, fusion):
    model, train, _ = build(fusion=fusion, softmax_items=1)
    some = torch.tensor([3, 1, 4])
    torch.testing.assert_close(model.item_vectors(some).table, model.item_table()[some])
    model.item_vectors(some).table.sum().backward()
    touched = model.item_embedding.id.weight.grad.abs().sum(1).nonzero()[:, 0]
    assert touched.tolist() == [1, 3, 4]
    assert model.calculate_loss(train).isfinite()
