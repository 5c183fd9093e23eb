"""M3RecNetwork: shapes, padding, items without features, scores, errors and checkpoints."""

import pytest
import torch

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network import m3rec as network_module
from recbole_m3rec.network.item_encoder import FeatureMismatchError
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.packed import pack
from recbole_m3rec.network.settings import ModelConfigError
from recbole_m3rec.ops.selective_scan import ScanBackendError

N_ITEMS, HIDDEN = 10, 8
MISSING = 4
ITEM_SEQ = torch.tensor([[1, 2, 3, 4, 5], [6, 0, 0, 0, 0], [7, 4, 9, 0, 0]])
LENGTHS = torch.tensor([5, 1, 3])
WIDTHS = {"image": 6, "text": 3}
SETS = pytest.mark.parametrize("names", [(), ("text",), ("image", "text")], ids=len)


def features(*names, missing=None):
    made = {}
    for name in names:
        values = torch.randn(
            N_ITEMS, WIDTHS[name], generator=torch.Generator().manual_seed(len(name))
        )
        present = torch.ones(N_ITEMS, dtype=torch.bool)
        values[0] = 0
        if missing is not None:
            values[missing], present[missing] = 0, False
        made[name] = ItemFeatures(name, values, present, f"fingerprint of {name}", name)
    return made


def make(of_items=None, **settings):
    torch.manual_seed(0)
    small = {"hidden_size": HIDDEN, "d_state": 4, "dropout_prob": 0.0}
    network = M3RecNetwork(N_ITEMS, of_items, **{**small, **settings})
    with torch.no_grad():
        for number, content in enumerate(network.content.values()):
            content.weight.fill_(2.0 + number)  # 1 would hide a forgotten weight
            for layer in (content.projector[0], content.projector[2]):
                layer.bias.normal_()
    return network


def close(found, expected, what=""):
    difference = float((found - expected).detach().abs().max())
    assert difference <= 1e-5 * max(1.0, float(expected.detach().abs().max())), (
        f"{what}: {difference}"
    )


@SETS
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_batch_equals_its_rows_alone_without_padding(names, num_layers):
    network = make(features(*names, missing=MISSING), num_layers=num_layers)
    rows = [
        network.query(row[None, :length], length[None])
        for row, length in zip(ITEM_SEQ, LENGTHS, strict=True)
    ]
    query = network.query(ITEM_SEQ, LENGTHS)
    close(query, torch.cat(rows))
    width = (len(names) + 1) * HIDDEN
    assert (query.shape, network.item_table().shape) == ((3, width), (N_ITEMS, width))


def test_what_stands_in_the_padding_is_never_read():
    network = make(features("text"))
    other = ITEM_SEQ.clone()
    other[1, 1:] = 8
    assert torch.equal(network.query(other, LENGTHS), network.query(ITEM_SEQ, LENGTHS))


@pytest.mark.parametrize("names", [("image", "text"), ("text", "image")])
def test_blocks_are_the_modalities_in_order_then_id(names):
    of_items = features(*names)
    network = make(of_items)
    blocks = network.item_table().split(HIDDEN, dim=1)
    for block, name in zip(blocks, names, strict=False):
        content = network.content[name]
        assert torch.equal(block, content.weight * content.projector(of_items[name].values))
    assert torch.equal(blocks[-1], network.item_embedding.weight)


def test_each_block_of_the_query_follows_its_own_modality():
    network = make(features("image", "text"))
    before = network.query(ITEM_SEQ, LENGTHS).split(HIDDEN, dim=1)
    with torch.no_grad():
        network.content["text"].features.mul_(-3)
    after = network.query(ITEM_SEQ, LENGTHS).split(HIDDEN, dim=1)
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False, True, False]


def test_fusion_weights_scale_query_and_table_of_their_modality():
    network = make(features("image", "text"))

    def vectors():
        return torch.cat([network.query(ITEM_SEQ, LENGTHS), network.item_table()])

    before = vectors()
    with torch.no_grad():
        network.content["text"].weight.mul_(5)
    expected = before.clone()
    expected[:, HIDDEN : 2 * HIDDEN] *= 5
    close(vectors(), expected)


def test_a_missing_item_adds_nothing_to_scores_but_its_learned_vector_to_sequences():
    network = make(features("text", missing=MISSING))
    assert (network.item_table()[MISSING, :HIDDEN] == 0).all()
    vectors = network.item_vectors()
    content = network.content["text"]
    assert torch.equal(vectors.sequence["text"][MISSING], content.missing)
    assert content.missing.abs().min() > 0
    before = network.query(ITEM_SEQ, LENGTHS)
    table = network.item_table()
    with torch.no_grad():
        content.missing.mul_(-1)
    unchanged = (network.query(ITEM_SEQ, LENGTHS) == before).all(dim=1)
    assert unchanged.tolist() == [False, True, False]  # the second history lacks the item
    assert torch.equal(network.item_table(), table)


def test_without_missing_items_there_is_no_vector_for_them():
    assert not [name for name, _ in make(features("text")).named_parameters() if "missing" in name]


def test_padding_has_a_column_of_its_own_in_table_and_loss():
    network = make(features("text", missing=MISSING))
    table = network.item_table()
    content = network.content["text"]
    close(table[0, :HIDDEN], content.weight * content.projector(torch.zeros(WIDTHS["text"])))
    packed, targets = pack(ITEM_SEQ, LENGTHS), torch.tensor([1, 2, 3])
    logits = network.query(ITEM_SEQ, LENGTHS) @ table.T
    expected = (logits.logsumexp(1) - logits[torch.arange(3), targets]).mean()
    close(network.cross_entropy(packed, targets), expected)
    expected.backward()
    assert network.item_embedding.weight.grad[0].abs().max() > 0


@SETS
@pytest.mark.parametrize("few", [0.0, 1.0], ids=["all items", "few items"])
def test_score_items_is_query_times_table(names, few, monkeypatch):
    monkeypatch.setattr(network_module, "FEW_ITEMS", few)
    network = make(features(*names, missing=MISSING))
    items = torch.tensor([9, MISSING, 0])
    expected = (network.query(ITEM_SEQ, LENGTHS) * network.item_table()[items]).sum(1)
    close(network.score_items(ITEM_SEQ, LENGTHS, items), expected)


def test_few_items_are_projected_alone_and_many_all_at_once(monkeypatch):
    network = make(features("text"))
    seen = []
    network.content["text"].projector[0].register_forward_hook(
        lambda _, inputs, __: seen.append(len(inputs[0]))
    )
    for few in (0.0, 1.0):
        monkeypatch.setattr(network_module, "FEW_ITEMS", few)
        network.query(ITEM_SEQ, LENGTHS)
    assert seen == [N_ITEMS, 8]  # eight different items in the batch


@pytest.mark.parametrize("at_a_time", [1, 13, 30])
def test_many_items_are_projected_some_at_a_time_with_the_same_gradients(monkeypatch, at_a_time):
    network = make(features("image", "text", missing=MISSING))
    targets = torch.tensor([3, 8, 4])

    def loss_and_gradients():
        network.zero_grad()
        loss = network.cross_entropy(pack(ITEM_SEQ, LENGTHS), targets)
        loss.backward()
        return [loss, *(p.grad for p in network.parameters() if p.grad is not None)]

    expected = loss_and_gradients()
    sizes = []
    monkeypatch.setattr("recbole_m3rec.network.item_encoder.PROJECTED_AT_A_TIME", at_a_time)
    for content in network.content.values():
        content.projector[0].register_forward_hook(lambda _m, x, _y: sizes.append(x[0].numel()))
    for found, wanted in zip(loss_and_gradients(), expected, strict=True):
        close(found, wanted)
    assert max(sizes) <= max(at_a_time, *WIDTHS.values())


@pytest.mark.parametrize("at", [None, [0, 3, 5, 8]], ids=["last", "positions"])
def test_bpr_on_few_items_has_loss_and_gradients_of_all(at, monkeypatch):
    scored = None if at is None else torch.tensor(at)
    targets, negatives = torch.tensor([9, MISSING, 2, 1]), torch.tensor([8, 1, 7, MISSING])
    if at is None:
        targets, negatives = targets[:3], negatives[:3]
    found = []
    for few in (0.0, 2.0):
        monkeypatch.setattr(network_module, "FEW_ITEMS", few)
        network = make(features("image", "text", missing=MISSING))
        loss = network.bpr(pack(ITEM_SEQ, LENGTHS), targets, negatives, scored)
        loss.backward()
        gradients = {name: p.grad for name, p in network.named_parameters()}
        found.append({"loss": loss.detach(), **gradients})
    for name, expected in found[0].items():
        close(found[1][name], expected, name)


def test_bpr_is_the_log_sigmoid_of_the_difference_of_scores():
    network = make(features("text"))
    positive, negative = torch.tensor([1, 2, 3]), torch.tensor([8, 7, 6])
    scores = [network.score_items(ITEM_SEQ, LENGTHS, items) for items in (positive, negative)]
    expected = -torch.log(torch.sigmoid(scores[0] - scores[1])).mean()
    close(network.bpr(pack(ITEM_SEQ, LENGTHS), positive, negative), expected)


def test_one_layer_has_no_residual_and_two_have():
    cu_seqlens = torch.tensor([0, 3], dtype=torch.int32)
    x = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(1))
    for num_layers in (1, 2):
        shared = make(num_layers=num_layers).layers[0].shared
        mixed = shared.mamba(x, cu_seqlens)
        close(shared(x, cu_seqlens, False), shared.norm(mixed + x if num_layers > 1 else mixed))


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_a_size_that_is_no_positive_integer_is_an_error(value):
    for name in ("hidden_size", "num_layers", "d_state", "d_conv", "expand"):
        with pytest.raises(ModelConfigError, match=rf"{name} must be an integer.*found {value!r}"):
            make(**{name: value})


def test_a_dropout_that_is_no_probability_below_one_is_an_error():
    for value in (-0.1, 1, 1.5, float("nan"), "0.5"):
        with pytest.raises(ModelConfigError, match="dropout_prob must be in"):
            make(dropout_prob=value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modality_gradient": "frozn"}, "modality_gradient .*'frozn'. Did you mean frozen"),
        ({"modality_gradient": "share"}, "modality_gradient .*'share'. Did you mean shared"),
        ({"mamba_init": "norml"}, "mamba_init .*'norml'. Did you mean normal"),
    ],
)
def test_a_misspelt_choice_is_an_error_with_the_nearest(settings, message):
    with pytest.raises(ModelConfigError, match=message):
        make(**settings)


def test_an_unknown_scan_backend_is_an_error_at_once():
    with pytest.raises(ScanBackendError, match="'cpuu'. Did you mean cpu"):
        make(scan_backend="cpuu")


def test_features_of_another_catalogue_are_an_error():
    with pytest.raises(ModelConfigError, match="text features have 10 rows, expected 11"):
        M3RecNetwork(N_ITEMS + 1, features("text"))


@pytest.mark.parametrize("name", ["id", "a.b", ""])
def test_a_name_that_no_modality_can_have_is_an_error(name):
    with pytest.raises(ModelConfigError, match="expected a word such as image"):
        M3RecNetwork(N_ITEMS, {name: features("text")["text"]})


def test_features_that_are_not_finite_are_an_error():
    of_items = features("text")
    of_items["text"].values[3, 0] = torch.nan
    with pytest.raises(ModelConfigError, match="text features have values that are not finite"):
        M3RecNetwork(N_ITEMS, of_items)


def test_a_target_for_each_query_or_an_error():
    network, packed, three = make(), pack(ITEM_SEQ, LENGTHS), torch.tensor([1, 2, 3])
    for targets in (torch.tensor([1, 2]), torch.tensor([1, 2, 3, 4])):
        with pytest.raises(ValueError, match=r"an item for each of 3 queries, found \[\d\]"):
            network.cross_entropy(packed, targets)
        with pytest.raises(ValueError, match="an item for each of 3 queries"):
            network.bpr(packed, three, targets)
    with pytest.raises(ValueError, match="an item for each of 2 queries"):
        network.cross_entropy(packed, three, torch.tensor([0, 1]))


def test_features_are_in_no_checkpoint_and_untouched_by_initialisation():
    of_items = features("text", missing=MISSING)
    network = make(of_items)
    state = network.state_dict()
    assert not [name for name in state if "features" in name or "is_missing" in name]
    assert torch.equal(
        network.content["text"].features, features("text", missing=MISSING)["text"].values
    )
    assert "features" not in dict(network.named_parameters())


def test_a_checkpoint_loads_where_the_features_are_the_same():
    trained, fresh = make(features("text")), make(features("text"))
    with torch.no_grad():
        trained.item_embedding.weight.add_(1)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.query(ITEM_SEQ, LENGTHS), trained.query(ITEM_SEQ, LENGTHS))


def test_a_checkpoint_of_other_features_is_refused():
    state = make(features("text")).state_dict()
    other = features("text")["text"]
    other = ItemFeatures("text", other.values, other.present, "something else", "text")
    with pytest.raises(FeatureMismatchError, match="trained on other text features"):
        make({"text": other}).load_state_dict(state)


@pytest.mark.parametrize("names", [(), ("image",), ("text", "image")])
def test_a_checkpoint_of_other_modalities_is_refused(names):
    state = make(features("image", "text")).state_dict()
    with pytest.raises(FeatureMismatchError, match="content modalities"):
        make(features(*names)).load_state_dict(state)
