"""A training run is the same again, to the bit, and the number of threads hardly matters."""

import pytest
import torch

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.packed import pack

N_ITEMS, N_ROWS, LONGEST, STEPS = 400, 100, 12, 3  # enough rows for every kernel


def losses(n_threads, rule):
    """Losses of a few steps of Adam with dropout, on ragged histories."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        torch.manual_seed(3)
        present = torch.ones(N_ITEMS, dtype=torch.bool)
        features = {
            name: ItemFeatures(name, torch.randn(N_ITEMS, width), present, name, name)
            for name, width in {"image": 48, "text": 32}.items()
        }
        network = M3RecNetwork(
            N_ITEMS, features, hidden_size=32, d_state=16, modality_gradient=rule
        )
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
        found = []
        for _ in range(STEPS):
            lengths = torch.randint(1, LONGEST + 1, (N_ROWS,))
            histories = torch.randint(1, N_ITEMS, (N_ROWS, LONGEST))
            targets = torch.randint(1, N_ITEMS, (N_ROWS,))
            optimiser.zero_grad()
            loss = network.cross_entropy(pack(histories, lengths), targets)
            loss.backward()
            optimiser.step()
            found.append(float(loss.detach()))
        return found
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("rule", ["frozen", "shared"])
def test_the_same_threads_give_the_same_bits_and_others_the_same_losses(rule):
    one, two = losses(1, rule), losses(2, rule)
    assert losses(1, rule) == one
    assert losses(2, rule) == two
    assert len(set(one)) == STEPS
    assert two == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "sampled", "bpr"])
def test_gradients_that_many_tokens_add_to_are_the_same_again(loss):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(3)
        drawn = 20 if loss == "sampled" else "all"
        network = M3RecNetwork(
            50, hidden_size=16, repetition=True, dropout_prob=0.0, softmax_items=drawn
        )
        torch.nn.init.normal_(network.repeats.by_lag)
        histories = pack(torch.randint(1, 50, (40, 60)), torch.full((40,), 60))  # 73,200 terms
        scored = torch.arange(40 * 60)
        targets, negatives = torch.randint(1, 50, (2, 40 * 60))
        network.count_targets(targets)
        found = set()
        for _ in range(8):
            torch.manual_seed(4)
            network.zero_grad()
            if loss == "bpr":
                value = network.bpr(histories, targets, negatives, scored)
            else:
                value = network.cross_entropy(histories, targets, scored)
            value.backward()
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            found.add(b"".join(each.numpy().tobytes() for each in (value.detach(), *gradients)))
        assert len(found) == 1
    finally:
        torch.set_num_threads(before)
