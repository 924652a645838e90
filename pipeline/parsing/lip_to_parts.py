"""LIP-20-like labels and probabilities to the pipeline's parts. Approximate wherever geometry stands in for a label.

The cuts of limbs are pipeline/base/body_parts.py's. Some label sets say `skin` or `shoe` and leave open whose and which
side: `open_labels` says what each means at every pixel, for a person who stands upright and faces the camera.
"""

import numpy as np

from pipeline.base.body_parts import (
    DENSEPOSE24_TO_PARTS8,
    LIP20,
    LIP20_TO_PARTS4,
    PARTS4,
    PARTS8,
    PARTS8_TO_PARTS4,
    lip20_probabilities_to_parts8,
)

OPEN = ("skin", "arm", "leg", "shoe")  # ids 20..23 behind LIP's own
_NECK, _WAIST = 0.15, 0.5  # of the person's height, where no garment says it

_TORSO = [LIP20.index(name) for name in ("upper-clothes", "dress", "coat", "jumpsuits")]
_LOWER = [LIP20.index(name) for name in ("pants", "skirt", "dress", "jumpsuits")]


def open_labels(labels: np.ndarray) -> np.ndarray:
    """What skin, arm, leg and shoe mean at each pixel: (4, H, W) LIP-20 ids for labels (H, W) of LIP-20 and OPEN.

    A pixel left of the person's middle is on the person's right side. Skin above the torso's clothes is face, below the
    last row of clothes leg, else arm. A hand that hangs below a short hem becomes leg.
    """
    height, width = labels.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    neck, hem, middle = _landmarks(labels)
    right = np.broadcast_to(columns < middle, (height, width))
    arm, leg, shoe = (np.where(right, LIP20.index(f"right-{limb}"), LIP20.index(f"left-{limb}"))
                      for limb in ("arm", "leg", "shoe"))
    skin = np.where(rows < neck, LIP20.index("face"), np.where(rows > hem, leg, arm))

    return np.stack([skin, arm, leg, shoe]).astype(np.uint8)


def _landmarks(labels: np.ndarray) -> tuple[float, float, float]:
    """First row of the torso's clothes, last row of clothes above the feet, the person's middle column."""
    person = np.argwhere(labels > 0)
    if not len(person):
        return 0.0, 0.0, labels.shape[1] / 2

    first, last = person[:, 0].min(), person[:, 0].max()
    torso, lower = np.argwhere(np.isin(labels, _TORSO)), np.argwhere(np.isin(labels, _LOWER))
    neck = torso[:, 0].min() if len(torso) else first + _NECK * (last - first)
    clothes = lower if len(lower) else torso
    hem = clothes[:, 0].max() if len(clothes) else first + _WAIST * (last - first)

    return float(neck), float(hem), float((torso if len(torso) else person)[:, 1].mean())


def close_labels(labels: np.ndarray) -> np.ndarray:
    """Labels (H, W) of LIP-20 and OPEN to LIP-20 alone, uint8."""
    if labels.max(initial=0) < len(LIP20):
        return labels.astype(np.uint8)
    meaning = open_labels(labels)
    which = np.maximum(labels.astype(np.int64) - len(LIP20), 0)
    chosen = np.take_along_axis(meaning, which[None], 0)[0]
    return np.where(labels < len(LIP20), labels, chosen).astype(np.uint8)


def close_probabilities(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities (24, H, W) of LIP-20 and OPEN to (20, H, W); `labels` (H, W) of the same say where things are."""
    closed = probabilities[:len(LIP20)].copy()
    opened = probabilities[len(LIP20):]
    if opened.any():
        for meaning, share in zip(open_labels(labels), opened, strict=True):
            for label in np.unique(meaning):
                closed[label] += np.where(meaning == label, share, 0)

    return closed


def parts_of(native: np.ndarray, probabilities: np.ndarray, taxonomy: str) -> tuple[np.ndarray, np.ndarray]:
    """native (H, W) and its taxonomy's probabilities (20 or 25, H, W) -> those of the 8 parts (8, H, W) and of
    background + 4 parts (5, H, W). From densepose24 both are sums; from lip20 `native` says where limbs are cut."""
    if taxonomy == "lip20":
        return (lip20_probabilities_to_parts8(probabilities, native),
                _sums(probabilities, LIP20_TO_PARTS4, len(PARTS4)))
    parts8 = _sums(probabilities, DENSEPOSE24_TO_PARTS8, len(PARTS8))
    return parts8, _sums(parts8, PARTS8_TO_PARTS4, len(PARTS4))


def _sums(probabilities: np.ndarray, table: np.ndarray, count: int) -> np.ndarray:
    parts = np.zeros((count, *probabilities.shape[1:]), probabilities.dtype)
    for label, part in enumerate(table):
        parts[part] += probabilities[label]
    return parts
