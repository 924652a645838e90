"""Triangles to pixels: a z-buffer in numpy, by scan lines, so that the work grows with the pixels that are hit."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A view of the body at the origin. Angles in radians: `azimuth` 0 looks at the front, positive from the
    person's left; `elevation` looks down. `distance` in metres to the point at `target` height."""

    azimuth: float
    elevation: float
    distance: float
    target: float

    def axes(self) -> np.ndarray:
        """Unit rows right, up and towards the camera, (3, 3)."""
        sa, ca, se, ce = np.sin(self.azimuth), np.cos(self.azimuth), np.sin(self.elevation), np.cos(self.elevation)
        return np.array([[ca, 0, -sa], [-sa * se, ce, -ca * se], [sa * ce, se, ca * ce]])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(V, 3) metres -> (V, 2) x right and y down in metres at the target's distance, and depth (V,)."""
        shifted = points - np.array([0, self.target, 0])
        x, y, z = (np.einsum("vi,i->v", shifted, row) for row in self.axes())
        depth = self.distance - z
        scale = self.distance / depth
        return np.stack([x * scale, -y * scale], 1), depth


def rasterise(xy: np.ndarray, depth: np.ndarray, triangles: np.ndarray, height: int, width: int
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nearest triangle at each pixel centre (x + 0.5, y + 0.5).

    xy (V, 2) pixels, depth (V,), triangles (T, 3); those seen from behind (clockwise with y down) are skipped.
    Returns, for the P pixels that are hit: pixel (P,) = y * width + x in increasing order, triangle (P,),
    weights (P, 3) of its corners, depth (P,).
    """
    corner = xy[triangles]                                                      # (T, 3, 2)
    x, y = corner[..., 0], corner[..., 1]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    top = np.maximum(np.ceil(y.min(1) - .5), 0).astype(np.int64)
    bottom = np.minimum(np.floor(y.max(1) - .5), height - 1).astype(np.int64)
    keep = np.flatnonzero((area > 1e-9) & (bottom >= top) & (x.max(1) > 0) & (x.min(1) < width))
    x, y, area, top = x[keep], y[keep], area[keep], top[keep]
    # Edge functions E_k = a x + b y + c >= 0 inside; E_k / area is the weight of corner k.
    nxt, last = [1, 2, 0], [2, 0, 1]
    a = (y[:, nxt] - y[:, last]) / area[:, None]
    b = (x[:, last] - x[:, nxt]) / area[:, None]
    c = -(a * x[:, nxt] + b * y[:, nxt])
    row_of, row = _expand(top, bottom[keep] - top + 1)                          # (S,) scan lines
    centre = row + .5
    rest = b[row_of] * centre[:, None] + c[row_of]
    slope = a[row_of]
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = -rest / slope
    low = np.where(slope > 0, cross, -np.inf).max(1)
    high = np.where(slope < 0, cross, np.inf).min(1)
    low = np.where(((slope == 0) & (rest < 0)).any(1), np.inf, low)
    first = np.maximum(np.ceil(np.clip(low, -1, width + 1) - .5), 0).astype(np.int64)
    final = np.minimum(np.floor(np.clip(high, -1, width + 1) - .5), width - 1).astype(np.int64)
    full = np.flatnonzero(final >= first)
    line_of, column = _expand(first[full], (final - first + 1)[full])           # (N,) hits
    line_of = full[line_of]
    weights = slope[line_of] * (column + .5)[:, None] + rest[line_of]
    local = row_of[line_of]
    near = np.einsum("nk,nk->n", weights, depth[triangles[keep]][local])
    pixel = row[line_of] * width + column
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, pixel, near)
    won = np.flatnonzero(near == nearest[pixel])
    pixel, order = np.unique(pixel[won], return_index=True)
    won = won[order]
    return pixel, keep[local[won]], weights[won], near[won]


def _expand(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number i and value start[i] + 0 .. count[i] - 1, for every i in turn."""
    owner = np.repeat(np.arange(len(start)), count)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return owner, start[owner] + offset
