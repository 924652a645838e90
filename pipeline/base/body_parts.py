"""Body parts: LIP-20 and DensePose-24 labels, the 8 and 4 parts the papers use, and what flipping exchanges.

DensePose-24 gives the 8 parts exactly. LIP-20 knows no upper and lower limb, so its limbs are cut by geometry, and a
sleeve stays torso: the result is approximate, and a cache made so says it.
"""

from collections.abc import Sequence

import numpy as np

LIP20 = ("background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants",
         "jumpsuits", "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe",
         "right-shoe")
# The arms reverse the legs' front/back order.
DENSEPOSE24 = ("background", "torso back", "torso front", "right hand", "left hand", "left foot", "right foot",
               "upper leg right back", "upper leg left back", "upper leg right front", "upper leg left front",
               "lower leg right back", "lower leg left back", "lower leg right front", "lower leg left front",
               "upper arm left front", "upper arm right front", "upper arm left back", "upper arm right back",
               "lower arm left front", "lower arm right front", "lower arm left back", "lower arm right back",
               "head right", "head left")
PARTS8 = ("background", "head", "torso", "upper-arm", "lower-arm", "upper-leg", "lower-leg", "foot")
PARTS4 = ("background", "head", "upper-body", "lower-body", "shoes")
SURFACE_PARTS = len(DENSEPOSE24) - 1  # the charts, background left out
TAXONOMIES = {"lip20": LIP20, "densepose24": DENSEPOSE24}


def _table(values: Sequence[int] | np.ndarray) -> np.ndarray:
    table = np.array(values, np.uint8)
    table.setflags(write=False)
    return table


# Look-up tables: TABLE[label map] is the coarser label map.
DENSEPOSE24_TO_PARTS8 = _table([0, 2, 2, 4, 4, 7, 7, 5, 5, 5, 5, 6, 6, 6, 6, 3, 3, 3, 3, 4, 4, 4, 4, 1, 1])
PARTS8_TO_PARTS4 = _table([0, 1, 2, 2, 2, 3, 3, 4])
# SGSFA 3.2: a jumpsuit is lower body, socks are shoes.
LIP20_TO_PARTS4 = _table([0, 1, 1, 2, 1, 2, 2, 2, 4, 3, 3, 2, 3, 1, 2, 2, 3, 3, 4, 4])
# The upper half of a limb; `lip20_lower` says which pixels go to the part after it.
LIP20_TO_UPPER_PARTS8 = _table([0, 1, 1, 4, 1, 2, 2, 2, 6, 5, 2, 2, 5, 1, 3, 3, 5, 5, 7, 7])

# What a horizontal flip makes of a label; each table is its own inverse.
LIP20_FLIP = _table([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 14, 17, 16, 19, 18])
DENSEPOSE24_FLIP = _table([0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23])
DENSEPOSE24_MIRRORED = _table([part - 1 for part in DENSEPOSE24_FLIP[1:].tolist()])  # parts alone, counted from 0
# What a flip makes of u and v once left and right have changed places: v -> 1 - v on the torso, u -> 1 - u on hands,
# feet and head. The charts of left and right arms and legs mirror each other already.
DENSEPOSE24_MIRROR_V = (1, 2)
DENSEPOSE24_MIRROR_U = (3, 4, 5, 6, 23, 24)

_HEAD = (1, 2, 4, 13)
_TORSO = (5, 6, 7, 10, 11)
_ARMS = (14, 15)
_LEGS = (9, 12, 16, 17)
_SOCKS = 8


def parts8_from_native(native: np.ndarray, taxonomy: str) -> np.ndarray:
    """A parser's labels (H, W) or (B, H, W), `taxonomy` densepose24 | lip20, to the 8 parts, uint8, the same shape."""
    if taxonomy == "densepose24":
        return DENSEPOSE24_TO_PARTS8[native]
    if taxonomy != "lip20":
        raise ValueError(f"unknown taxonomy {taxonomy!r}; known are {', '.join(TAXONOMIES)}")
    if native.ndim == 3:
        return np.stack([parts8_from_native(image, taxonomy) for image in native])

    return LIP20_TO_UPPER_PARTS8[native] + lip20_lower(native)[native, *np.indices(native.shape, sparse=True)]


def lip20_probabilities_to_parts8(probabilities: np.ndarray, native: np.ndarray) -> np.ndarray:
    """LIP-20 probabilities (20, H, W) to those of the 8 parts (8, H, W); `native` (H, W) says where limbs are cut."""
    lower = lip20_lower(native)
    parts = np.zeros((len(PARTS8), *native.shape), probabilities.dtype)
    for label, part in enumerate(LIP20_TO_UPPER_PARTS8):
        parts[part] += np.where(lower[label], 0, probabilities[label])
        if lower[label].any():
            parts[part + 1] += np.where(lower[label], probabilities[label], 0)

    return parts


def lip20_lower(native: np.ndarray) -> np.ndarray:
    """Where a LIP-20 label means the lower half of its limb: (20, H, W) bool for a label map (H, W).

    Arms are cut at the middle of their axis (the first principal one), the end nearer to the neck being the upper;
    pants, skirt and legs half-way from the first row of them all to the ankle, the last row of them and the socks.
    """
    lower = np.zeros((len(LIP20), *native.shape), bool)
    for label in _ARMS:
        lower[label] = _beyond_middle(native, label)

    rows = np.flatnonzero(np.isin(native, _LEGS).any(axis=1))
    if len(rows):
        ankle = np.flatnonzero(np.isin(native, (*_LEGS, _SOCKS)).any(axis=1))[-1]
        lower[list(_LEGS), (rows[0] + ankle) // 2 + 1:] = True

    return lower


def _beyond_middle(native: np.ndarray, label: int) -> np.ndarray:
    """(H, W) bool: the half of the plane, across the middle of an arm's axis, that lies away from the neck."""
    pixels = np.argwhere(native == label).astype(np.float64)
    if not len(pixels):
        return np.zeros(native.shape, bool)

    centre = pixels.mean(axis=0)
    axis = np.linalg.eigh((pixels - centre).T @ (pixels - centre))[1][:, -1]
    along = (pixels - centre) @ axis
    ends = centre + np.outer([along.min(), along.max()], axis)
    distance = np.linalg.norm(ends - _neck(native, ends), axis=1)
    direction = axis if distance[0] <= distance[1] else -axis
    rows, columns = np.indices(native.shape)
    across = (rows - centre[0]) * direction[0] + (columns - centre[1]) * direction[1]

    return across > (along.min() + along.max()) / 2 * np.sign(direction @ axis)


def _neck(native: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(row, column) under the head, else above the torso; with neither to be seen, the higher of the arm's ends."""
    for labels, place in ((_HEAD, -1), (_TORSO, 0)):
        pixels = np.argwhere(np.isin(native, labels))
        if len(pixels):
            return np.array([pixels[place, 0], pixels[:, 1].mean()])
    return ends[ends[:, 0].argmin()]
