"""Key points drawn as the fields that OpenPifPaf would give: 17 joints and 19 connections, which a label map reads.

A field is 1 on a joint or on the line between two, half at the limb's half-width and less beyond; the torso is filled
where shoulders and hips are seen. Half-widths are shares of the person's height, which is the largest that one of the
bones in sight implies by its share of the body (Drillis and Contini 1966, as in Winter, Biomechanics, Fig. 4.1): a bone
can look shorter than it is, not longer.
"""

import cv2
import numpy as np

# In BPBreID's order (confidence_fields.py), as indices of COCO's 17, each with its share of the body's height, 0 where
# it says nothing of that, and its half-width.
CONNECTIONS = ((15, 13, .246, .035), (13, 11, .245, .05), (16, 14, .246, .035), (14, 12, .245, .05),
               (11, 12, .191, .06), (5, 11, .288, .06), (6, 12, .288, .06), (5, 6, .259, .05), (5, 7, .186, .035),
               (6, 8, .186, .035), (7, 9, .146, .03), (8, 10, .146, .03), (1, 2, 0, .05), (0, 1, 0, .05),
               (0, 2, 0, .05), (1, 3, 0, .05), (2, 4, 0, .05), (3, 5, 0, .035), (4, 6, 0, .035))
WIDTHS = (.06, .06, .06, .06, .06, .04, .04, .03, .03, .03, .03, .05, .05, .04, .04, .045, .045)  # of the 17
SHOULDERS_AND_HIPS = (5, 6, 12, 11)  # around the torso
HIPS_FIELD = len(WIDTHS) + 4


def draw_fields(points: np.ndarray, height: int, width: int, *, least: float = 0) -> np.ndarray:
    """points (17, 3), x and y in pixels of a picture of height x width, confidence -> fields (36, height, width)
    float32 in 0..1. A point counts where its confidence is above 0 and at least `least`."""
    seen = (points[:, 2] > 0) & (points[:, 2] >= least)
    fields = np.zeros((len(WIDTHS) + len(CONNECTIONS), height, width), np.float32)
    if not seen.any():
        return fields

    tall = stature(points, seen) or float(height)
    rows, columns = np.mgrid[:height, :width].astype(np.float32) + 0.5
    lines = [(joint, joint, share) for joint, share in enumerate(WIDTHS)]
    lines += [(first, second, share) for first, second, _, share in CONNECTIONS]
    for field, (first, second, share) in zip(fields, lines, strict=True):
        if seen[first] and seen[second]:
            distance = _distance(rows, columns, points[first, :2], points[second, :2])
            field[:] = 0.5 ** ((distance / (share * tall)) ** 2)

    if seen[list(SHOULDERS_AND_HIPS)].all():
        corners = points[list(SHOULDERS_AND_HIPS), :2].round().astype(np.int32)
        cv2.fillConvexPoly(fields[HIPS_FIELD], cv2.convexHull(corners), 1.0)
    return fields


def stature(points: np.ndarray, seen: np.ndarray) -> float:
    """The body's height in pixels by the bones whose ends are seen (17,) bool; 0 where none is."""
    lengths = [np.linalg.norm(points[first, :2] - points[second, :2]) / share
               for first, second, share, _ in CONNECTIONS if share and seen[first] and seen[second]]
    return float(max(lengths, default=0))


def _distance(rows: np.ndarray, columns: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each pixel (H, W) from the line between two points (x, y)."""
    along = second - first
    length = float(along @ along)
    place = ((columns - first[0]) * along[0] + (rows - first[1]) * along[1]) / length if length else 0 * rows
    place = place.clip(0, 1)
    return np.hypot(columns - first[0] - place * along[0], rows - first[1] - place * along[1])
