"""Recommendations for every user, from a checkpoint to a file."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_m3rec.evaluator import ranking
from recbole_m3rec.quick_start import recommend


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("model", ["SASRec", "BPR", "Pop", "GRU4Rec"])
def test_recommendations_hold_every_user_and_nothing_seen(call, trained, tiny_interactions, model):
    code, _, error = call("--topk", str(trained(model)), "--output", "top.csv", "--k", "3")
    assert code == 0, error
    rows = read_csv("top.csv")
    assert list(rows[0]) == ["user", "rank", "item", "score"]
    seen = {(user, item) for user, item, _ in tiny_interactions}
    assert not seen & {(row["user"], row["item"]) for row in rows}
    by_user = {}
    for row in rows:
        by_user.setdefault(row["user"], []).append(row)
    assert set(by_user) == {user for user, _ in seen}
    for its in by_user.values():
        assert [row["rank"] for row in its] == ["1", "2", "3"]
        assert sorted(its, key=lambda row: -float(row["score"])) == its
    assert [path.name for path in Path().iterdir() if "top.csv" in path.name] == ["top.csv"]


def test_only_recommendations_are_replaced(call, trained):
    checkpoint = trained("SASRec")
    before = checkpoint.read_bytes()
    code, _, error = call("--topk", str(checkpoint), "--output", str(checkpoint))
    assert code == 2
    assert f"{checkpoint} exists and is no file of recommendations" in error
    assert checkpoint.read_bytes() == before
    Path("top.csv").touch()
    for _ in range(2):  # what is empty, and then its own
        assert call("--topk", str(checkpoint), "--output", "top.csv")[0] == 0


def test_recommendations_follow_the_whole_history(call, trained, tiny_interactions):
    """The scores are the model's own for the latest five items, test item included."""
    from recbole.quick_start import load_data_and_model

    checkpoint = trained("SASRec")
    call("--topk", str(checkpoint), "--output", "top.csv", "--k=12", "--keep_seen")
    written = {(row["user"], row["item"]): row["score"] for row in read_csv("top.csv")}
    _, model, dataset, *_ = load_data_and_model(str(checkpoint))
    model.eval()
    history = [item for user, item, _ in tiny_interactions if user == "u03"][-5:]
    ids = dataset.token2id(dataset.iid_field, history)
    question = {
        "item_id_list": torch.from_numpy(np.asarray(ids))[None],
        "item_length": torch.tensor([5]),
    }
    scores = model.full_sort_predict(question)[0]
    for item in dataset.field2id_token[dataset.iid_field][1:]:
        score = scores[dataset.token2id(dataset.iid_field, item)].item()
        assert float(written["u03", item]) == pytest.approx(score, rel=1e-4, abs=1e-5)


def test_batches_of_users_do_not_change_recommendations(call, trained):
    checkpoint = str(trained("SASRec"))
    call("--topk", checkpoint, "--output", "one.csv", "--eval_batch_size=5")
    call("--topk", checkpoint, "--output", "two.csv", "--eval_batch_size=4096")
    one, two = read_csv("one.csv"), read_csv("two.csv")
    assert [(row["user"], row["item"]) for row in one] == [
        (row["user"], row["item"]) for row in two
    ]


@pytest.mark.parametrize("options", [[], ["--keep_seen"]], ids=["unseen", "all"])
def test_blocks_of_a_large_catalogue_give_the_same_recommendations(
    call, trained, options, monkeypatch
):
    checkpoint = str(trained("Mamba4Rec"))
    monkeypatch.setattr(recommend, "FEWEST_USERS", 0)
    call("--topk", checkpoint, "--output", "one.csv", "--k=5", *options)
    calls = []

    def watched(*args, **keys):
        calls.append(len(args[0]))
        return ranking.top_items(*args, **keys, largest_block=28)

    monkeypatch.setattr(recommend, "FEWEST_USERS", 2**60)
    monkeypatch.setattr(recommend, "USERS_IN_BLOCKS", 7)
    monkeypatch.setattr(recommend, "top_items", watched)
    call("--topk", checkpoint, "--output", "two.csv", "--k=5", *options)
    one, two = read_csv("one.csv"), read_csv("two.csv")
    assert max(calls) == 7
    assert len(one) == len(two) > 0
    for first, second in zip(one, two, strict=True):
        assert [first[c] for c in ("user", "rank", "item")] == [
            second[c] for c in ("user", "rank", "item")
        ]
        assert float(first["score"]) == pytest.approx(float(second["score"]), rel=1e-4, abs=1e-6)


def test_a_file_that_the_shell_has_opened_for_output_is_not_replaced_and_may_hold_anything(
    tmp_path,
):
    with open(tmp_path / "all.txt", "a", encoding="utf-8") as file:
        print("a line before", file=file, flush=True)
        recommend.refuse_to_replace(Path(f"/dev/fd/{file.fileno()}"))


@pytest.mark.parametrize("kind", ["pipe", "full device", "folder"])
def test_what_is_no_file_is_written_into_or_refused(call, trained, kind):
    checkpoint = str(trained("Pop"))
    if kind == "pipe":
        os.mkfifo("out.csv")
        reader = os.open("out.csv", os.O_RDONLY | os.O_NONBLOCK)  # 100 rows fit into a pipe
        code, said, error = call("--topk", checkpoint, "--output", "out.csv", "--k=2")
        assert code == 0, error
        assert not said  # for the pipe may be what is printed
        assert os.read(reader, 1 << 20).startswith(b"user,rank,item,score")
        os.close(reader)
        assert Path("out.csv").is_fifo()
    elif kind == "full device":
        code, _, error = call("--topk", checkpoint, "--output", "/dev/full")
        assert code == 2
        assert error.startswith("error: cannot write /dev/full: No space left")
        assert Path("/dev/full").is_char_device()
    else:
        Path("out.csv").mkdir()
        code, _, error = call("--topk", checkpoint, "--output", "out.csv")
        assert (code, error) == (2, "error: cannot write out.csv: it is a folder. Name a file")


def test_a_failed_writing_leaves_the_old_file(call, trained, monkeypatch):
    def full_disk(*args):
        yield [("u00", 1, "i00", "0.5")]
        raise OSError(28, "No space left on device")

    old = "user,rank,item,score\nold"
    Path("top.csv").write_text(old, encoding="utf-8")
    checkpoint = trained("SASRec")
    monkeypatch.setattr(recommend, "recommend", full_disk)
    code, _, error = call("--topk", str(checkpoint), "--output", "top.csv")
    assert code == 2
    assert "No space left" in error
    assert Path("top.csv").read_text(encoding="utf-8") == old
    assert [path.name for path in Path().iterdir() if "top.csv" in path.name] == ["top.csv"]


def test_latest_rows_are_padded_on_the_right_and_in_the_order_of_the_dataset():
    import pandas as pd

    table = pd.DataFrame({"user": [2, 2, 1, 2], "item": [7, 5, 6, 8], "time": [1.0, 0.0, 1.0, 2.0]})

    class Fields:
        uid_field, iid_field, time_field = "user", "item", "time"

    histories = recommend.Histories(table, Fields)
    assert histories.rows["item"].tolist() == [6, 7, 5, 8]
    rows, lengths = histories.latest(slice(0, 2), 2)
    assert rows.tolist() == [[0, -1], [2, 3]]
    assert lengths.tolist() == [1, 2]
    assert [part.tolist() for part in histories.seen(slice(1, 2))] == [[0, 0, 0], [7, 5, 8]]
