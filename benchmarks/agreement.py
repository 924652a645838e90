"""Do the figures agree with torchreid's Python evaluation? python -m benchmarks.agreement RANK

RANK is torchreid/metrics/rank.py of a clone of KaiyangZhou/deep-person-reid, loaded by its path: nothing else of it is
needed. 50 random problems, each of its own size, with queries that have no valid match, people seen by one camera, and
distractors; distances are distinct, since its sorting is not stable. The whole CMC curve and mAP; it keeps the curve in
float32, so 1e-6 is asked of it and 1e-12 of mAP. Prints the largest differences; a second.
"""

import argparse
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.seeds import rng
from pipeline.retrieval.ranking import evaluate_matrix

PROBLEMS = 50


def load(path: Path) -> Any:
    """torchreid's rank.py as a module; its warning that no Cython is beside it is not for this."""
    spec = spec_from_file_location("torchreid_rank", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise SystemExit(f"{str(path)!r}: no such file; clone the repository and name its torchreid/metrics/rank.py")
    module = module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


def problem(number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Distances (Q, G), all different, and identities and cameras of both sides."""
    draw = rng(0, "agreement", str(number))
    queries, gallery, people = (int(draw.integers(*span)) for span in ((5, 40), (60, 300), (3, 30)))
    labels = {f"{side}_{column}": draw.integers(low, high, size)
              for side, size in (("query", queries), ("gallery", gallery))
              for column, low, high in (("pid", 1, people), ("camid", 1, 3 + number % 5))}
    labels["gallery_pid"][draw.random(gallery) < .1] = 0                         # distractors
    labels["query_pid"][:2] = [people + 1, labels["gallery_pid"].max()]          # nobody in the gallery; somebody
    return draw.permutation(queries * gallery).reshape(queries, gallery).astype(np.float64), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rank", type=Path, help="torchreid's rank.py")
    theirs = load(parser.parse_args().rank)
    curve = precision = 0.0
    scored = skipped = 0
    for number in range(PROBLEMS):
        distances, labels = problem(number)
        ours = evaluate_matrix(distances, **labels)
        valid = ours.first > 0
        ranks = min(50, distances.shape[1])
        cmc, mean = theirs.eval_market1501(distances, labels["query_pid"], labels["gallery_pid"],
                                           labels["query_camid"], labels["gallery_camid"], ranks)
        curve = max(curve, float(np.abs(ours.cmc(ranks) - cmc).max()))
        precision = max(precision, abs(float(ours.precision[valid].mean()) - mean))
        scored, skipped = scored + int(valid.sum()), skipped + int((~valid).sum())
    print(f"{PROBLEMS} problems, {scored} queries scored, {skipped} without a match: largest difference of a CMC value "
          f"{curve:.1e}, of mAP {precision:.1e}")
    if curve > 1e-6 or precision > 1e-12:
        raise SystemExit("the two disagree")


if __name__ == "__main__":
    main()
