"""A run that is killed at any moment and resumed ends as the unbroken one, to the last bit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.trainer.killed_runs import Trial

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")


@pytest.mark.slow
def test_twenty_killed_runs_end_as_unbroken_ones(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    wrong = [story for seed in range(20) if (story := trial.differs(seed))]
    assert not wrong
