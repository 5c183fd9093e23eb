"""A full disk ends TensorBoard's files with one line, and nothing else."""

import logging
import threading
from types import SimpleNamespace

from recbole_m3rec.patches.full_disk import WhileThereIsRoom, leave_out_tensorboard


class Full:
    log_dir = "somewhere"

    def add_scalar(self, *args):
        raise OSError(28, "No space left on device")


def test_the_writer_ends_once_and_stays_silent(caplog):
    writer = WhileThereIsRoom(Full())
    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            assert writer.add_scalar("loss", 1.0, epoch) is None
    [line] = [record.message for record in caplog.records]
    assert "somewhere: No space left on device" in line


def test_without_room_at_the_start_there_is_no_writer(monkeypatch, caplog, tmp_path):
    from recbole.trainer import trainer as trainers
    from recbole.utils import utils

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(utils, "SummaryWriter", full)
    with caplog.at_level(logging.WARNING):
        writer = trainers.get_tensorboard(logging.getLogger())
        writer.add_scalar("loss", 1.0, 0)
        writer.close()
    [line] = [record.message for record in caplog.records]
    assert "log_tensorboard: No space left on device" in line


def test_only_tensorboards_thread_fails_without_a_traceback():
    its = type("Thread", (threading.Thread,), {"__module__": "tensorboard.summary.writer"})()
    shown = []
    for thread in (its, threading.Thread()):
        failed = SimpleNamespace(thread=thread, exc_value=OSError(28, "No space left on device"))
        leave_out_tensorboard(shown.append, failed)
    assert [each.thread for each in shown] == [thread]
