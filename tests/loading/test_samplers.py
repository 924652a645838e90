"""Batches: P x K and shuffled, each a function of (seed, step)."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.base.seeds import rng
from pipeline.loading.samplers import Batches, Draws


def _pids(ids: int, seed: int = 0, most: int = 9) -> np.ndarray:
    """Identities with 1 .. most images each, in no order, numbered with gaps."""
    counts = rng(seed, "counts").integers(1, most + 1, ids)
    return rng(seed, "order").permutation(np.repeat(np.arange(ids) * 3 + 1, counts))


def _epoch(batches: Batches, epoch: int = 0) -> list[np.ndarray]:
    steps = batches.steps_per_epoch
    return [batches.rows(step) for step in range(epoch * steps, (epoch + 1) * steps)]


@settings(max_examples=40, deadline=None)
@given(ids=st.integers(4, 30), p=st.integers(1, 4), k=st.integers(1, 4), seed=st.integers(0, 1000))
def test_every_batch_is_p_identities_of_k_images(ids, p, k, seed):
    pids = np.concatenate([_pids(ids, seed), np.full(p * k, 1)])
    batches = Batches(pids, batch=p * k, ids_per_batch=p, seed=seed)
    assert batches.steps_per_epoch == len(pids) // (p * k)
    available = Counter(pids.tolist())
    for rows in _epoch(batches):
        groups = pids[rows].reshape(p, k)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == p
        for pid, group in zip(groups[:, 0], rows.reshape(p, k), strict=True):
            assert len(set(group)) == min(k, available[pid]), "repeats an image while others are left"


@settings(max_examples=40, deadline=None)
@given(ids=st.integers(4, 30), seed=st.integers(0, 1000))
def test_nobody_comes_again_before_the_others(ids, seed):
    pids = _pids(ids, seed)
    if len(pids) < 8:
        return
    rows = np.concatenate(_epoch(Batches(pids, batch=8, ids_per_batch=4, seed=seed)))
    people = Counter({pid: 0 for pid in pids.tolist()})
    people.update(pids[rows].tolist())
    assert max(people.values()) - min(people.values()) <= 2, "two images of each identity in its turn"
    images = Counter(rows.tolist())
    for pid in set(pids.tolist()):
        counts = [images[row] for row in np.flatnonzero(pids == pid).tolist()]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("ids_per_batch", [0, 4])
def test_a_batch_depends_on_seed_and_step_alone(ids_per_batch):
    pids = _pids(20)
    inorder = Batches(pids, batch=8, ids_per_batch=ids_per_batch, seed=3)
    expected = [inorder.rows(step).copy() for step in range(60)]
    assert inorder.steps_per_epoch < 30
    jumping = Batches(pids, batch=8, ids_per_batch=ids_per_batch, seed=3)
    for step in (59, 0, 31, 5, 31):
        np.testing.assert_array_equal(jumping.rows(step), expected[step])
    other = Batches(pids, batch=8, ids_per_batch=ids_per_batch, seed=4)
    assert not all(np.array_equal(other.rows(step), expected[step]) for step in range(5))
    steps = inorder.steps_per_epoch
    assert not np.array_equal(np.concatenate(expected[:steps]), np.concatenate(expected[steps:2 * steps]))


def test_shuffled_epochs_hold_each_image_once_and_drop_the_last():
    batches = Batches(np.zeros(53, int), batch=8, ids_per_batch=0, seed=0)
    dropped = set()
    for epoch in range(20):
        rows = np.concatenate(_epoch(batches, epoch))
        assert len(rows) == len(set(rows.tolist())) == 48
        dropped |= set(range(53)) - set(rows.tolist())
    assert len(dropped) > 40, "it is not always the same images that are dropped"


def test_draws_are_numbered_through():
    batches = Batches(_pids(20), batch=8, ids_per_batch=4, seed=0)
    whole, late = list(Draws(batches, start=0, stop=7)), list(Draws(batches, start=4, stop=7))
    assert late == whole[4:] and len(Draws(batches, start=4, stop=7)) == 3
    assert [number for batch in whole for number, _ in batch] == list(range(56))


@pytest.mark.parametrize(("count", "batch", "ids_per_batch", "match"), [
    (0, 8, 0, "8 images cannot be drawn from 0"), (7, 8, 0, "8 images cannot be drawn from 7"),
    (40, 8, 3, "does not divide into 3"), (40, 8, 8, "4 identities and ids_per_batch is 8")])
def test_impossible_batches_are_refused(count, batch, ids_per_batch, match):
    with pytest.raises(InputError, match=match):
        Batches(np.arange(count) % 4, batch=batch, ids_per_batch=ids_per_batch, seed=0)
