"""Retrieval against a loop written from the definition, on problems full of ties, gaps and odd identities."""

import doctest
import json
from math import inf, isnan, sqrt
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

import pipeline.retrieval.distances
import pipeline.retrieval.features
import pipeline.retrieval.metrics
import pipeline.retrieval.ranking
import pipeline.retrieval.scores
from pipeline.base.errors import InputError
from pipeline.retrieval.distances import pair_distances, save_distances
from pipeline.retrieval.features import checksum, read_features
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import evaluate, evaluate_matrix, match_places, nearest


def loop_distance(q: Side, g: Side, i: int, j: int, matching: Matching) -> float:
    top = bottom = 0.0
    start = 0
    for part, size in enumerate(matching.sizes):
        a, b = (side.features[row, start:start + size].tolist() for side, row in ((q, i), (g, j)))
        if matching.distance == "cosine":
            lengths = sqrt(sum(x * x for x in a)) * sqrt(sum(y * y for y in b))
            distance = 1 - (sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0)
        else:
            distance = sqrt(max(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)), 1e-12))
        weight = float(q.visibility[i, part]) * float(g.visibility[j, part])
        top, bottom, start = top + weight * distance, bottom + weight, start + size
    if bottom <= 1e-12:
        return inf
    return top / bottom if matching.reduction == "mean" else top


def loop_distances(q: Side, g: Side, matching: Matching) -> list[list[float]]:
    return [[loop_distance(q, g, i, j, matching) for j in range(len(g))] for i in range(len(q))]


def split_mix(word: int) -> int:
    """SplitMix64 in whole numbers."""
    word = (word + 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def loop_list(q: Side, g: Side, i: int, distances: list[list[float]]) -> list[int]:
    """Gallery rows in the order in which query i finds them; those that share no part with it by a hash of the pair."""
    rows = [j for j in range(len(g)) if g.pid[j] != -1 and not (g.pid[j] == q.pid[i] and g.camid[j] == q.camid[i])]

    def place(j: int) -> tuple[float, int]:
        drawn = split_mix((split_mix(int(q.mark[i])) + int(g.mark[j])) % 2**64)
        return distances[i][j], drawn if distances[i][j] == inf else j

    return sorted(rows, key=place)


def loop_scores(q: Side, g: Side, distances: list[list[float]]) -> tuple[list[int], list[float], list[float]]:
    first, precision, penalty = [], [], []
    for i in range(len(q)):
        if q.pid[i] == -1:
            continue
        hits = [int(g.pid[j] == q.pid[i]) for j in loop_list(q, g, i, distances)]
        places = [place for place, hit in enumerate(hits, 1) if hit]
        first.append(places[0] if places else 0)
        steps = [sum(hits[:place]) / place for place in places]
        precision.append(sum(steps) / len(steps) if steps else float("nan"))
        penalty.append(len(places) / places[-1] if places else float("nan"))
    return first, precision, penalty


def loop_area(q: Side, g: Side, distances: list[list[float]]) -> float:
    """PR-AUC from the definition: every distance is a threshold; queries without a match do not count."""
    pairs = []
    for i in range(len(q)):
        valid = [j for j in range(len(g)) if q.pid[i] != -1 and g.pid[j] != -1
                 and not (g.pid[j] == q.pid[i] and g.camid[j] == q.camid[i])]
        if any(g.pid[j] == q.pid[i] for j in valid):
            pairs += [(distances[i][j], int(g.pid[j] == q.pid[i])) for j in valid]
    area = recall = 0.0
    for threshold in sorted({distance for distance, _ in pairs}):
        taken = [true for distance, true in pairs if distance <= threshold]
        now = sum(taken) / sum(true for _, true in pairs)
        area, recall = area + (now - recall) * sum(taken) / len(taken), now
    return area


def loop_trapezoids(q: Side, g: Side, distances: list[list[float]]) -> list[float]:
    """Market-1501's own code, query by query."""
    found = []
    for i in range(len(q)):
        hits = [int(g.pid[j] == q.pid[i]) for j in loop_list(q, g, i, distances)]
        area, old_recall, old_precision, seen = 0.0, 0.0, 1.0, 0
        for place, hit in enumerate(hits, 1):
            seen += hit
            recall, precision = seen / max(sum(hits), 1), seen / place
            area += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        if q.pid[i] != -1:
            found.append(area if any(hits) else float("nan"))
    return found


def problem(draw: np.random.Generator, sizes: tuple[int, ...], kind: str) -> tuple[Side, Side]:
    """`exact` features and visibilities make sums without rounding, hence many exact ties in any order of summation."""
    def side(count: int) -> Side:
        width = sum(sizes)
        if kind == "exact":  # parts with 0, 1 or 4 entries of +-1 or +-2: their lengths are whole numbers
            features = np.zeros((count, width))
            for row in features:
                start = 0
                for size in sizes:
                    used = draw.choice([0, 1, 4], p=[0.1, 0.5, 0.4])
                    row[start + draw.permutation(size)[:used]] = draw.choice([1, 2]) * draw.choice([-1, 1], used)
                    start += size
            visibility = draw.choice([0, 0.5, 1], (count, len(sizes)))
        else:
            features = draw.standard_normal((count, width))
            visibility = draw.random((count, len(sizes))) * (draw.random((count, len(sizes))) < 0.7)
        pid = draw.choice([-1, 0, 1, 2, 3, 4], count, p=[0.1, 0.2, 0.2, 0.2, 0.2, 0.1])
        camid = np.where(pid == 4, 0, draw.integers(0, 3, count))  # person 4 is seen by one camera only
        return Side(features, visibility, pid, camid)
    query, gallery = side(12), side(60)
    query.pid[:2] = 4, 50  # no valid match; not in the gallery at all
    query.camid[0] = 0
    return query, gallery


@pytest.mark.parametrize("kind", ["exact", "random"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("sizes", [(4,), (4, 5, 4, 6)], ids=["P=1", "P=4"])
def test_equals_the_loop(kind, distance, reduction, sizes, monkeypatch):
    monkeypatch.setattr(pipeline.retrieval.distances, "GALLERY_BLOCK", 17)
    monkeypatch.setattr(pipeline.retrieval.distances, "CPU_ROWS", 3)
    monkeypatch.setattr(pipeline.retrieval.ranking, "ROWS", 3)
    matching = Matching(sizes, distance, reduction, double=True)
    seen = {"tie": 0, "skipped": 0, "apart": 0}
    for seed in range(12):
        query, gallery = problem(np.random.default_rng(seed), sizes, kind)
        expected = loop_distances(query, gallery, matching)
        np.testing.assert_allclose(pair_distances(query, gallery, matching), expected, rtol=1e-12, atol=1e-12)
        scores = evaluate(query, gallery, matching, megabytes=0.002)
        first, precision, penalty = loop_scores(query, gallery, expected)
        assert scores.first.tolist() == first
        np.testing.assert_allclose(scores.precision, precision, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores.penalty, penalty, rtol=0, atol=1e-12)
        given = pair_distances(query, gallery, matching)
        whole = evaluate(query, gallery, matching, pairs=True)
        assert whole.area == pytest.approx(loop_area(query, gallery, given.tolist()), abs=1e-12)
        if (distance, kind) != ("euclidean", "exact"):  # sums of roots tie or not by their last bit
            assert whole.area == pytest.approx(loop_area(query, gallery, expected), abs=1e-12)
        trapezoid = evaluate(query, gallery, matching, trapezoid=True)
        np.testing.assert_allclose(trapezoid.precision, loop_trapezoids(query, gallery, expected), rtol=0, atol=1e-12)
        before = given.copy()
        labels = {f"{name}_{field}": getattr(side, field) for name, side in (("query", query), ("gallery", gallery))
                  for field in ("pid", "camid")}
        matrix = evaluate_matrix(given, **labels, pairs=True)
        np.testing.assert_array_equal(given, before)
        assert matrix.first.tolist() == first and matrix.area == whole.area
        np.testing.assert_array_equal(matrix.precision, whole.precision)
        found, _ = nearest(query, gallery, matching, 8)
        assert found.tolist() == [loop_list(query, gallery, i, expected)[:8] for i in range(len(query))]
        seen["tie"] += sum(len(set(row)) < len(row) for row in expected)
        seen["apart"] += int(np.isinf(expected).sum())
        seen["skipped"] += sum(isnan(value) for value in precision)
    assert seen["apart"] and seen["skipped"] and (kind == "random" or seen["tie"]), "the problems must be hard ones"


def loop_ordered(q: Side, g: Side, matching: Matching) -> list[list[float]]:
    """`loop_distances`; pairs that share no part behind all others, by the distance of the whole body's part."""
    first = sum(matching.sizes[:matching.whole_body])
    whole = slice(first, first + matching.sizes[matching.whole_body])
    shown = Matching((matching.sizes[matching.whole_body],), matching.distance, "mean")
    bodies = [Side(side.features[:, whole], np.ones((len(side), 1)), side.pid, side.camid) for side in (q, g)]
    return [[1e6 + loop_distance(*bodies, i, j, shown) if distance == inf else distance
             for j, distance in enumerate(row)] for i, row in enumerate(loop_distances(q, g, matching))]


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("kind", ["exact", "random"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("whole", [0, 2])
def test_pairs_that_share_no_part_are_ordered_by_the_whole_body(kind, distance, whole, double, monkeypatch):
    """Its part takes no part in other distances (v = 0), or in some images' (v as drawn)."""
    monkeypatch.setattr(pipeline.retrieval.distances, "GALLERY_BLOCK", 17)
    monkeypatch.setattr(pipeline.retrieval.distances, "CPU_ROWS", 3)
    monkeypatch.setattr(pipeline.retrieval.ranking, "ROWS", 3)
    sizes = (4, 5, 4, 6)
    matching = Matching(sizes, distance, "mean", double=double, whole_body=whole)
    apart = moved = 0
    for seed in range(8):
        query, gallery = problem(np.random.default_rng(seed), sizes, kind)
        for side in (query, gallery):
            side.visibility[:] *= np.random.default_rng(seed + 1).random(side.visibility.shape) < 0.5
            if seed % 2:
                side.visibility[:, whole] = 0
        expected = loop_ordered(query, gallery, matching)
        plain = loop_distances(query, gallery, matching)
        found = pair_distances(query, gallery, matching)
        np.testing.assert_allclose(found, plain, rtol=1e-12 if double else 1e-4, atol=1e-12 if double else 1e-4)
        lists = [loop_list(query, gallery, i, expected) for i in range(len(query))]
        rows, distances = nearest(query, gallery, matching, 60)
        apart += int(np.isinf(plain).sum())
        moved += sum(lists[i] != loop_list(query, gallery, i, plain) for i in range(len(query)))
        if not double and kind == "exact":
            continue  # what ties in plain numbers may differ in the last bit of single precision
        for i, own in enumerate(lists):
            assert [row for row in rows[i].tolist() if row >= 0] == own, (seed, i)
            assert np.isinf(distances[i, :len(own)]).tolist() == [plain[i][j] == inf for j in own]
        scores = evaluate(query, gallery, matching, megabytes=0.002, pairs=True)
        first, precision, penalty = loop_scores(query, gallery, expected)
        assert scores.first.tolist() == first
        np.testing.assert_allclose(scores.precision, precision, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores.penalty, penalty, rtol=0, atol=1e-12)
        if (distance, kind) != ("euclidean", "exact"):
            assert scores.area == pytest.approx(loop_area(query, gallery, plain), abs=1e-12), "they are one group there"
    assert apart > 500 and moved > 20


def test_a_whole_body_that_is_no_part_is_one_sentence(tmp_path):
    for wrong in (2, -1, "head"):
        path = write_features(tmp_path / "w.h5", maker=MAKER | {"whole_body": wrong})
        with pytest.raises(InputError, match=f"the whole body is part {wrong!r}; it is one of the 2 parts"):
            read_features(path)
    assert read_features(write_features(tmp_path / "w.h5", maker=MAKER | {"whole_body": 1})).matching.whole_body == 1
    assert read_features(write_features(tmp_path / "w.h5")).matching.whole_body is None


@pytest.mark.parametrize("few", [0, 5, 1000])
def test_places_of_matches_among_ties(few, monkeypatch):
    """Counted or sorted, they are those of a stable sort."""
    monkeypatch.setattr(pipeline.retrieval.ranking, "FEW", few)
    draw = np.random.default_rng(few)
    for levels in (1, 3, 40, 10**6):
        row = draw.integers(0, levels, 50).astype(np.float32)
        row[draw.integers(0, 50, 5)] = np.inf
        matches = np.sort(draw.choice(np.flatnonzero(row < np.inf), draw.integers(1, 12), replace=False))
        order = sorted(range(50), key=lambda j, row=row: (row[j], j))
        assert match_places(row, matches).tolist() == sorted(order.index(j) + 1 for j in matches)


def test_given_distances():
    labels = {"query_pid": np.array([1, 2]), "query_camid": np.zeros(2), "gallery_pid": np.array([-1, 2, 1, 3]),
              "gallery_camid": np.ones(4)}
    whole = np.array([[0, 5, 1, 0], [0, 3, 3, 3]])  # whole numbers; the first column is nobody's
    assert evaluate_matrix(whole, **labels).first.tolist() == [2, 1]
    apart = np.array([[0, 1, np.inf, 5], [0, np.inf, 7, 2]], np.float32)
    assert evaluate_matrix(apart, **labels).first.tolist() == [3, 3]
    with pytest.raises(InputError, match=r"are \(4, 2\), and there are 2 queries and 4 gallery images"):
        evaluate_matrix(whole.T, **labels)
    for bad in (np.nan, -np.nan, 1.7e308):
        with pytest.raises(InputError, match="query 0 hold a value that is no number, or beyond 4e.307"):
            evaluate_matrix(np.where(whole == 5, bad, whole), **labels)


def test_saved_distances_are_those_of_all_pairs(tmp_path):
    query, gallery = problem(np.random.default_rng(1), (4, 5), "exact")
    for double in (False, True):
        matching = Matching((4, 5), "euclidean", "mean", double)
        save_distances(tmp_path / "d.npy", query, gallery, matching, megabytes=0.001)
        saved = np.load(tmp_path / "d.npy")
        assert saved.dtype == (np.float64 if double else np.float32)
        np.testing.assert_array_equal(saved, pair_distances(query, gallery, matching))
        assert np.isinf(saved).any()
    assert [path.name for path in tmp_path.iterdir()] == ["d.npy"]


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    query, gallery = problem(np.random.default_rng(1), (4, 5), "exact")
    (tmp_path / "file").write_bytes(b"")
    frame = pd.DataFrame({"image": ["a.jpg"], "pid": [1], "camid": [1], "split": ["query"]})
    with pytest.raises(InputError, match="d.npy': cannot be written .*make room or mend the folder"):
        save_distances(tmp_path / "file/d.npy", query, gallery, Matching((4, 5), "cosine", "mean"))
    with pytest.raises(InputError, match="f.h5': cannot be written"):
        pipeline.retrieval.features.write_features(tmp_path / "file/f.h5", frame=frame, features=np.ones((1, 2)),
                                                   visibility=np.ones((1, 1)), sizes=(2,), provenance={},
                                                   dtype="float16")


def test_summary_counts_and_rounds():
    #             two queries of person 1, one of person 2 (seen by its own camera only), one of nobody
    query = Side(np.array([[0.0], [4], [0], [0]]), np.ones((4, 1)), np.array([1, 1, 2, -1]), np.array([0, 0, 0, 0]))
    gallery = Side(np.array([[0.0], [1], [2], [3], [9]]), np.ones((5, 1)), np.array([1, 7, 1, 1, 2]),
                   np.array([0, 1, 1, 1, 0]))
    found = evaluate(query, gallery, Matching((1,), "euclidean", "mean")).summary()
    # query 0: 7 | 1 1 -> AP (1/2 + 2/3) / 2, INP 2/3; query 1: 1 1 7 2 -> AP 1, INP 1
    assert found == {"rank1": 50.0, "rank5": 100.0, "rank10": 100.0, "mAP": round(100 * (7 / 12 + 1) / 2, 2),
                     "mINP": round(100 * (2 / 3 + 1) / 2, 2), "queries": 2, "skipped": 1, "gallery": 5}


def test_single_precision_ranks_like_double():
    draw = np.random.default_rng(3)
    sides = []
    for count in (40, 700):
        features = draw.standard_normal((count, 96)).astype(np.float32)
        sides.append(Side(features, draw.random((count, 3)).astype(np.float32), draw.integers(0, 20, count),
                          draw.integers(0, 4, count)))
    for distance in ("cosine", "euclidean"):
        single, double = (evaluate(*sides, Matching((32,) * 3, distance, "mean", double)) for double in (False, True))
        assert abs(single.summary()["mAP"] - double.summary()["mAP"]) <= 0.01
        half = [Side(side.features.astype(np.float16), side.visibility, side.pid, side.camid) for side in sides]
        assert abs(evaluate(*half, Matching((32,) * 3, distance, "mean")).summary()["mAP"]
                   - double.summary()["mAP"]) < 0.1


@pytest.mark.parametrize("module", [pipeline.retrieval.metrics, pipeline.retrieval.ranking,
                                    pipeline.retrieval.scores])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


def test_nothing_to_score():
    one = Side(np.ones((2, 3)), np.ones((2, 1)), np.array([5, 5]), np.array([1, 1]))
    junk = Side(np.ones((2, 3)), np.ones((2, 1)), np.array([-1, -1]), np.array([1, 1]))
    matching = Matching((3,), "cosine", "mean")
    with pytest.raises(InputError, match="none of the 2 queries has a match"):
        evaluate(one, one, matching)
    with pytest.raises(InputError, match="no gallery images"):
        evaluate(one, junk, matching)
    with pytest.raises(InputError, match="'manhattan'; it is one of cosine, euclidean"):
        Matching((3,), "manhattan", "mean")


MAKER = {"run": "toy-net", "result": "toy-net", "dataset": "toy", "model": "net", "distance": "cosine",
         "reduction": "mean", "seed": 3,
         "image_steps": 640, "init": "none", "train_on": "toy", "protocol": "market", "versions": {"torch": "2"},
         "caches": {}, "weights_sha256": "0", "index_sha256": "0"}


def write_features(path: Path, **changes) -> Path:
    """A small features file: six people in two cameras, noisy around a centre each; `changes` replaces columns."""
    draw = np.random.default_rng(0)
    pid = np.repeat(np.arange(1, 7), 4)
    split = np.tile(["query", "gallery", "gallery", "gallery"], 6)
    columns = {"pid": pid, "camid": np.tile([1, 1, 2, 2], 6), "sizes": np.array([8, 8]),
               "key": [f"{s}/{p:04d}_{n}.jpg".encode() for n, (p, s) in enumerate(zip(pid, split, strict=True))],
               "split": [name.encode() for name in split], "visibility": np.ones((24, 2), np.float32),
               "features": (np.repeat(draw.standard_normal((6, 16)), 4, axis=0)
                            + 0.9 * draw.standard_normal((24, 16))).astype(np.float32)} | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["maker"] = json.dumps(columns.pop("maker", MAKER))
        for name, values in columns.items():
            file[name] = values
        file.attrs["format"] = 2
        file.attrs["sha256"] = checksum({name: file[name][:] for name in columns}, file.attrs["maker"])
    return path


def test_features_errors(tmp_path):
    good = write_features(tmp_path / "good.h5")
    found = read_features(good)
    assert len(found.query) == 6 and len(found.gallery) == 18 and found.query_key[0] == "query/0001_0.jpg"
    cut = tmp_path / "cut.h5"
    cut.write_bytes(good.read_bytes()[:3000])
    bad = np.ones((24, 16), np.float32)
    bad[7, 3] = np.nan
    cases = [(cut, "truncated or no HDF5 file.*dvc repro"),
             (tmp_path / "absent.h5", "no such features file"),
             (write_features(tmp_path / "nan.h5", features=bad), "features of .*gallery/0002_7.jpg.* are not finite"),
             (write_features(tmp_path / "query.h5", split=[b"query"] * 24), "holds no gallery image"),
             (write_features(tmp_path / "gallery.h5", split=[b"gallery"] * 24), "holds no query image"),
             (write_features(tmp_path / "other.h5", sizes=np.array([8, 4])), "16 feature columns.*12 together"),
             (write_features(tmp_path / "maker.h5", maker={"run": "a"}), "does not say its 'dataset'"),
             (write_features(tmp_path / "hidden.h5", occlusion=np.zeros(9)), "columns differ in length"),
             (write_features(tmp_path / "trial.h5", trial=np.zeros((24, 2))), "'trial' is missing or of another shape")]
    with h5py.File(tmp_path / "parts.h5", "w") as file:
        file["labels"] = np.zeros((3, 4, 4))
    cases.append((tmp_path / "parts.h5", "is no features file .*'key' is missing"))
    for path, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            read_features(path)
        assert path.name in str(caught.value)


class Echo(torch.nn.Module):
    """A network whose feature is an image's row."""

    def embed(self, batch):
        return batch["row"][:, None].half(), torch.ones(len(batch["row"]), 1)


def test_embedded_are_so_many_images_and_the_padding_is_dropped():
    batches = iter([{"row": torch.tensor([0, 1, 2])}, {"row": torch.tensor([3, 4, 4])}])
    features, visibility = pipeline.retrieval.features.embed_images(Echo(), batches, count=5,
                                                                    device=torch.device("cpu"))
    assert features.tolist() == [[0], [1], [2], [3], [4]] and features.dtype == np.float32
    assert visibility.tolist() == [[1]] * 5


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_are_stored_in_the_type_that_was_asked_for(tmp_path, dtype):
    frame = pd.DataFrame({"image": ["a", "b"], "pid": [1, 1], "camid": [1, 2], "split": ["gallery", "query"]})
    thirds = np.array([[1 / 3, 2 / 3], [1 / 7, 5 / 7]], np.float32)
    pipeline.retrieval.features.write_features(tmp_path / "f.h5", frame=frame, features=thirds, sizes=(2,),
                                               visibility=np.ones((2, 1)), provenance=MAKER, dtype=dtype)
    found = read_features(tmp_path / "f.h5")
    np.testing.assert_array_equal(found.query.features, thirds[1:].astype(dtype))
    np.testing.assert_array_equal(found.gallery.features, thirds[:1].astype(dtype))


def test_the_index_s_trials_and_occlusion_reach_evaluation(tmp_path):
    frame = pd.DataFrame({"image": [f"{number}.jpg" for number in range(6)], "pid": [1, 2, 1, 2, 1, 2], "camid": 1,
                          "split": ["gallery"] * 4 + ["query"] * 2, "trial": [0, 0, 5, 5, 0, 5],
                          "occlusion": [0, 0, 0, 0, 0.25, 0.75]})
    pipeline.retrieval.features.write_features(tmp_path / "f.h5", frame=frame, features=np.arange(12.0).reshape(6, 2),
                                               visibility=np.ones((6, 1)), sizes=(2,), provenance=MAKER,
                                               dtype="float32")
    trials = read_features(tmp_path / "f.h5").trials()
    assert [trial.gallery_key.tolist() for trial in trials] == [["0.jpg", "1.jpg"], ["2.jpg", "3.jpg"]]
    assert [trial.query.features.tolist() for trial in trials] == [[[8, 9]], [[10, 11]]]
    assert [trial.query.occlusion.tolist() for trial in trials] == [[0.25], [0.75]]
