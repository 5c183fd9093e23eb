"""The learning rate of a training: its rise, its fall, and a rise that would be most of it."""

import logging

import pytest

from recbole_m3rec.trainer.learning_rate import FINAL, rate, warmup_of


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_it_rises_and_falls_to_the_final_share(name):
    rates = [rate(name, step, 10, 100) for step in range(101)]
    highest = max(rates)
    assert rates.index(highest) == 9
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[0] == pytest.approx(0.1)
    assert rates[100] == pytest.approx(FINAL)


@pytest.mark.parametrize(
    ("wanted", "total", "found"),
    [(500, 2620, 500), (500, 965, 500), (60, 100, 60), (61, 100, 10), (500, 30, 3), (5, 5, 0)],
)
def test_a_warm_up_is_never_most_of_a_training(wanted, total, found, caplog):
    with caplog.at_level(logging.INFO):
        assert warmup_of(wanted, total) == found
    assert (f"warmup_steps: {wanted}, but" in caplog.text) == (found != wanted)


def test_no_warm_up_stays_none():
    assert warmup_of(0, 0) == 0
