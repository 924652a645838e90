"""Named random streams: a draw added in one place cannot shift the draws of another."""

import hashlib

import numpy as np


def _words(seed: int, names: tuple[str | int, ...]) -> list[int]:
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return [seed, *np.frombuffer(digest, dtype=np.uint32).tolist()]


def rng(seed: int, *names: str | int) -> np.random.Generator:
    """The generator of the stream `names` under `seed`.

    >>> rng(0, "render", 1).integers(100) == rng(0, "render", 1).integers(100)
    True
    """
    return np.random.default_rng(np.random.SeedSequence(_words(seed, names)))


def torch_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for `torch.manual_seed` or a `torch.Generator`, from the same stream names."""
    return int(np.random.SeedSequence(_words(seed, names)).generate_state(1, np.uint64)[0] >> 1)
