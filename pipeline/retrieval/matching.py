"""Matching: query and gallery as they are compared, the part distance, and the frame in which features are multiplied.

Distances do not change where all features move by one vector, cosines not where each is stretched, and no ranking where
all are stretched alike. Floating-point numbers do not know that: the square of 1e20 is infinite in float32, that of
1e-30 nothing, and of two squares near 1e12 the difference is noise. So `settle` looks at the features once and chooses
a frame: ordinary features stay as they are, to the bit; the others are moved and stretched before they are squared.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from pipeline.base.errors import InputError
from pipeline.base.spread import evenly

SAMPLE = 128  # images of each side by which the frame is chosen
ORDINARY = (2.0**-6, 2.0**20)  # lengths that Euclidean distances are made from as they are
OFF_CENTRE = 16  # squared distance of the features' middle from the origin, over that from themselves, that is too much
NARROW = 2.0**-13  # 1 - cos of neighbours of which float32, whose last bit is 2**-24 there, leaves too little
NOISE = 1e-14  # 1 - cos in float64 of one feature with itself
LONG = 2.0**10  # numbers, beside the usual length, from which distances need float64 to differ
LONGEST = 2.0**30  # and where that does not help either


@dataclass(frozen=True)
class Side:
    """Queries or gallery: `features` (N, sum D_p) float16/32/64, `visibility` (N, P) in 0..1, `pid`, `camid` (N,).

    occlusion (N,): the share of each body that is hidden, 0..1, where known. mark (N,): a number of each image's own,
    of 64 bits, that says nothing of its identity; its row where none is given.
    """
    features: np.ndarray
    visibility: np.ndarray
    pid: np.ndarray
    camid: np.ndarray
    occlusion: np.ndarray | None = None
    mark: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.mark is None:
            object.__setattr__(self, "mark", np.arange(len(self.pid), dtype=np.uint64))

    def __len__(self) -> int:
        return len(self.pid)

    def take(self, rows: np.ndarray | slice) -> "Side":
        """Some of its images; a slice copies nothing."""
        return Side(self.features[rows], self.visibility[rows], self.pid[rows], self.camid[rows],
                    None if self.occlusion is None else self.occlusion[rows], self.mark[rows])


@dataclass(frozen=True)
class Frame:
    """Euclidean distances are made from (feature - centre) / 2**exponent, and are in units of 2**exponent."""
    centre: np.ndarray | None = None  # (sum D_p,) float64
    exponent: int = 0

    @property
    def plain(self) -> bool:
        return self.centre is None and not self.exponent


@dataclass(frozen=True)
class Matching:
    """How two images are compared: the parts' `sizes` D_p, `distance` cosine | euclidean, `reduction` mean | sum.

    whole_body: the part that orders the pairs which share none, whatever its visibility; None where the model has none.
    frame: what `settle` chose.
    """
    sizes: tuple[int, ...]
    distance: str
    reduction: str
    double: bool = False  # float64 instead of float32 arithmetic
    whole_body: int | None = None
    frame: Frame | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.distance not in ("cosine", "euclidean"):
            raise InputError(f"the part distance is {self.distance!r}; it is one of cosine, euclidean")
        if self.reduction not in ("mean", "sum"):
            raise InputError(f"the reduction over parts is {self.reduction!r}; it is one of mean, sum")
        if self.whole_body is not None and self.whole_body not in range(len(self.sizes)):
            raise InputError(f"the whole body is part {self.whole_body!r}; it is one of the {len(self.sizes)} parts, "
                             "counted from 0")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.double else torch.float32


def settle(query: Side, gallery: Side, matching: Matching) -> Matching:
    """The matching with a frame for these images, as it is if it has one. InputError names an image whose features are
    not finite, or too long beside the others' to be in one frame with them."""
    if matching.frame is not None:
        return matching
    if not (len(query) and len(gallery)):
        return replace(matching, frame=Frame())

    peaks = [_peak(query, "query"), _peak(gallery, "gallery")]
    sample = np.concatenate([side.features[evenly(len(side), SAMPLE)].astype(np.float64) for side in (query, gallery)])
    if matching.distance == "cosine":
        return replace(matching, double=matching.double or _narrow(sample, matching.sizes), frame=Frame())

    frame, length = _frame(sample, max(peaks))
    if frame.centre is not None:
        peaks = [_reach(side, frame.centre).max() for side in (query, gallery)]
    for name, side, peak in zip(("query", "gallery"), (query, gallery), peaks, strict=True):
        if peak / LONGEST > length:
            row = int(_reach(side, 0.0 if frame.centre is None else frame.centre).argmax())
            raise InputError(f"row {row} of the {name} features reaches {peak:.1e}, and most of the others have a "
                             f"length of about {length:.1e}; no number holds the distances of both: leave it out or "
                             "compute it again")
    return replace(matching, double=matching.double or max(peaks) / LONG > length, frame=frame)


def _reach(side: Side, centre: np.ndarray | float) -> np.ndarray:
    """Each feature's largest distance from the centre along an axis, (N,)."""
    return np.array([abs(feature.astype(np.float64) - centre).max() for feature in side.features])


def _peak(side: Side, name: str) -> float:
    """The largest absolute value of its features."""
    if not side.features.size:
        return 0.0
    low, high = (float(end) for end in torch.aminmax(torch.from_numpy(side.features)))
    if not (np.isfinite(low) and np.isfinite(high)):
        row = next(row for row, feature in enumerate(side.features) if not np.isfinite(feature).all())
        raise InputError(f"row {row} of the {name} features is not finite; compute it again")
    return max(-low, high)


def _frame(sample: np.ndarray, peak: float) -> tuple[Frame, float]:
    """The frame, and the usual length from its centre, from some images' features (N, sum D_p) float64 and the largest
    absolute value of all."""
    rough = _exponent(_middle(abs(sample).max(axis=1, initial=0)) or peak)
    sample = np.ldexp(sample, -rough)
    centre = np.median(sample, axis=0)
    with np.errstate(over="ignore"):
        around = _middle(np.square(sample - centre).sum(axis=1))
        whole = _middle(np.square(sample).sum(axis=1))

    moved = around > 0 and np.square(centre).sum() > OFF_CENTRE * around
    length = np.sqrt(around if moved else whole) or 1.0
    usual = float(np.ldexp(length, rough))
    ordinary = ORDINARY[0] <= usual <= ORDINARY[1]
    return Frame(np.ldexp(centre, rough) if moved else None, 0 if ordinary else rough + _exponent(length)), usual


def _narrow(sample: np.ndarray, sizes: tuple[int, ...]) -> bool:
    """Whether neighbours lie so nearly in one direction that 1 - cos is lost in float32."""
    units = unit_parts(sample, sizes)
    apart = 1 - units @ units.T / len(sizes)
    np.fill_diagonal(apart, np.inf)
    return 0 < _middle(np.where(apart > NOISE, apart, np.inf).min(axis=1)) < NARROW


def unit_parts(features: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Each part of each row (N, sum D_p) float64 at length 1, whatever its scale; a part of zeros stays it."""
    units = np.empty_like(features)
    for part in (slice(end - size, end) for size, end in zip(sizes, np.cumsum(sizes), strict=True)):
        exponents = np.frexp(abs(features[:, part]).max(axis=1, keepdims=True))[1]
        near = np.ldexp(features[:, part], -exponents)  # its largest value in 0.5..1
        lengths = np.linalg.norm(near, axis=1, keepdims=True)
        units[:, part] = np.divide(near, lengths, out=np.zeros_like(near), where=lengths > 0)
    return units


def _middle(values: np.ndarray) -> float:
    """Median of those that are not 0."""
    some = values[values > 0]
    return float(np.median(some)) if len(some) else 0.0


def _exponent(value: float) -> int:
    """e of value = m 2**e, m in 0.5..1; 0 of 0."""
    return int(np.frexp(value)[1])
