"""Named streams: what numpy makes of a list of the seed and the hash's words, however they are handed over."""

import hashlib

import numpy as np
import pytest

from pipeline.base.seeds import rng, torch_seed


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 2**64 - 1, 2**70 + 5])
def test_a_stream_is_that_of_its_seed_and_names(seed):
    for names in (("augment", 7), ("render",), ("a/b",)):
        words = np.frombuffer(hashlib.sha256("/".join(map(str, names)).encode()).digest(), "<u4").tolist()
        expected = np.random.SeedSequence([seed, *words])
        assert rng(seed, *names).bytes(64) == np.random.default_rng(expected).bytes(64)
        assert torch_seed(seed, *names) == int(expected.generate_state(1, np.uint64)[0]) >> 1
