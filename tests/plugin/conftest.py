"""What the tests of the command line share: its call, and a model trained by it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_m3rec.plugin import command_line


@pytest.fixture
def small_arguments() -> list[str]:
    """Arguments under which a model trains on the tiny dataset in a moment."""
    return [
        "--dataset=tiny",
        "--hidden_size=8",
        "--embedding_size=8",
        "--inner_size=8",
        "--train_batch_size=32",
        "--MAX_ITEM_LIST_LENGTH=5",
        "--topk=[3,5]",
        "--valid_metric=NDCG@5",
        "--show_progress=False",
        "--gpu_id=",
        "--hidden_dropout_prob=0.0",
        "--attn_dropout_prob=0.0",
    ]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return ``call(*arguments)``: exit code, standard output, last line of standard error."""

    def run(*given: str) -> tuple[int, str, str]:
        root = logging.getLogger()
        for handler in root.handlers[:]:
            if isinstance(handler, logging.FileHandler):
                root.removeHandler(handler)  # RecBole sets its log file up once a process
        code = command_line.main(given)
        captured = capsys.readouterr()
        return code, captured.out, (captured.err.splitlines() or [""])[-1]

    return run


@pytest.fixture
def trained(
    call: Callable[..., tuple[int, str, str]],
    write_dataset: Callable[..., Path],
    small_arguments: list[str],
) -> Callable[[str], Path]:
    """Return ``train(model)``, which trains one epoch on the tiny dataset: the checkpoint."""

    def train(model: str) -> Path:
        write_dataset()
        code, _, error = call(f"--model={model}", "--epochs=1", *small_arguments)
        assert code == 0, error
        return next(Path("saved").glob(f"{model}-*.pth"))

    return train
