"""Evaluation in blocks gives RecBole's metrics, to the last bit, without RecBole's matrix."""

import functools

import numpy as np
import pytest
import torch
from recbole.evaluator import Collector, Evaluator

from recbole_m3rec.evaluator import block_evaluation, pipeline, ranking
from recbole_m3rec.evaluator.block_evaluation import Products, collect_ranks, offers_products
from recbole_m3rec.evaluator.nan_checks import NotANumberError
from recbole_m3rec.model.m3rec import M3Rec, PackedRecommender
from tests.tiny import TWO_MODALITIES

METRICS = ["Hit", "MRR", "MAP", "Recall", "NDCG", "Precision", "GAUC"]
OF_LISTS = ["ItemCoverage", "AveragePopularity", "ShannonEntropy", "GiniIndex", "TailPercentage"]
UNROUNDED = {"metric_decimal_place": 30}


@pytest.fixture
def training(new_trainer):
    """Return a function that gives (trainer, train, valid, test) of a model that has not learned.

    Every metric of RecBole's that ranks is configured, unrounded.
    """

    def start(model="M3Rec", **keys):
        keys = {"metrics": METRICS + OF_LISTS, **UNROUNDED, **keys}
        if model == "M3Rec":
            keys = {**TWO_MODALITIES, **keys}
        trainer, train, valid, test = new_trainer(model, **keys)
        with torch.no_grad():
            for weight in trainer.model.parameters():  # scores well apart
                weight.add_(torch.randn_like(weight) * 0.1)
        trainer.eval_collector.data_collect(train)
        return trainer, train, valid, test

    return start


@pytest.fixture
def recboles_own(monkeypatch):
    """Return a function that evaluates with RecBole's matrix."""

    def evaluate(trainer, data):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "offers_products", lambda model: False)
            return trainer.evaluate(data, load_best_model=False)

    return evaluate


@pytest.fixture
def forbid_the_matrix(monkeypatch):
    """Make M3Rec fail where it is asked for all scores of a batch."""

    def forbidden(self, interaction):
        raise AssertionError("the matrix of scores was made")

    monkeypatch.setattr(PackedRecommender, "full_sort_predict", forbidden)


def collected(config, scores, positive_u, positive_i, batches, counts):
    """Metrics of RecBole's collector and of ours for the same scores, the former masked."""
    results = []
    for ours in (False, True):
        collector, evaluator = Collector(config), Evaluator(config)
        collector.data_struct.set("data.num_items", scores.shape[1])
        collector.data_struct.set("data.count_items", counts)
        for rows in torch.arange(len(scores)).chunk(batches):
            chosen = (positive_u >= rows[0]) & (positive_u <= rows[-1])
            positives = positive_u[chosen] - rows[0], positive_i[chosen]
            batch = scores[rows].clone()
            if ours:
                collect_ranks(collector, Products(batch, torch.eye(scores.shape[1])), *positives)
            else:
                batch[:, 0] = -np.inf
                collector.eval_batch_collect(batch, None, *positives)
        results.append(dict(evaluator.evaluate(collector.get_data_struct())))
    return results


@pytest.mark.parametrize("topk", [[1], [3, 5, 10], [37, 2]])
@pytest.mark.parametrize("positives", ["one each", "many", "some without"])
@pytest.mark.parametrize(("largest", "seed"), [(None, 0), (50, 1)])
def test_every_ranking_metric_equals_recboles_to_the_bit(
    make_config, monkeypatch, topk, positives, largest, seed
):
    if largest:
        blocks = functools.partial(ranking.rank_targets, largest_block=largest)
        monkeypatch.setattr(block_evaluation, "rank_targets", blocks)
    keys = {"metrics": METRICS + OF_LISTS, "topk": topk, "valid_metric": f"Hit@{topk[0]}"}
    config = make_config("BPR", **keys, **UNROUNDED)
    random = np.random.default_rng(seed)
    n_users, n_items = 41, 37
    scores = np.stack([random.permutation(n_items) for _ in range(n_users)])
    counts = {int(item): int(random.integers(1, 9)) for item in range(1, n_items)}
    if positives == "one each":
        pairs = [(user, random.integers(1, n_items)) for user in range(n_users)]
    else:
        fewest = 1 if positives == "many" else 0
        pairs = [
            (user, item)
            for user in range(n_users)
            for item in random.integers(1, n_items, random.integers(fewest, 20))  # also twice
        ]
    positive_u, positive_i = torch.tensor(np.array(pairs)).T
    if positives == "some without":  # Recall and NDCG divide by the number of positives
        config["metrics"] = ["Hit", "MRR", "Precision", "GAUC"]
    recboles, ours = collected(
        config, torch.tensor(scores).float(), positive_u, positive_i, 3, counts
    )
    assert ours == recboles
    assert len(ours) >= len(config["metrics"])


def test_tied_scores_go_to_the_lower_id(make_config):
    config = make_config("BPR", metrics=["Hit", "MRR", "ItemCoverage"], topk=[1, 2, 3])
    scores = torch.tensor([[5.0, 1, 2, 2, 2, 0]] * 3)
    _, ours = collected(config, scores, torch.arange(3), torch.tensor([2, 2, 3]), 1, {})
    assert [ours[f"hit@{k}"] for k in (1, 2, 3)] == pytest.approx([2 / 3, 1, 1], abs=1e-4)
    assert ours["mrr@3"] == pytest.approx((1 + 1 + 1 / 2) / 3, abs=1e-4)
    assert ours["itemcoverage@1"] == pytest.approx(1 / 5, abs=1e-4)  # item 2 of five


def test_tied_scores_share_their_mean_rank_in_gauc_as_in_recbole(make_config):
    config = make_config("BPR", metrics=["GAUC"], valid_metric="GAUC", **UNROUNDED)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(4, (50, 30), generator=generator).float()
    positive_u = torch.arange(50).repeat_interleave(3)
    positive_i = torch.rand(50, 29, generator=generator).argsort(1)[:, :3].flatten() + 1
    recboles, ours = collected(config, scores, positive_u, positive_i, 2, {})
    assert ours == recboles


@pytest.mark.parametrize(
    ("model", "eval_batch_size", "split"),
    [
        ("M3Rec", 5, {"LS": "valid_and_test"}),
        ("M3Rec", 4096, {"RS": [0.5, 0.2, 0.3]}),
        ("Mamba4Rec", 5, {"RS": [0.5, 0.2, 0.3]}),
    ],
)
def test_a_models_metrics_equal_recboles(training, recboles_own, model, eval_batch_size, split):
    eval_args = {"split": split, "order": "TO", "group_by": "user", "mode": "full"}
    keys = {"eval_batch_size": eval_batch_size, "eval_args": eval_args, "topk": [1, 4, 12]}
    trainer, _, valid, test = training(model, **keys)
    for data in (valid, test):
        expected = recboles_own(trainer, data)
        assert trainer.evaluate(data, load_best_model=False) == expected
        assert 0 < expected["ndcg@12"] < 1


@pytest.mark.usefixtures("forbid_the_matrix")
def test_the_matrix_of_scores_is_never_made(training):
    trainer, train, valid, test = training(epochs=2)
    trainer.fit(train, valid)
    assert trainer.evaluate(test)["hit@5"] >= 0


def test_the_table_is_made_once_a_pass_and_dropped_after_it(training, monkeypatch):
    trainer, _, valid, _ = training(eval_batch_size=3)
    made = []
    original = trainer.model.network.item_vectors

    def counted():
        made.append("all")
        return original()

    monkeypatch.setattr(trainer.model._items, "_compute", counted)
    assert len(valid) > 2
    for passes in (1, 2):
        trainer.evaluate(valid, load_best_model=False)
        assert made == ["all"] * passes
        assert trainer.model._items._value is None


def test_an_update_between_two_passes_is_seen(training, recboles_own):
    trainer, _, valid, _ = training()
    before = trainer.evaluate(valid, load_best_model=False)
    with torch.no_grad():
        for weight in trainer.model.network.content.parameters():
            weight.mul_(-2)
        trainer.model.network.item_embedding.weight.mul_(-1)
    after = trainer.evaluate(valid, load_best_model=False)
    assert after != before
    assert after == recboles_own(trainer, valid)


def test_the_table_is_that_of_the_checkpoint_read_at_the_start_of_a_pass(training):
    trainer, train, valid, test = training(epochs=1)
    trainer.fit(train, valid)
    of_checkpoint = trainer.evaluate(test)
    with torch.no_grad():
        trainer.model.network.item_embedding.weight.normal_()
    assert trainer.evaluate(test, load_best_model=False) != of_checkpoint
    with torch.no_grad():
        trainer.model.network.item_embedding.weight.normal_()
    assert trainer.evaluate(test) == of_checkpoint


@pytest.mark.parametrize("where", ["an item", "a history"])
def test_nan_scores_stop_evaluation_with_the_message_of_the_guard(
    training, recboles_own, where, monkeypatch
):
    trainer, _, valid, _ = training(eval_batch_size=5, modalities=[])
    if where == "an item":
        with torch.no_grad():
            trainer.model.network.item_embedding.weight[7] = torch.nan
    else:
        queries = M3Rec.queries

        def spoiled(self, interaction):
            found = queries(self, interaction)
            found[interaction["user_id"] == 6, 0] = torch.nan
            return found

        monkeypatch.setattr(M3Rec, "queries", spoiled)
    messages = []
    for evaluate in (recboles_own, lambda *args: args[0].evaluate(args[1], load_best_model=False)):
        with pytest.raises(NotANumberError, match="rows of scores of M3Rec hold NaN") as error:
            evaluate(trainer, valid)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("need", ["rec.score", "data.label", "rec.something_new"])
def test_metrics_that_need_more_than_ranks_get_recboles_collector(training, need, monkeypatch):
    trainer, _, valid, _ = training()
    seen = []
    setattr(trainer.eval_collector.register, need, True)
    monkeypatch.setattr(trainer.evaluator, "evaluate", lambda struct: {})
    collector = trainer.eval_collector
    monkeypatch.setattr(collector, "eval_batch_collect", lambda scores, *rest: seen.append(scores))
    trainer.evaluate(valid, load_best_model=False)
    assert seen[0].shape == (12, 13)
    assert (seen[0][:, 0] == -np.inf).all()


def test_a_masked_history_scores_in_blocks_as_in_recboles_matrix(training, recboles_own):
    trainer, _, valid, _ = training(mask_seen=True)
    assert trainer.evaluate(valid, load_best_model=False) == recboles_own(trainer, valid)
    _, scores, _, _ = trainer._full_sort_batch_eval(next(iter(valid)))
    assert len(scores.seen[0]) > 0


def test_a_model_that_scores_in_a_way_of_its_own_is_believed(training, monkeypatch):
    class Reversed(M3Rec):
        def full_sort_predict(self, interaction):
            return -super().full_sort_predict(interaction)

    class Doubled(Reversed):
        def queries(self, interaction):
            return 2 * super().queries(interaction)

    trainer, _, valid, _ = training()
    model = trainer.model
    assert offers_products(model)
    straight = trainer.evaluate(valid, load_best_model=False)
    model.__class__ = Reversed
    assert not offers_products(model)
    assert trainer.evaluate(valid, load_best_model=False) != straight
    model.__class__ = Doubled  # overrides what the scores are made of, so that it vouches for them
    assert offers_products(model)
    model.__class__ = M3Rec
    monkeypatch.setattr(model, "full_sort_predict", lambda interaction: None)
    assert not offers_products(model)


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_recboles_own_models_are_left_alone(training, model, monkeypatch):
    trainer, _, valid, _ = training(model)
    assert not offers_products(trainer.model)
    monkeypatch.setattr(pipeline, "collect_ranks", lambda *args: pytest.fail("in blocks"))
    trainer.evaluate(valid, load_best_model=False)


def test_a_table_of_another_length_is_an_error(training, monkeypatch):
    trainer, _, valid, _ = training()
    table = M3Rec.item_table
    monkeypatch.setattr(M3Rec, "item_table", lambda self: table(self)[:-1])
    with pytest.raises(ValueError, match=r"item_table\(\) of M3Rec has 12 rows, expected .* 13"):
        trainer.evaluate(valid, load_best_model=False)


def test_long_batches_are_encoded_piece_by_piece_with_the_same_result(training, monkeypatch):
    from recbole_m3rec.model import m3rec

    trainer, _, valid, _ = training()
    model, batch = trainer.model.eval(), next(iter(valid))[0]
    whole = model.queries(batch)
    monkeypatch.setitem(m3rec.ENCODED_AT_ONCE, "cpu", 7)
    torch.testing.assert_close(model.queries(batch), whole, rtol=1e-5, atol=1e-6)
    assert len(whole) == len(batch)
