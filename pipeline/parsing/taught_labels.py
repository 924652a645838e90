"""DensePose-24 labels of a photograph out of two: clothes that a hand drew, and a teacher's division of the body.

The hand's labels say where the person is and, of hair, hats, glasses, gloves and shoes, which part of them; the
teacher, another parser, divides the rest, and says which half of the head and which foot. Where it says background, or
a part that the clothes rule out, the nearest of its labels that they allow counts.
"""

import numpy as np
from scipy.ndimage import distance_transform_edt

from pipeline.base.body_parts import DENSEPOSE24, DENSEPOSE24_TO_PARTS8, LIP20, PARTS8
from pipeline.parsing.augmentation import UNKNOWN
from pipeline.parsing.label_map import LabelMap
from pipeline.parsing.lip_to_parts import OPEN

REACH = 0.12  # of the person's height: farther away a teacher's label says nothing of what is here
_ARMS, _LEGS = ("upper-arm", "lower-arm"), ("upper-leg", "lower-leg")

# Which of the 8 parts may be under a label of LIP-20 or an open one: sleeves and long coats cover limbs.
MAY_BE: dict[str, tuple[str, ...]] = {
    "background": (),
    **dict.fromkeys(("hat", "hair", "sunglasses", "face"), ("head",)),
    "glove": ("lower-arm",),
    "upper-clothes": ("torso", *_ARMS, "upper-leg"),
    "scarf": ("torso", *_ARMS),
    **dict.fromkeys(("dress", "coat", "jumpsuits"), ("torso", *_ARMS, *_LEGS)),
    **dict.fromkeys(("pants", "skirt"), ("torso", *_LEGS)),
    "socks": ("lower-leg", "foot"),
    **dict.fromkeys(("left-arm", "right-arm", "arm"), _ARMS),
    **dict.fromkeys(("left-leg", "right-leg", "leg"), (*_LEGS, "foot")),
    **dict.fromkeys(("left-shoe", "right-shoe", "shoe"), ("foot",)),
    "skin": PARTS8[1:],
}
BOOTS = "boots"  # of ccp59 a shoe, and as high as the knee
_SIDES = np.array([0 if "torso" in name or name == "background" else 1 if "right" in name else 2
                   for name in DENSEPOSE24])  # nobody's | right | left
_OF_SIDE = {PARTS8.index(part): np.array([0, *(DENSEPOSE24.index(name) for name in names)], np.uint8)
            for part, names in (("head", ("head right", "head left")), ("foot", ("right foot", "left foot")))}


def may_be(labels: LabelMap) -> np.ndarray:
    """Which of the 8 parts each of a label map's ids may cover, (256, 8) bool; none: background."""
    names = (*LIP20, *OPEN)
    table = np.zeros((256, len(PARTS8)), bool)
    for label, (name, target) in enumerate(zip(labels.names, labels.targets, strict=True)):
        parts = ("lower-leg", "foot") if name == BOOTS else MAY_BE[names[target]]
        table[label, [PARTS8.index(part) for part in parts]] = True
    return table


def divide(clothes: np.ndarray, teacher: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """DensePose-24 labels (h, w) uint8 of a hand's label ids `clothes` and a teacher's DensePose-24 labels, both (h, w)
    uint8; allowed: see `may_be`. UNKNOWN where the clothes leave several parts open and the teacher saw none near."""
    worn = np.asarray(allowed.any(axis=1))
    inside = worn[clothes]
    parts = DENSEPOSE24_TO_PARTS8[teacher]
    agreed = inside & allowed[clothes, parts]
    result = np.where(agreed, teacher, 0).astype(np.uint8)
    if not inside.any():
        return result

    rows = np.flatnonzero(inside.any(axis=1))
    reach = REACH * (rows[-1] + 1 - rows[0])
    kinds, kind = np.unique(allowed, axis=0, return_inverse=True)  # labels that may be the same parts, together
    for number, ruled in enumerate(kinds):
        open_here = inside & ~agreed & (kind.reshape(-1)[clothes] == number)
        if open_here.any():
            result[open_here] = _nearest_allowed(teacher, ruled, inside, open_here, reach)

    return result


def _nearest_allowed(teacher: np.ndarray, ruled: np.ndarray, inside: np.ndarray, here: np.ndarray, reach: float
                     ) -> np.ndarray:
    """For the pixels `here`, the nearest label of the teacher that is one of the parts `ruled` (8,), inside the person
    if there is one; a head or foot that it has not seen is on the side of the nearest limb."""
    seen = ruled[DENSEPOSE24_TO_PARTS8[teacher]]
    only = int(ruled.argmax()) if ruled.sum() == 1 else 0
    labels = teacher
    if not seen.any() and only in _OF_SIDE:
        labels = _OF_SIDE[only][_SIDES[teacher]]
        seen = labels > 0
    if not seen.any():
        return np.full(here.sum(), UNKNOWN, np.uint8)

    if (seen & inside).any():
        seen = seen & inside
    distance, places = distance_transform_edt(~seen, return_indices=True)
    found = labels[tuple(places)]
    return found[here] if only else np.where(distance > reach, UNKNOWN, found)[here]
