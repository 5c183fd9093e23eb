"""The command line from its arguments to its files, on the tiny dataset."""

import errno
import re
import sys
from pathlib import Path

import pytest
import torch

from recbole_m3rec.cli import train
from recbole_m3rec.quick_start import resuming
from recbole_m3rec.support import exit_codes
from tests.tiny import metrics_in


def test_training_prints_metrics_checkpoint_and_log(call, write_dataset, small_arguments):
    write_dataset()
    code, out, _ = call("--model=SASRec", "--epochs=1", *small_arguments)
    assert code == 0
    assert list(metrics_in(out)) == [f"{m}@{k}" for m in ("hit", "ndcg", "mrr") for k in (3, 5)]
    assert all(len(values) == 2 for values in metrics_in(out).values())
    checkpoint = next(line for line in out.splitlines() if line.startswith("checkpoint: "))
    assert Path(checkpoint.removeprefix("checkpoint: ")).is_file()


def test_config_files_are_read_in_order_with_spaces_and_commas(call, write_dataset, monkeypatch):
    seen = {}
    monkeypatch.setattr("recbole.quick_start.run", lambda *a, **k: seen.update(k))
    for name in ("a.yaml", "b.yaml", "c c.yaml"):
        Path(name).write_text("model: SASRec\ndataset: tiny\n", encoding="utf-8")
    assert call("--config_files", "a.yaml,b.yaml", "c c.yaml")[0] == 0
    assert seen["config_file_list"] == ["a.yaml", "b.yaml", "c c.yaml"]
    assert call("--config_files=a.yaml b.yaml", "--epochs=2")[0] == 0
    assert seen["config_file_list"] == ["a.yaml", "b.yaml"]


def test_options_of_several_processes_reach_recbole(call, monkeypatch):
    seen = {}
    monkeypatch.setattr("recbole.quick_start.run", lambda *a, **k: seen.update(k, names=a))
    options = ["--nproc=2", "--ip=192.0.2.1", "--port=1234", "--world_size=4", "--group_offset=2"]
    assert call("--model=M3Rec", "--dataset=tiny", *options)[0] == 0
    assert seen["names"] == ("M3Rec", "tiny")
    assert {key: seen[key] for key in ("nproc", "ip", "port", "world_size", "group_offset")} == {
        "nproc": 2, "ip": "192.0.2.1", "port": "1234", "world_size": 4, "group_offset": 2,
    }  # fmt: skip


def test_recbole_sees_settings_only_and_the_command_line_is_given_back(call, monkeypatch):
    seen = []
    monkeypatch.setattr("recbole.quick_start.run", lambda *a, **k: seen.append(sys.argv))
    assert call("--model=SASRec", "--dataset=tiny", "--epochs=3", "--topk=[5, 10]")[0] == 0
    assert seen == [["pytest", "--epochs=3", "--topk=[5, 10]"]]
    assert sys.argv == ["pytest"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--epochs", "3"], "--epochs=3"),
        (["--epochs"], "--epochs=VALUE"),
        (["word"], "'word' is no setting"),
        (["-e=3"], "'-e=3' is no setting"),
        (["--path=a=b"], "path: a=b"),
        (["--epochs=1", "--epochs=2"], "--epochs is given twice, as 1 and as 2"),
        (["--evalute", "x.pth"], "--evaluate?"),
        (["--config_file=x.yaml"], "--config_files?"),
        (["--config_files=x.yaml"], "x.yaml, which is no file"),
        (["--config_files="], "--config_files names no file"),
        (["--output=x.csv"], "belongs to --topk"),
        (["--keep_seen"], "belongs to --topk"),
        (["--page_port=1"], "--page_port belongs to --show CHECKPOINT"),
        (
            ["--evaluate", "x.pth", "--output=y"],
            "--output belongs to --topk or --export CHECKPOINT",
        ),
        (["--topk=x.pth", "--output=y", "--images=z"], "--images belongs to --show CHECKPOINT"),
        (["--show=x.pth", "--port", "7409"], "The page's is --page_port"),
        (["--show=x.pth", "--k=3"], "--k belongs to --topk CHECKPOINT"),
        (["--topk", "[5,10]"], "--topk=[5,10]"),
        (["--topk", "x.pth"], "needs --output"),
        (["--topk=x.pth", "--output=x.csv", "--k=0"], "at least 1"),
        (["--topk=x.pth", "--output=no/x.csv"], "no such folder"),
        (["--topk=x.pth", "--output=x.csv", "--d_state=8"], "--d_state cannot be changed"),
        (["--topk=x.pth", "--output=x.csv", "--mask_seen=True"], "--mask_seen cannot be changed"),
        (["--topk=x.pth", "--output=x.csv", "--topk=[5]"], "--topk cannot be changed"),
        (["--evaluate=x.pth", "--valid_metric=Hit@5"], "--valid_metric cannot be changed"),
        (["--evaluate=x.pth", "--nproc=2"], "one process"),
        (["--evaluate=x.pth", "--resume=x.pth"], "not allowed with"),
        (["--resume=x.pth"], "no checkpoint x.pth"),
        (["--nproc=two"], "--nproc"),
        (["--model=SASRec"], "No dataset is named"),
        (["--dataset=tiny"], "No model is named"),
        (["--model=SASRex", "--dataset=tiny"], "SASRec"),
        (["--model=SASRec", "--dataset=tiny", "--metrics=Hits"], "no metric named 'Hits'"),
        (["--model=SASRec", "--dataset=ml-100k", "--nproc=0"], "--nproc must be an integer from 1"),
        (["--model=M3Rec", "--dataset=ml-100k", "--nproc=2", "--port=99999"], "1 to 65535"),
        (["--model=SASRec", "--dataset=ml-100kk"], "no dataset `ml-100kk`"),
        (["--model=SASRec", "--dataset=../x"], "cannot name a dataset"),
        (["--model=SASRec", "--dataset=ml-100k", "--hiden_size=8"], "`hidden_size`"),
        (["--model=SASRec", "--dataset=ml-100k", "--foo=exit(7)"], "Unknown configuration key"),
        (["--model=SASRec", "--dataset=ml-100k", "--topk=[-1]"], "topk must be an integer >= 1"),
        (["--topk=[-1]"], "No model is named"),
        (["--topk", "[-1]"], "names no checkpoint"),
        (["--topk", "10.5"], "written --topk=10.5"),
        (["--verbose", "--verbose=False"], "--verbose is given twice, as False and as True"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(call, given, expected):
    code, out, error = call(*given)
    assert code == 2
    assert error.startswith("error: ")
    assert expected in error
    assert out == ""


def test_what_runs_in_one_process_refuses_torchrun(call, monkeypatch, tmp_path):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name, value in zip(names, ("0", "0", "2", "localhost", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    says = "--evaluate, --topk, --export and --show run in one process; leave out torchrun."
    for deed in ("evaluate", "topk", "export", "show"):
        output = [f"--output={tmp_path}/x"] if deed in ("topk", "export") else []
        code, out, error = call(f"--{deed}=x.pth", *output)
        assert (code, out) == (2, "")
        assert says in error
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "no checkpoint x.pth" in call("--evaluate=x.pth")[2]


def test_a_fault_of_the_program_keeps_its_traceback(call, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("a bug")

    monkeypatch.setattr("recbole.quick_start.run", fail)
    with pytest.raises(ValueError, match="a bug"):
        call("--model=SASRec", "--dataset=tiny")


def test_an_interrupted_run_exits_with_130(call, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("recbole.quick_start.run", interrupt)
    assert call("--model=SASRec", "--dataset=tiny")[0] == 130


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do():
    error = OSError(errno.EROFS, "Read-only file system", "./log")
    assert exit_codes.users_error(error) == (
        "./log: Read-only file system. Run the command in a folder that can be written"
    )
    missing = FileNotFoundError(errno.ENOENT, "No such file", "x.csv")
    assert exit_codes.users_error(missing) == "x.csv: No such file"


def test_a_users_error_in_a_worker_is_one_line_too():
    class ProcessRaisedException(Exception):
        """Named as torch's, which carries a worker's traceback as its text."""

    worker = (
        "\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n"
        '  File "x.py", line 1, in <module>\n'
    )
    ours = "recbole_m3rec.config.data_checks.UnknownNameError: There is no dataset `x`.\n"
    assert exit_codes.users_error(ProcessRaisedException(worker + ours)) == (
        "There is no dataset `x`."
    )
    assert exit_codes.users_error(ProcessRaisedException(worker + "ValueError: bug\n")) is None


def test_help_shows_every_option_and_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for option in ("--model", "--config_files", "--nproc", "--resume", "--topk", "--keep_seen"):
        assert option in shown
    assert "examples:" in shown


def test_evaluating_gives_the_metrics_of_training(call, trained, small_arguments):
    checkpoint = trained("SASRec")
    _, expected, _ = call("--model=SASRec", "--epochs=1", *small_arguments)
    code, out, error = call("--evaluate", str(checkpoint), "--eval_batch_size=7")
    assert code == 0, error
    assert metrics_in(out) == metrics_in(expected)


def test_evaluating_takes_other_metrics_and_lengths(call, trained):
    checkpoint = str(trained("SASRec"))
    code, out, error = call("--evaluate", checkpoint, "--metrics=['Recall']", "--topk=[1,2]")
    assert code == 0, error
    assert list(metrics_in(out)) == ["recall@1", "recall@2"]


def test_resuming_trains_the_epochs_that_are_left(call, trained, monkeypatch):
    from recbole.trainer import Trainer

    checkpoint = trained("SASRec")
    started = []
    original = Trainer._train_epoch

    def watch(self, data, epoch_idx, *args, **kwargs):
        started.append((epoch_idx, self.optimizer.param_groups[0]["lr"]))
        return original(self, data, epoch_idx, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_train_epoch", watch)
    code, out, error = call("--resume", str(checkpoint), "--epochs=3", "--learning_rate=0.01")
    assert code == 0, error
    assert started == [(1, 0.01), (2, 0.01)]
    assert metrics_in(out)["ndcg@5"][1] != "-"
    assert resuming.RESUME_KEY not in torch.load(checkpoint, weights_only=False)["config"]


@pytest.mark.parametrize(("model", "is_said"), [("BPR", True), ("SASRec", False)])
def test_other_workers_are_said_where_they_draw(model, is_said, call, trained, caplog):
    code, _, error = call("--resume", str(trained(model)), "--epochs=2", "--worker=1")
    assert code == 0, error
    assert ("worker (0, now 1): it may end with other numbers" in caplog.text) == is_said


@pytest.mark.parametrize(
    "changed",
    [
        *("--valid_metric=Hit@5", "--mask_seen=True", "--eval_args={'mode': 'uni5'}"),
        *("--learner=sgd", "--train_batch_size=7", "--checkpoint_format=safe", "--seed=9"),
    ],
)
def test_a_run_is_not_resumed_as_another_one(changed, call, trained):
    checkpoint = trained("SASRec")
    before = checkpoint.read_bytes()
    code, _, error = call("--resume", str(checkpoint), "--epochs=3", changed)
    assert code == 2
    key = changed[2:].partition("=")[0]
    assert f"was trained with {key}: " in error
    assert f"Leave --{key} out" in error
    assert checkpoint.read_bytes() == before


def test_a_finished_training_goes_on_to_its_test(call, trained, write_dataset, small_arguments):
    write_dataset()
    _, expected, _ = call("--model=SASRec", "--epochs=1", *small_arguments)
    [last] = Path("saved").glob("*-last.ckpt")
    before = last.read_bytes()
    code, out, error = call("--resume", str(last))
    assert code == 0, error
    assert metrics_in(out) == metrics_in(expected)
    assert last.read_bytes() == before
    assert "epochs must be an integer" in call("--resume", str(last), "--epochs=many")[2]


def test_a_finished_training_without_random_states_is_not_resumed(call, trained):
    checkpoint = trained("SASRec")
    content = torch.load(checkpoint, weights_only=False)
    del content["progress"]
    torch.save(content, checkpoint)
    code, _, error = call("--resume", str(checkpoint))
    assert code == 2
    assert "--epochs=101" in error


def test_a_checkpoint_that_does_not_fit_is_a_users_error(call, trained):
    checkpoint = str(trained("SASRec"))
    content = torch.load(checkpoint, weights_only=False)
    content["state_dict"]["item_embedding.weight"] = torch.zeros(3, 8)
    torch.save(content, "other.pth")
    code, _, error = call("--resume", "other.pth", "--epochs=2")
    assert code == 2
    assert "does not fit" in error
    code, _, error = call("--evaluate", checkpoint, "--model=GRU4Rec")
    assert code == 2
    assert "of model SASRec, not GRU4Rec" in error


@pytest.mark.parametrize("deed", [["--evaluate"], ["--resume"], ["--output=x.csv", "--topk"]])
def test_what_is_there_instead_of_a_checkpoint_is_told(deed, call):
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    assert "folder is a folder, expected a checkpoint" in call(*deed, "folder")[2]
    assert "loop is a link that leads nowhere" in call(*deed, "loop")[2]
    assert "There is no checkpoint x.pth" in call(*deed, "x.pth")[2]


def test_a_file_that_is_no_checkpoint_is_a_users_error(call):
    Path("x.pth").write_bytes(b"nothing")
    code, _, error = call("--evaluate", "x.pth")
    assert code == 2
    assert "x.pth is no whole checkpoint" in error
    torch.save(torch.zeros(2), "tensor.pth")
    assert (
        "tensor.pth is no whole checkpoint of RecBole (TypeError: it holds a Tensor"
        in call("--evaluate", "tensor.pth")[2]
    )
    torch.save({"state_dict": {}}, "y.pth")
    assert "y.pth is no whole checkpoint" in call("--evaluate", "y.pth")[2]
    torch.save({"config": {"model": "M3Rec", "dataset": "tiny"}, "epoch": 1}, "z.pth")
    assert "z.pth is no whole checkpoint" in call("--evaluate", "z.pth")[2]


@pytest.mark.parametrize("form", ["recbole", "safe"])
def test_a_cut_checkpoint_is_one_line(form, call, write_dataset, small_arguments):
    write_dataset()
    own = [*small_arguments, f"--checkpoint_format={form}"]
    assert call("--model=SASRec", "--epochs=1", *own)[0] == 0
    [whole] = (path for path in Path("saved").iterdir() if not path.name.endswith("-last.ckpt"))
    content = whole.read_bytes()
    for percent in (0, 1, 10, 50, 90, 99):
        Path("cut").write_bytes(content[: len(content) * percent // 100])
        for deed in (
            ["--evaluate", "cut"],
            ["--topk", "cut", "--output", "o.csv"],
            ["--resume", "cut"],
        ):
            code, _, error = call(*deed)
            assert code == 2
            assert "cut is cut off or damaged" in error


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--numerical_features=[nope]", "RecBole refuses the data or a setting of them: .*nope"),
        ("--threshold={'nope': 3}", "RecBole refuses the data or a setting of them: .*nope"),
        ("--encoding=klingon", "encoding: 'klingon' is unknown, expected one such as utf-8"),
        ("--learner=sparse_adam", "sparse_adam moves tables with sparse gradients .* BPR has o"),
    ],
)
def test_a_setting_that_fits_no_data_is_one_line(argument, says, call, write_dataset):
    write_dataset()
    lists = ["--topk=[5]", "--valid_metric=Hit@5"]
    code, _, error = call("--model=BPR", "--dataset=tiny", "--data_path=dataset", *lists, argument)
    assert code == 2
    assert re.search(says, error)


def test_users_who_know_every_item_are_one_line(call, write_dataset):
    write_dataset(interactions=[(u, i, n) for u in "abc" for n, i in enumerate("vwxyz")])
    keys = ["--topk=[1]", "--valid_metric=Hit@1", "--user_inter_num_interval=[0,inf)"]
    keys += ["--item_inter_num_interval=[0,inf)", "--data_path=dataset"]
    code, _, error = call("--model=BPR", "--dataset=tiny", *keys)
    assert code == 2
    assert "Some users have interacted with all items" in error
