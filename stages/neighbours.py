"""Neighbours of every query part by part, for a report to show: python -m stages.neighbours rendered-sorn

Writes data/neighbours/EXPERIMENT/REPORT/RESULT.json from one features file: where each query's first right image
stands, and of its nearest gallery images what retrieval ranks by, v_p^q v_p^g D(f_p^q, f_p^g) of each part.
"""

from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.files import writable
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.plan import NeighboursPlan
from pipeline.reporting.neighbours import Listed, Neighbours, write_neighbours
from pipeline.retrieval.distances import as_given, strips
from pipeline.retrieval.exclusions import read_exclusions, without
from pipeline.retrieval.features import Embedded, read_features
from pipeline.retrieval.matching import Matching, settle, unit_parts
from pipeline.retrieval.ranking import JUNK, evaluate, nearest
from stages import main
from stages.shared.ranking_device import ranking_device

TOP = 10  # gallery images of each query


def run(experiment: Experiment, key: str) -> None:
    """Rank the features of one result as `evaluate` does (of several trials the first) and write the lists."""
    listed = experiment.plan.neighbours_listed
    plan = pick({**experiment.plan.neighbours, **listed}, key, "plan.neighbours")
    target = paths.neighbours(experiment.name, plan.report, plan.result)
    writable(target)
    embedded = _read(plan)
    if key in listed:
        embedded, _ = without(embedded, read_exclusions(paths.ignored(plan.dataset)))
    embedded = embedded.trials()[0]
    device = ranking_device(experiment.params.device)

    known = embedded.take(np.flatnonzero(embedded.query.pid != JUNK), np.arange(len(embedded.gallery)))
    matching, made = known.matching, known.provenance
    write_neighbours(target, Neighbours(plan.result, plan.dataset, str(made.get("model", plan.result)),
                                        matching.distance, matching.reduction, list(matching.sizes),
                                        query_lists(known, device)))


def _read(plan: NeighboursPlan) -> Embedded:
    embedded = read_features(Path(plan.features))
    for field, expected in (("result", plan.result), ("dataset", plan.dataset)):
        if embedded.provenance.get(field) != expected:
            raise InputError(f"{plan.features!r}: was made for {field} {embedded.provenance.get(field)!r}, not "
                             f"{expected!r}; delete it and run `dvc repro`")
    return embedded


def query_lists(embedded: Embedded, device: str = "cpu") -> list[Listed]:
    """Of every query its first TOP gallery images by the rule of `evaluate`, and where none of them is right the
    nearest that is; sorted by key."""
    query, gallery = embedded.query, embedded.gallery
    matching = settle(query, gallery, embedded.matching)
    first = evaluate(query, gallery, matching, device=device).first
    rows, distances = nearest(query, gallery, matching, TOP, device=device)

    lists = []
    for number in np.argsort(embedded.query_key).tolist():
        shown, far = rows[number][rows[number] >= 0], distances[number][rows[number] >= 0]
        places = np.arange(1, len(shown) + 1)
        if first[number] > len(shown):
            row, distance = _nearest_right(embedded, number, matching)
            shown, far, places = np.append(shown, row), np.append(far, distance), np.append(places, first[number])

        hidden = None if query.occlusion is None else float(query.occlusion[number])
        lists.append(Listed(
            query=str(embedded.query_key[number]), hidden=None if hidden is None or np.isnan(hidden) else hidden,
            first=int(first[number]), visibility=query.visibility[number].astype(float).tolist(),
            gallery=[str(name) for name in embedded.gallery_key[shown]], place=places.tolist(),
            match=(gallery.pid[shown] == query.pid[number]).tolist(),
            distance=[float(value) if np.isfinite(value) else None for value in far],
            visible=gallery.visibility[shown].astype(float).tolist(),
            parts=part_distances(query.features[number], gallery.features[shown], matching).tolist()))
    return lists


def _nearest_right(embedded: Embedded, number: int, matching: Matching) -> tuple[int, float]:
    """Of a query that has a match the gallery row and the distance of the nearest, in the order of `evaluate` where no
    match shares a part with it."""
    query, gallery = embedded.query, embedded.gallery
    right = np.flatnonzero((gallery.pid == query.pid[number]) & (gallery.camid != query.camid[number]))
    (_, strip), = strips(query.take(slice(number, number + 1)), gallery.take(right), matching)
    place = strip[0].argmin()
    return int(right[place]), float(as_given(strip, matching)[0, place])


def part_distances(query: np.ndarray, gallery: np.ndarray, matching: Matching) -> np.ndarray:
    """D(f_p^q, f_p^g) of one query's feature (sum D_p,) to those of N gallery images (N, sum D_p); (N, P) float64.

    >>> part_distances(np.array([1., 0, 3]), np.array([[0., 2, -1]]), Matching((2, 1), "cosine", "mean")).tolist()
    [[1.0, 2.0]]
    >>> part_distances(np.array([3., 0, 3]), np.array([[0., 4, -1]]), Matching((2, 1), "euclidean", "mean")).tolist()
    [[5.0, 4.0]]
    """
    one, two = query[None].astype(np.float64), gallery.astype(np.float64)
    starts = np.cumsum([0, *matching.sizes[:-1]])
    if matching.distance == "cosine":
        one, two = unit_parts(one, matching.sizes), unit_parts(two, matching.sizes)
        return np.maximum(1 - np.add.reduceat(one * two, starts, axis=1), 0)
    return np.sqrt(np.add.reduceat(np.square(one - two), starts, axis=1))


if __name__ == "__main__":
    main(run)
