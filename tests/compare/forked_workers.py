"""Workers of comparisons that are forked from the test's process, which has imported everything.

A worker of its own imports RecBole first, which takes seconds. Such ones start in a comparison
that is killed and on Dask's workers.
"""

import logging
import os
import signal
import sys
import threading

import pytest
import torch

from recbole_m3rec.compare import scheduler, worker
from tests import before_forks  # noqa: F401


class Forked:
    """Takes the place of what ``scheduler.start`` returns."""

    def __init__(self, job, environment, events):
        stdin, self.open = os.pipe()  # whose end would be this process's end
        lines, stdout = os.pipe()
        self.process = os.fork()
        if not self.process:
            work(job.folder, stdin, stdout)
        os.close(stdin)
        os.close(stdout)

        def listen():
            with open(lines, encoding="utf-8") as told:
                for line in told:
                    events.put((job, line))
            events.put((job, None))

        threading.Thread(target=listen, daemon=True).start()

    def wait(self):
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        os.close(self.open)
        return code

    def kill(self):
        os.kill(self.process, signal.SIGKILL)


def work(folder, stdin, stdout):
    """Be the worker of a folder and end."""
    code = 70
    try:
        with open(folder / scheduler.LOG, "w", encoding="utf-8") as log:
            for source, number in ((stdin, 0), (stdout, 1), (log.fileno(), 2)):
                os.dup2(source, number)
            sys.stderr = log
            logging.getLogger().handlers.clear()  # RecBole logs where nobody else does
            torch.set_num_threads(1)
            code = worker.main([str(folder)])
    finally:
        os._exit(code)


@pytest.fixture
def forked_workers(monkeypatch):
    """Fork workers where the system can."""
    if hasattr(os, "fork"):
        monkeypatch.setattr(scheduler, "start", Forked)
