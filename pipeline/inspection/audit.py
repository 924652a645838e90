"""Audit of a cache: is the parse believable? Metrics that need no ground truth, and the images that look wrongest.

Areas are shares of the frame. A reference cache (the renderer's, say) tells what areas people have; another parser's
cache, or a file of 2-D joints, tells where this one errs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from pipeline.base.body_parts import DENSEPOSE24, PARTS8, TAXONOMIES
from pipeline.base.errors import InputError
from pipeline.base.images import nearest
from pipeline.base.progress import progress
from pipeline.base.seeds import rng
from pipeline.base.spread import evenly
from pipeline.caches.cache import Cache
from pipeline.datasets.joints import COCO18
from pipeline.inspection.missing_parts import FAULTS, fault_shares, faults, good_parse, verdict

LEAST = 0.002  # share of the frame below which a part is too small to be judged
FACING = 4  # times as much torso front as back, or the other way round, for a view that is not from the side
REACH = 0.02  # of the height: how far from a joint its part may lie
BODY = range(1, len(PARTS8))
# Parts that may stand at a joint; at a border either side is right.
_AT = {"nose": ("head",), "eye": ("head",), "ear": ("head",), "neck": ("head", "torso"),
       "shoulder": ("torso", "upper-arm"), "elbow": ("upper-arm", "lower-arm"), "wrist": ("lower-arm",),
       "hip": ("torso", "upper-leg"), "knee": ("upper-leg", "lower-leg"), "ankle": ("lower-leg", "foot")}


_UPPER_ARMS = [[DENSEPOSE24.index(f"upper arm {side} {face}") for face in ("front", "back")]
               for side in ("left", "right")]
_TORSO = [DENSEPOSE24.index(f"torso {face}") for face in ("front", "back")]


@dataclass
class Seen:
    """What was measured of each image; nan or "" where it cannot be judged. Row i is `keys[i]`.

    taxonomy: of the cache's native labels; areas (N, 8) shares of the frame; upright, sides: 1 plausible, 0 not, nan
    not judged; overlap: mean IoU with the other cache; joints (N, 18): 1 the joint's part is there, 0 not, nan hidden
    or unknown; confusion: pixels by this cache's label (row) and the other's (column).
    """

    taxonomy: str
    keys: list[str]
    status: list[str]
    areas: np.ndarray
    upright: np.ndarray
    sides: np.ndarray
    overlap: np.ndarray
    joints: np.ndarray
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((len(PARTS8), len(PARTS8)), np.int64))

    @property
    def faults(self) -> dict[str, np.ndarray]:
        """FAULTS (pipeline/inspection/missing_parts.py) of each image."""
        return faults(self.areas, self.upright, self.sides, good_parse(self.taxonomy)["least"])


def survey(cache: Cache, *, other: Cache | None = None, joints: dict[str, np.ndarray] | None = None,
           sample: int = 0) -> Seen:
    """Read a cache's labels once. joints: those of images by key, as `Joints.shares` gives them; sample: so many rows,
    spread evenly, instead of all (0).

    InputError where a cache is damaged, or the other one shares no image with this one.
    """
    keys, status = cache.column("key"), cache.column("status")
    maker = cache.maker
    if maker.get("taxonomy") not in TAXONOMIES:
        raise InputError(f"{str(cache.path)!r}: its maker has the taxonomy {maker.get('taxonomy')!r}, known are "
                         f"{', '.join(TAXONOMIES)}; make it again with the stage parse")

    sided = maker["taxonomy"] == "densepose24" and maker["exact"]  # label maps may write "right" and "front" for all
    chosen = evenly(len(keys), sample or len(keys))
    others = parsed_rows(other) if other else {}
    if other and not others.keys() & set(keys):
        shared = set(other.column("key")) & set(keys)
        raise InputError(f"{str(other.path)!r}: {'has parsed none of the' if shared else 'shares no'} "
                         f"image{'s of' if shared else ' with'} {str(cache.path)!r}; name a cache of the same images")

    count = len(chosen)
    seen = Seen(taxonomy=maker["taxonomy"], keys=[str(keys[row]) for row in chosen],
                status=[str(status[row]) for row in chosen],
                areas=np.full((count, len(PARTS8)), np.nan), upright=np.full(count, np.nan),
                sides=np.full(count, np.nan), overlap=np.full(count, np.nan),
                joints=np.full((count, len(COCO18)), np.nan))

    for place, row in enumerate(progress(chosen, "audit", unit="rows")):
        if seen.status[place].startswith("failed"):
            continue

        labels, native = cache.read("labels", row), cache.read("native", row)
        key = seen.keys[place]
        seen.areas[place] = areas_of(labels)
        seen.upright[place] = is_upright(labels)
        seen.sides[place] = has_sides(native) if sided else math.nan
        if other and key in others:
            counts = confusion(labels, nearest(other.read("labels", others[key]), *labels.shape))
            seen.confusion += counts
            seen.overlap[place] = np.nanmean(part_overlap(counts)[1:]) if counts[1:].any() or counts[:, 1:].any() else 1
        if joints and key in joints:
            seen.joints[place] = joint_agreement(labels, joints[key], exact=bool(maker["exact"]))

    return seen


def parsed_rows(cache: Cache) -> dict[str, int]:
    """Key -> row of the images that have a parse; what failed is no background."""
    return {key: row for row, (key, status) in enumerate(zip(cache.column("key"), cache.column("status"), strict=True))
            if not status.startswith("failed")}


def areas_of(labels: np.ndarray) -> np.ndarray:
    """Labels (H, W) of the 8 parts -> each part's share of the frame (8,)."""
    return np.bincount(labels.ravel(), minlength=len(PARTS8))[:len(PARTS8)] / labels.size


def is_upright(labels: np.ndarray) -> float:
    """1 where the head's middle lies above the torso's, and that above the feet's or, without feet, the legs'; 0 where
    it does not; nan where fewer than two of them can be seen."""
    least = LEAST * labels.size
    heights = []
    for parts in (("head",), ("torso",), ("foot",) if np.count_nonzero(labels == 7) >= least
                  else ("upper-leg", "lower-leg")):
        rows = np.nonzero(np.isin(labels, [PARTS8.index(part) for part in parts]))[0]
        if len(rows) >= max(least, 1):
            heights.append(rows.mean())

    return float(all(np.diff(heights) > 0)) if len(heights) > 1 else math.nan


def has_sides(native: np.ndarray) -> float:
    """DensePose-24 labels (H, W) -> 1 where a person seen from the front has the right upper arm left of the left one
    in the image, from the back the other way round; 0 where they are exchanged; nan where it cannot be told.

    Upper arms alone: legs and lower arms swing past each other. Front is FACING times as much torso front as back. On
    rendered truth that is right in all 891 of 2,040 images it judges; no such rule was found for LIP-20.
    """
    front, back = (np.count_nonzero(native == label) for label in _TORSO)
    facing = 1 if front > FACING * back else -1 if back > FACING * front else 0
    left, right = (np.nonzero(np.isin(native, labels))[1] for labels in _UPPER_ARMS)
    if not facing or min(len(left), len(right)) < max(LEAST * native.size, 1):
        return math.nan
    return float((left.mean() - right.mean()) * facing > 0)


def confusion(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pixels by this label (row) and the other's (column), (8, 8) int64."""
    pairs = labels.astype(np.int64) * len(PARTS8) + others
    return np.bincount(pairs.ravel(), minlength=len(PARTS8) ** 2).reshape(len(PARTS8), -1)


def part_overlap(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of each label (8,), nan where neither has it."""
    both = np.diag(counts).astype(np.float64)
    either = counts.sum(0) + counts.sum(1) - both
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)


def joint_agreement(labels: np.ndarray, joints: np.ndarray, *, exact: bool) -> np.ndarray:
    """For each of COCO's 18 joints (x, y as shares, visible) 1 if a part that may stand there lies within REACH, 0 if
    not, nan where the joint is hidden or out of the frame. Not `exact` (LIP): a sleeve is torso, elbow and wrist too.
    """
    height, width = labels.shape
    reach = REACH * height
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    result = np.full(len(COCO18), np.nan)
    for number, (x, y, visible) in enumerate(joints):
        if visible and 0 <= x < 1 and 0 <= y < 1:
            near = labels[(rows - y * height) ** 2 + (columns - x * width) ** 2 <= max(reach, 1) ** 2]
            kind = COCO18[number].split()[-1]
            allowed = [*_AT[kind], *(["torso"] if not exact and kind in ("elbow", "wrist") else [])]
            result[number] = np.isin(near, [PARTS8.index(part) for part in allowed]).any()

    return result


def metrics(seen: Seen, reference: Seen | None, *, people: str = "whole",
            groups: Mapping[str, Mapping[str, np.ndarray]] | None = None) -> dict[str, Any]:
    """All metrics of a survey, shares rounded to 4 digits; None where nothing could be judged.

    people: of which kind of PEOPLE a good parse is taken; groups: kind -> group -> which images (N,) bool are in it,
    to tell their faults apart.
    """
    kept = seen.areas[~np.isnan(seen.areas[:, 0])]
    result: dict[str, Any] = {
        "images": len(seen.keys), "failed": _share([status.startswith("failed") for status in seen.status]),
        "no_person": _share([status == "no person" for status in seen.status]),
        "areas": {PARTS8[part]: _area_metrics(kept[:, part]) for part in BODY},
        "head_above_feet": _judged(seen.upright), "left_right": _judged(seen.sides),
        **_missing(seen, people, groups or {})}
    if reference is not None:
        known = reference.areas[~np.isnan(reference.areas[:, 0])]
        result["reference"] = {PARTS8[part]: {
            **_area_metrics(known[:, part]),
            "ks": _round(ks_2samp(kept[:, part], known[:, part]).statistic) if len(kept) and len(known) else None}
            for part in BODY}
    if not np.isnan(seen.overlap).all():
        overlap, total = part_overlap(seen.confusion), seen.confusion.sum()
        result["other"] = {"images": int((~np.isnan(seen.overlap)).sum()),
                           "same_pixels": _round(np.diag(seen.confusion).sum() / total),
                           "mean_iou": _round(np.nanmean(overlap)),
                           "iou": {name: _round(value) for name, value in zip(PARTS8, overlap, strict=True)}}
    if not np.isnan(seen.joints).all():
        result["joints"] = {"all": _judged(seen.joints.ravel()), **{
            name: _judged(seen.joints[:, number]) for number, name in enumerate(COCO18)}}

    return result


def _missing(seen: Seen, people: str, groups: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    good, flags = good_parse(seen.taxonomy), seen.faults
    found = fault_shares(flags)
    return {"people": people, "faults": found, "good_parse": good[people], "least": good["least"],
            "verdict": verdict(found, good[people], people),
            **{kind: {name: {"images": int(chosen.sum()), "faults": fault_shares(flags, chosen)}
                      for name, chosen in members.items()} for kind, members in groups.items()}}


def _area_metrics(areas: np.ndarray) -> dict[str, float | None]:
    """mean, 5th, 50th and 95th percentile of a part's area, and the share of images that have it."""
    if not len(areas):
        return dict.fromkeys(("mean", "p5", "p50", "p95", "seen"))
    low, middle, high = np.percentile(areas, [5, 50, 95])
    return {"mean": _round(areas.mean()), "p5": _round(low), "p50": _round(middle), "p95": _round(high),
            "seen": _share(areas >= LEAST)}


def _judged(values: np.ndarray) -> dict[str, float | int | None]:
    judged = values[~np.isnan(values)]
    return {"judged": len(judged), "plausible": _round(judged.mean()) if len(judged) else None}


def _share(flags: Sequence[bool] | np.ndarray) -> float | None:
    return _round(np.mean(flags)) if len(flags) else None


def _round(value: Any) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


def oddness(areas: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How odd each image's part areas are (N,): the sum over the 7 parts of -log of the share of `known` images whose
    area is at least as far out on that side, doubled. nan where the image has no areas."""
    ordered = np.sort(known[~np.isnan(known[:, 0])], axis=0)
    total = np.zeros(len(areas))
    for part in BODY:
        below = np.searchsorted(ordered[:, part], areas[:, part], side="right")
        above = len(ordered) - np.searchsorted(ordered[:, part], areas[:, part], side="left")
        tail = np.minimum(1, 2 * (np.minimum(below, above) + 1) / (len(ordered) + 1))
        total -= np.log(tail)

    return np.where(np.isnan(areas[:, 0]), np.nan, total)


def outliers(seen: Seen, reference: Seen | None, most: int = 20) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titles, and under each up to `most` images (key, why): those without a part spread evenly, of other kinds the
    wrongest first."""
    flags = seen.faults
    odd = oddness(seen.areas, (reference or seen).areas)
    odd[flags["no_person"] == 1] = np.nan
    joints = np.array([np.nan if np.isnan(row).all() else np.nanmean(row) for row in seen.joints])

    parts = []
    for name in [name for name in FAULTS if name not in ("not_upright", "sides_exchanged")]:
        # who has no person lacks every part: shown once
        places = np.flatnonzero((flags[name] == 1) & ((flags["no_person"] == 0) | (name == "no_person")))
        spread = [(int(places[place]), "") for place in evenly(len(places), most)]
        parts.append((f"{FAULTS[name]} ({len(places)})", spread))

    upright, sides = _wrong(seen.upright, odd), _wrong(seen.sides, odd)
    ranked = [(f"{FAULTS['not_upright']} ({len(upright)})", upright),
              (f"{FAULTS['sides_exchanged']} ({len(sides)})", sides),
              ("unusual part areas", _lowest(-odd, lambda place: f"oddness {odd[place]:.1f}")),
              ("least agreement with the other parser", _lowest(seen.overlap, lambda p: f"mIoU {seen.overlap[p]:.2f}")),
              ("least agreement with joints", _lowest(joints, lambda place: f"{joints[place]:.0%} of joints"))]
    return [(title, [(seen.keys[place], why) for place, why in worst[:most]])
            for title, worst in [*parts, *ranked] if worst]


def random_keys(seen: Seen, count: int) -> list[str]:
    """Up to `count` images that were parsed or have no person, drawn at random, the same ones each time, sorted."""
    kept = [key for key, status in zip(seen.keys, seen.status, strict=True) if not status.startswith("failed")]
    order = rng(0, "audit", "random").permutation(len(kept))
    return sorted(kept[place] for place in order[:count])


def _wrong(judged: np.ndarray, odd: np.ndarray) -> list[tuple[int, str]]:
    places = np.flatnonzero(judged == 0)
    return [(int(place), "") for place in places[np.argsort(-np.nan_to_num(odd[places]), kind="stable")]]


def _lowest(values: np.ndarray, say: Any) -> list[tuple[int, str]]:
    places = np.argsort(values, kind="stable")
    return [(int(place), say(place)) for place in places if not np.isnan(values[place])]
