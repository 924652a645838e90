"""Rasterizer of triangles: a z-buffer in numpy, by scan lines, so that the work grows with the pixels that are hit."""

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
    # Every quantity is a list over the three corners: reducing a short last axis is slow in numpy. Scan lines are
    # cut in double precision, so that neighbours leave no gap; what is interpolated needs only single.
    first, second, third = triangles.T
    all_x, all_y = xy[:, 0], xy[:, 1]
    x, y = [all_x[k] for k in (first, second, third)], [all_y[k] for k in (first, second, third)]
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    top = np.maximum(np.ceil(_least(y) - .5), 0).astype(np.int64)
    bottom = np.minimum(np.floor(_most(y) - .5), height - 1).astype(np.int64)
    keep = np.flatnonzero((area > 1e-9) & (bottom >= top) & (_most(x) > 0) & (_least(x) < width))
    x, y, area, top = [k[keep] for k in x], [k[keep] for k in y], area[keep], top[keep]
    row_of, row = _expand(top, bottom[keep] - top + 1)                          # (S,) scan lines

    # Edge functions E_k = a x + b y + c >= 0 inside; a, b, c are over the area, so E_k is the weight of corner k.
    low, high = np.full(len(row), -1.0), np.full(len(row), width + 1.0)
    edges = []
    for one, other in ((1, 2), (2, 0), (0, 1)):
        a = (y[one] - y[other]) / area
        b = (x[other] - x[one]) / area
        slope, rest = a[row_of], (b[row_of] * (row + .5) - (a * x[one] + b * y[one])[row_of])
        with np.errstate(divide="ignore", invalid="ignore"):
            cross = -rest / slope
        np.copyto(low, np.fmax(low, cross), where=slope > 0)
        np.copyto(high, np.fmin(high, cross), where=slope < 0)
        low[(slope == 0) & (rest < 0)] = width + 1.0
        edges.append((slope.astype(np.float32), rest.astype(np.float32)))

    start = np.maximum(np.ceil(low - .5), 0).astype(np.int64)
    count = np.minimum(np.floor(high - .5), width - 1).astype(np.int64) - start + 1

    full = np.flatnonzero(count > 0)
    line, column = _expand(start[full], count[full])                            # (N,) hits
    line = full[line]
    centre = column.astype(np.float32) + np.float32(.5)
    weights = [slope[line] * centre + rest[line] for slope, rest in edges]
    local, depth = keep[row_of[line]], depth.astype(np.float32)
    near = sum(weight * depth[corner[local]] for weight, corner in zip(weights, (first, second, third), strict=True))

    pixel = row[line] * width + column
    nearest = np.full(height * width, np.inf, np.float32)
    np.minimum.at(nearest, pixel, near)
    won = np.flatnonzero(near == nearest[pixel])
    winner = np.full(height * width, -1)
    winner[pixel[won]] = won
    pixel = np.flatnonzero(winner >= 0)
    won = winner[pixel]

    return pixel, local[won], np.stack([weight[won] for weight in weights], 1), near[won]


def _least(three: list[np.ndarray]) -> np.ndarray:
    return np.minimum(np.minimum(three[0], three[1]), three[2])


def _most(three: list[np.ndarray]) -> np.ndarray:
    return np.maximum(np.maximum(three[0], three[1]), three[2])


def _expand(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number i and value start[i] + 0 .. count[i] - 1, for every i in turn."""
    owner = np.repeat(np.arange(len(start)), count)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return owner, start[owner] + offset
