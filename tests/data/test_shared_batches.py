"""Rows of a global batch are dealt to all processes, none twice, in the order of one process."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_m3rec.data.shared_batches import SharedBatches, deal_by_size


@given(
    n_rows=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    world_size=st.integers(1, 5),
    shuffle=st.booleans(),
)
def test_processes_share_every_batch(n_rows, batch_size, world_size, shuffle):
    parts = [
        SharedBatches(
            n_rows, batch_size, shuffle=shuffle, rank=rank, world_size=world_size,
            generator=torch.Generator().manual_seed(1),
        )
        for rank in range(world_size)
    ]  # fmt: skip
    seen = []
    shares = [part.shares() for part in parts]
    for number, rows in enumerate(zip(*parts, strict=True)):
        assert sum(share[number] for share in shares) == pytest.approx(1)
        own = [each for each, share in zip(rows, shares, strict=True) if share[number] > 0]
        assert len(sum(own, [])) == min(batch_size, n_rows - len(seen))
        seen += sum(own, [])
        assert all(rows)
    assert sorted(seen) == list(range(n_rows))
    assert {len(part) for part in parts} == {len(shares[0])}


@pytest.mark.parametrize("model", ["SASRec", "BPR", "MultiVAE"])
def test_the_order_is_the_one_of_one_process_in_every_epoch(prepare, model):
    _, _, train, *_ = prepare(model, train_batch_size=7)
    generator = torch.Generator().manual_seed(train.config["seed"])
    shared = SharedBatches(
        train.sample_size, train.step, shuffle=True, generator=generator, rank=0, world_size=1
    )
    mine = torch.utils.data.DataLoader(
        range(train.sample_size),
        batch_sampler=shared,
        collate_fn=list,
        generator=generator,
    )
    theirs = []
    train.collate_fn = lambda rows: theirs.append(list(rows))
    for _ in range(3):
        theirs.clear()
        list(train)
        assert theirs == list(mine)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 5))
def test_parts_differ_by_less_than_the_largest_piece(sizes, world_size):
    parts = deal_by_size(sizes, world_size)
    assert sorted(sum(parts, [])) == list(range(len(sizes)))
    loads = [sum(sizes[piece] for piece in part) for part in parts]
    assert max(loads) - min(loads) <= max(sizes)
