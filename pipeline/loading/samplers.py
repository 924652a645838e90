"""Samplers: which images make a batch. Every batch is a pure function of (seed, step): training resumes anywhere.

n images, J identities, B images of a batch, P identities of K images each in a P x K batch.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.seeds import rng


class Batches:
    """Batches of rows of a training set, counted from step 0 over epochs of floor(n / B) batches.

    pids (n,): identity of each row; batch: B; ids_per_batch: P, K = B / P, or 0 to shuffle and drop the last.
    InputError if n < B, if P does not divide B, or if there are fewer than P identities.
    """

    def __init__(self, pids: np.ndarray, *, batch: int, ids_per_batch: int, seed: int):
        self.pids, self.batch, self.ids_per_batch, self.seed = np.asarray(pids), batch, ids_per_batch, seed
        check_batches(self.pids, batch=batch, ids_per_batch=ids_per_batch)
        self.steps_per_epoch = len(self.pids) // batch
        self._epoch, self._batches = -1, np.empty((0, batch), np.int64)

    def rows(self, step: int) -> np.ndarray:
        """The B rows of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = rng(self.seed, "sample", epoch)
            self._batches = (identity_epoch(self.pids, self.batch, self.ids_per_batch, generator)
                             if self.ids_per_batch else shuffled_epoch(len(self.pids), self.batch, generator))
            self._epoch = epoch

        return self._batches[place]


class Draws:
    """For a DataLoader's `batch_sampler`: steps start .. stop - 1, each a list of (draw number, row).

    The draw number, step * B + place, names the image's augmentation stream. share: which places to draw; the rest is
    another process's.
    """

    def __init__(self, batches: Batches, *, start: int, stop: int, share: slice = slice(None)):
        self.batches, self.start, self.stop, self.share = batches, start, stop, share

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            rows = self.batches.rows(step).tolist()
            yield [(step * len(rows) + place, row) for place, row in enumerate(rows)][self.share]


def check_batches(pids: np.ndarray, *, batch: int, ids_per_batch: int) -> None:
    """InputError if no such batch can be made."""
    if batch < 1 or len(pids) < batch:
        raise InputError(f"a batch of {batch} images cannot be drawn from {len(pids)}: lower `batch`, or train on more")
    if ids_per_batch == 0:
        return

    if ids_per_batch < 0 or batch % ids_per_batch:
        raise InputError(f"a batch of {batch} images does not divide into {ids_per_batch} identities of equally many: "
                         "change `batch` or `ids_per_batch`")
    if len(np.unique(pids)) < ids_per_batch:
        raise InputError(f"there are {len(np.unique(pids))} identities and ids_per_batch is {ids_per_batch}: lower "
                         "ids_per_batch, or train on more identities")


def shuffled_epoch(count: int, batch: int, generator: np.random.Generator) -> np.ndarray:
    """(floor(count / batch), batch) rows: a permutation, its rest dropped."""
    steps = count // batch
    return generator.permutation(count)[:steps * batch].reshape(steps, batch)


def identity_epoch(pids: np.ndarray, batch: int, ids_per_batch: int, generator: np.random.Generator) -> np.ndarray:
    """(floor(n / batch), batch) rows: each batch K images of each of P identities, an identity's images side by side.

    Identities, and each identity's images, are dealt from shuffled decks, so that none comes again before the others
    had their turn; an identity with fewer than K images repeats them.
    """
    images = batch // ids_per_batch
    order = np.argsort(pids, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(pids[order])) + 1)

    people = _deal(np.arange(len(groups)), ids_per_batch, generator)
    decks = [_deal(group, images, generator) for group in groups]

    steps = len(pids) // batch
    return np.array([np.concatenate([next(decks[person]) for person in next(people)]) for _ in range(steps)])


def _deal(items: np.ndarray, count: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Hands of `count` items: a deck is dealt to its end and shuffled anew; a hand repeats none while others are left.
    """
    deck = generator.permutation(items)
    while True:
        hand, deck = deck[:count], deck[count:]

        while len(hand) < count:
            fresh = generator.permutation(items)
            # What the hand holds already goes to the end, unless the whole set is smaller than a hand.
            held = np.isin(fresh, hand)
            fresh = np.concatenate([fresh[~held], fresh[held]])
            hand, deck = np.concatenate([hand, fresh[:count - len(hand)]]), fresh[count - len(hand):]

        yield hand
