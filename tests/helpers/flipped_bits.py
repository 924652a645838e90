"""Run by test_features: a features file with one bit flipped, COUNT times: python flipped_bits.py FILE COUNT

Prints for each flip "refused", "same" (the metrics) or "other", and the place. A process of its own, because damage may
crash the HDF5 library.
"""

import faulthandler
import sys
from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.retrieval.features import read_features
from pipeline.retrieval.ranking import evaluate
from pipeline.retrieval.scores import data_set_metrics


def metrics(path: Path) -> str:
    """All of them, with everything else that the file says."""
    found = read_features(path)
    scores = [evaluate(trial.query, trial.gallery, trial.matching, pairs=True) for trial in found.trials()]
    return repr([data_set_metrics(scores), found.provenance, found.query_key.tolist(), found.gallery_key.tolist()])


def main(path: Path, count: int) -> None:
    whole, expected, draw = path.read_bytes(), metrics(path), np.random.default_rng(0)
    for bit in draw.choice(8 * len(whole), count, replace=False).tolist():
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        print(bit, file=sys.stderr, flush=True)
        try:
            print("same" if metrics(path) == expected else "other", bit)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error), str(error)
            print("refused", bit)


if __name__ == "__main__":
    faulthandler.enable()
    main(Path(sys.argv[1]), int(sys.argv[2]))
