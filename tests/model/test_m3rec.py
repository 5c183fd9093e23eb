"""The adapters to RecBole: loss and scores of real batches, and what Mamba4Rec refuses."""

import pytest
import torch
from recbole.utils import get_model

from recbole_m3rec.data.windows import TARGET_LIST
from recbole_m3rec.model import m3rec as m3rec_module
from recbole_m3rec.model.m3rec import M3Rec
from recbole_m3rec.network.packed import pack
from recbole_m3rec.network.settings import ModelConfigError
from tests.tiny import TWO_MODALITIES

CASES = pytest.mark.parametrize(
    ("name", "keys"),
    [("M3Rec", TWO_MODALITIES), ("M3Rec", {"modalities": []}), ("Mamba4Rec", {})],
    ids=["two modalities", "none", "Mamba4Rec"],
)
LOSSES = pytest.mark.parametrize("loss", ["CE", "BPR"])
POSITIONS = pytest.mark.parametrize("positions", ["all", "last"])


@pytest.fixture
def build(new_model):
    """Return a function from configuration keys to (model, a training batch, a test batch)."""

    def made(name, **keys):
        if name == "Mamba4Rec":
            keys = {"modalities": "auto", **keys}
        _, model, train, _, test = new_model(name, **keys)
        return model, next(iter(train)), next(iter(test))[0]

    return made


def scores(model, history):
    """Scores of all items after one history without padding."""
    query = model.network.query(history[None], torch.tensor([len(history)]))
    return (query @ model.network.item_table().T)[0]


@CASES
@LOSSES
@POSITIONS
def test_the_loss_is_the_mean_over_targets_of_each_scored_after_its_prefix(
    build, name, keys, loss, positions
):
    # Histories of five inputs at three a row: windows overlap, some positions are not scored.
    keys = {"MAX_ITEM_LIST_LENGTH": 3, **keys}
    model, batch, _ = build(name, loss_type=loss, train_positions=positions, **keys)
    assert positions == "last" or int((batch[TARGET_LIST] > 0).sum()) < batch["item_length"].sum()
    assert (TARGET_LIST in batch) == (positions == "all")
    losses = []
    for row, length in enumerate(batch["item_length"].tolist()):
        history = batch["item_id_list"][row]
        if positions == "last":
            pairs = {
                length: (batch["item_id"][row], batch["neg_item_id"][row] if loss == "BPR" else 0)
            }
        else:
            negatives = batch["neg_" + TARGET_LIST] if loss == "BPR" else batch[TARGET_LIST]
            listed = zip(batch[TARGET_LIST][row], negatives[row], strict=True)
            pairs = {end: pair for end, pair in enumerate(listed, 1) if pair[0] > 0}
        for end, (positive, negative) in pairs.items():
            scored = scores(model, history[:end])
            if loss == "CE":
                losses.append(scored.logsumexp(0) - scored[positive])
            else:
                losses.append(-torch.nn.functional.logsigmoid(scored[positive] - scored[negative]))
    expected = torch.stack(losses).mean()
    found = model.calculate_loss(batch)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found.backward()
    taught = [p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters()]
    assert any(taught)


@CASES
@LOSSES
def test_predict_full_sort_and_forward_agree(build, name, keys, loss):
    model, _, batch = build(name, loss_type=loss, **keys)
    model.eval()
    full = model.full_sort_predict(batch)
    n_rows = len(batch["item_length"])
    assert full.shape == (n_rows, model.n_items)
    query = model(batch["item_id_list"], batch["item_length"])
    torch.testing.assert_close(query @ model.network.item_table().T, full, rtol=1e-5, atol=1e-6)
    for item in (1, model.n_items - 1):
        batch["item_id"] = torch.full((n_rows,), item)
        torch.testing.assert_close(model.predict(batch), full[:, item], rtol=1e-5, atol=1e-6)


def test_full_sort_keeps_no_gradient(build):
    model, _, batch = build("M3Rec", **TWO_MODALITIES)
    assert not model.full_sort_predict(batch).requires_grad


def test_the_network_has_the_configured_modalities_in_order(build):
    keys = {**TWO_MODALITIES, "modalities": ["text", "image"]}
    assert build("M3Rec", **keys)[0].network.modalities == ("text", "image", "id")
    assert build("M3Rec", modalities=[])[0].network.modalities == ("id",)


def test_mamba4rec_is_m3rec_without_modalities(build):
    ours, batch, _ = build("M3Rec", modalities=[], shuffle=False)
    theirs, _, _ = build("Mamba4Rec", shuffle=False)
    theirs.load_state_dict(ours.state_dict())
    packed = pack(batch["item_id_list"], batch["item_length"])
    vectors = [
        model.network.encode(packed, model.network.item_vectors()) for model in (ours, theirs)
    ]
    assert torch.equal(*vectors)


def test_settings_reach_the_network(build):
    keys = {"hidden_size": 16, "num_layers": 1, "d_state": 3, "d_conv": 2, "expand": 3}
    network = build("M3Rec", modality_gradient="shared", **keys, **TWO_MODALITIES)[0].network
    block = network.layers[0].shared.mamba
    assert (network.config.hidden_size, len(network.layers)) == (16, 1)
    assert block.A_log.shape == (48, 3)
    assert block.conv1d.weight.shape == (48, 1, 2)
    assert network.modality_gradient == "shared"


class _Dataset:
    """As much of a dataset as a model reads before it checks its settings."""

    device = torch.device("cpu")

    def num(self, field):
        return 13


def test_mamba4rec_refuses_modalities(make_config):
    model_class = get_model("Mamba4Rec")
    config = make_config("Mamba4Rec")
    config["modalities"] = ["text"]
    with pytest.raises(ModelConfigError, match=r"no content modalities.*text.*--model=M3Rec"):
        model_class(config, _Dataset())


def test_an_unknown_loss_is_an_error_with_the_nearest(make_config):
    config = make_config("M3Rec")
    config["loss_type"] = "BPRR"
    with pytest.raises(ModelConfigError, match="loss_type .*'BPRR'. Did you mean BPR"):
        M3Rec(config, _Dataset())


@pytest.mark.parametrize(("key", "value"), [("softmax_items", 5), ("shard_softmax", True)])
def test_settings_of_a_softmax_that_is_not_there_are_refused(build, key, value):
    with pytest.raises(ModelConfigError, match=f"{key}: {value}, but loss_type: BPR"):
        build("M3Rec", loss_type="BPR", **{key: value})


def test_the_log_names_the_number_of_items_from_which_sampling_is_advised(
    build, monkeypatch, caplog
):
    monkeypatch.setattr(m3rec_module, "MANY_ITEMS", 5)
    with caplog.at_level("INFO"):
        build("M3Rec", modalities=[])
    [record] = [r for r in caplog.records if "softmax_items" in r.message]
    assert record.levelname == "WARNING"
    assert "above 5 items" in record.message
