"""Rankings in loops, written from the definitions, and problems full of ties, gaps and odd identities."""

from math import inf, sqrt

import numpy as np

from pipeline.retrieval.matching import Matching, Side


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
