"""Tubes: rings of points that are joined to a mesh. What every part of a figure is made of."""

from dataclasses import dataclass
from functools import cache

import numpy as np

# Kinds of tube; those of arms, legs and feet are ordered left, right.
TRUNK, HEAD, ARM_L, ARM_R, LEG_L, LEG_R, FOOT_L, FOOT_R, SKIRT, COAT, HAIR, BRIM, SCARF, BAG, HANDLE = range(15)
# Metres, of a figure of 1.75 m.
LENGTHS = {"crotch": .835, "neck": 1.500, "hip": .915, "hip_half": .088, "shoulder": 1.395, "shoulder_half": .172,
           "upper_arm": .285, "lower_arm": .245, "hand": .185, "thigh": .425, "shank": .405, "ankle": .085,
           "foot": .265, "head": .275}


@dataclass(frozen=True)
class Mesh:
    """A posed figure. points (V, 3) in body space, normals (V, 3), along and around (V,), tube (T,) of each triangle,
    triangles (T, 3) wound so that the outside is seen counter-clockwise in x right, y down; joints (18, 3)."""

    points: np.ndarray
    normals: np.ndarray
    along: np.ndarray
    around: np.ndarray
    triangles: np.ndarray
    tube: np.ndarray
    joints: np.ndarray


@dataclass(frozen=True)
class Tube:
    """One loft before it joins the mesh: points (R, C + 1, 3), t of its rings (R,), winding +1 or -1."""

    kind: int
    points: np.ndarray
    rings: np.ndarray
    winding: int


@cache
def _circle(columns: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    angle = 2 * np.pi * np.arange(columns + 1) / columns
    x, z = -np.sin(angle), -np.cos(angle)
    x[[0, columns]], x[columns // 2], z[[columns // 4, 3 * columns // 4]] = 0, 0, 0
    return np.sign(x) * np.abs(x) ** (2 / power), np.sign(z) * np.abs(z) ** (2 / power)


def loft(centres: np.ndarray, lateral: np.ndarray, front: np.ndarray, radii: np.ndarray, columns: int,
         power: float = 2.0) -> np.ndarray:
    """Rings of points (R, columns + 1, 3): centres and axes (R, 3), radii (R, 3) lateral, front, back; superellipse."""
    x, z = _circle(columns, power)
    depth = np.where(z > 0, radii[:, 1:2], radii[:, 2:3]) * z
    return (centres[:, None] + (radii[:, :1] * x)[..., None] * lateral[:, None] + depth[..., None] * front[:, None])


@cache
def _grid(rings: int, columns: int, winding: int) -> np.ndarray:
    """(2 * (rings - 1) * columns, 3) vertex numbers of a tube's triangles."""
    i, j = np.mgrid[:rings - 1, :columns]
    base = (i * (columns + 1) + j).ravel()
    below = base + columns + 1
    corners = np.stack([np.stack([base, below, base + 1], 1), np.stack([base + 1, below, below + 1], 1)], 1)
    return corners.reshape(-1, 3)[:, ::winding]


def _normals(points: np.ndarray, winding: int) -> np.ndarray:
    """(R, C + 1, 3) unit outward normals from central differences."""
    around = np.empty_like(points)
    around[:, 1:-1] = points[:, 2:] - points[:, :-2]
    around[:, 0] = around[:, -1] = points[:, 1] - points[:, -2]
    along = np.empty_like(points)
    along[1:-1] = points[2:] - points[:-2]
    along[0], along[-1] = points[1] - points[0], points[-1] - points[-2]
    x, y, z = (around[..., i] for i in range(3))
    u, v, w = (along[..., i] for i in range(3))
    normal = np.stack([y * w - z * v, z * u - x * w, x * v - y * u], -1) * winding

    return normal / (np.sqrt((normal ** 2).sum(-1, keepdims=True)) + 1e-12)


def assemble(tubes: list[Tube], joints: np.ndarray) -> Mesh:
    points, normals, along, around, triangles, kinds, count = [], [], [], [], [], [], 0
    for tube in tubes:
        rings, columns = tube.points.shape[0], tube.points.shape[1] - 1
        normals.append(_normals(tube.points, tube.winding).reshape(-1, 3))
        points.append(tube.points.reshape(-1, 3))
        along.append(np.repeat(tube.rings, columns + 1))
        around.append(np.tile(np.arange(columns + 1) / columns, rings))
        triangles.append(_grid(rings, columns, tube.winding) + count)
        kinds.append(np.full(len(triangles[-1]), tube.kind, np.int32))
        count += rings * (columns + 1)

    stacked = np.concatenate(points)
    floor = stacked[:, 1].min()
    stacked[:, 1] -= floor
    joints[:, 1] -= floor
    return Mesh(points=stacked, normals=np.concatenate(normals), along=np.concatenate(along),
                around=np.concatenate(around), triangles=np.concatenate(triangles), tube=np.concatenate(kinds),
                joints=joints)
