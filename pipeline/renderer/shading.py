"""Shading of one person on a canvas: each pixel's colour, LIP class, DensePose part, u, v, nothing in front yet."""

from dataclasses import dataclass

import numpy as np

from pipeline.renderer import clothing, tube_mesh, uv_charts
from pipeline.renderer.person import Person
from pipeline.renderer.rasterizer import Camera, rasterise
from pipeline.renderer.tube_mesh import Mesh

Ray = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """`sun` points from the body to the light (unit, body space); strengths multiply the surface's colour."""

    sun: Ray
    strength: float
    ambient: float
    tint: Ray


@dataclass(frozen=True)
class Figure:
    """Buffers (H, W): mask is the person with all they carry; part, lip 0 on bags; u, v in [0, 1]; depth metres."""

    mask: np.ndarray
    colour: np.ndarray
    lip: np.ndarray
    part: np.ndarray
    u: np.ndarray
    v: np.ndarray
    depth: np.ndarray


def draw_figure(person: Person, mesh: Mesh, camera: Camera, light: Light, scale: np.ndarray,
                origin: np.ndarray, height: int, width: int, folds: np.random.Generator) -> Figure:
    """Rasterise and shade. A projected point (x, y) lies at pixel (x * scale[0] + origin[0], y * scale[1] + origin[1]).
    """
    projected, depth = camera.project(mesh.points)
    triangles, tubes = mesh.triangles, mesh.tube
    if person.coat != "none":
        kept = ~((tubes == tube_mesh.COAT) & clothing.in_coat_gap(person, mesh.around[triangles].mean(1)))
        triangles, tubes = triangles[kept], tubes[kept]

    pixel, hit, weights, near = rasterise(projected * scale + origin, depth, triangles, height, width)
    corners, tube = triangles[hit], tubes[hit]
    attributes = np.column_stack([mesh.normals, mesh.along, mesh.around]).astype(np.float32)
    blend = sum(weights[:, k:k + 1] * attributes[corners[:, k]] for k in range(3))
    normal, t, a = blend[:, :3], blend[:, 3], np.clip(blend[:, 4], 0, 1)

    lip, part = np.zeros(len(pixel), np.uint8), np.zeros(len(pixel), np.uint8)
    u, v, colour = (np.zeros((len(pixel), *rest), np.float32) for rest in ((), (), (3,)))
    for kind in np.unique(tube):
        at = np.flatnonzero(tube == kind)
        part[at], u[at], v[at] = uv_charts.chart(int(kind), t[at], a[at], person)
        lip[at], colour[at] = clothing.dress(person, int(kind), t[at], a[at])

    colour *= _shade(light, normal, folds, lip, t, a, tube)
    return Figure(mask=_filled(height, width, pixel, True, bool),
                  colour=_filled(height, width, pixel, colour, np.float32),
                  lip=_filled(height, width, pixel, lip, np.uint8), part=_filled(height, width, pixel, part, np.uint8),
                  u=_filled(height, width, pixel, u, np.float32), v=_filled(height, width, pixel, v, np.float32),
                  depth=_filled(height, width, pixel, near, np.float32, np.inf))


def _filled(height: int, width: int, pixel: np.ndarray, values, kind, rest=0) -> np.ndarray:
    channels = np.shape(values)[1:] if np.ndim(values) > 1 else ()
    buffer = np.full((height * width, *channels), rest, kind)
    buffer[pixel] = values
    return buffer.reshape(height, width, *channels)


def _shade(light: Light, normal: np.ndarray, folds: np.random.Generator, lip: np.ndarray, t: np.ndarray,
           a: np.ndarray, tube: np.ndarray) -> np.ndarray:
    """(P, 3) factors: sky from above, the sun, creases in cloth, and the dark between limbs."""
    shift = folds.random(4)
    length = np.sqrt((normal ** 2).sum(1)) + 1e-9
    up = normal[:, 1] / length
    sun = np.clip((np.einsum("pi,i->p", normal, np.array(light.sun)) / length + .25) / 1.25, 0, 1)
    bright = light.ambient * (.80 + .20 * up) + light.strength * sun
    creased = clothing.CREASED[lip]
    crease = (.07 * clothing.noise(a * .55 + shift[0] + tube * .37, t * .30 + shift[1])
              + .045 * clothing.noise(a * .25 + shift[2] + tube * .61, t * .8 + shift[3]))
    bright = bright * np.where(creased, 1 + crease, 1 + .02 * crease)
    trunk_side = np.where(tube == tube_mesh.TRUNK, np.exp(-((np.abs(a - .5) - .25) / .07) ** 2), 0)
    leg = (tube == tube_mesh.LEG_L) | (tube == tube_mesh.LEG_R)
    inner = np.where(leg, np.exp(-((a - .25) / .12) ** 2), 0)
    bright = bright * (1 - .22 * trunk_side - .22 * inner)

    return bright[:, None] * (1 + (np.array(light.tint) - 1) * sun[:, None])
