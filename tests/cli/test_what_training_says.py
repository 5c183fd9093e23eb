"""What the command line says of a training and of what may come next."""

import shlex
import socket
from pathlib import Path

import pytest

from recbole_m3rec.cli import compare


def test_the_comparison_named_next_has_the_settings_of_data_and_metrics(
    call, write_dataset, small_arguments
):
    write_dataset()
    Path("mine.yaml").write_text("user_inter_num_interval: '[1,inf)'\n", encoding="utf-8")
    Path("of one model.yaml").write_text("embedding_size: 4\n", encoding="utf-8")
    given = ["--item_inter_num_interval=[2,inf)", "--config_files", "of one model.yaml"]
    given += ["--config_files", "mine.yaml"]
    _, out, _ = call("--model=BPR", "--epochs=1", *small_arguments, *given)
    command = shlex.split(out.splitlines()[-1])
    assert command[1:4] == ["compare", "--models", "BPR,M3Rec,SASRec,GRU4Rec"]
    options, settings = compare.parse([*command[2:], "--models=BPR"])
    assert options.datasets == ["tiny"]
    assert settings["user_inter_num_interval"] == "[1,inf)"
    assert settings["item_inter_num_interval"] == "[2,inf)"
    assert {"topk", "valid_metric"} <= settings.keys()
    assert not {"epochs", "embedding_size"} & settings.keys()
    assert "of one model.yaml" not in command
    [last] = Path("saved").glob("*-last.ckpt")
    assert " compare " not in call("--resume", str(last))[1]  # whose settings it would lack
    again = call("--resume", "--model=BPR", "--epochs=1", *small_arguments, *given)[1]
    assert shlex.split(again.splitlines()[-1]) == command


def test_a_port_that_is_taken_is_told_with_the_option_of_show(call):
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, error = call("--show=x.pth", f"--page_port={taken.getsockname()[1]}")
    assert (code, "Name another --page_port; 0 takes a free one" in error) == (2, True)


@pytest.mark.parametrize("n_purchases", [3, 8])
def test_a_training_that_nothing_validates_is_warned_of(
    n_purchases, call, write_dataset, tiny_interactions, small_arguments, caplog
):
    write_dataset(interactions=[row for row in tiny_interactions if row[2] % 100 < n_purchases])
    given = ["--user_inter_num_interval=[0,inf)", "--item_inter_num_interval=[0,inf)"]
    assert call("--model=SASRec", "--epochs=1", *small_arguments, *given)[0] == 0
    assert caplog.text.count("No interaction validates") == int(n_purchases == 3)
