"""Accessories, worn over the body as tubes of their own: hanging hair, cap brim, scarf, skirt, coat tails, bags."""

import numpy as np

from pipeline.renderer.person import Person
from pipeline.renderer.pose import LEFT, RIGHT, apply
from pipeline.renderer.tube_mesh import BAG, BRIM, COAT, HAIR, HANDLE, LENGTHS, SCARF, SKIRT, Tube, loft


def brim(middle: np.ndarray, head: np.ndarray, size: float) -> Tube:
    t = np.array([0, .15, .5, .85, 1.0])
    centres = middle + head[:, 1] * (.075 + np.array([-.004, -.003, 0, .006, .007])[:, None]) * size
    centres = centres + head[:, 2] * .085 * size
    shrink = np.array([.02, 1, 1, .96, .02])[:, None]
    radii = np.array([[.066, .095, .03]]) * shrink * size
    rows = np.ones((5, 1))

    return Tube(BRIM, loft(centres, rows * head[:, 0], rows * head[:, 2], radii, 16), t, 1)


def hanging_hair(person: Person, middle: np.ndarray, chest: np.ndarray, head: np.ndarray, size: float) -> Tube:
    """Hair that hangs behind the head, or a bun."""
    if person.hair_style == "bun":
        t = np.linspace(0, 1, 8)
        centre = middle + apply(head, np.array([0, .055, -.125])) * size
        centres = centre + head[:, 1] * (.045 * np.cos(np.pi * (1 - t)))[:, None] * size
        radius = .045 * np.sin(np.pi * np.clip(t, .02, .98))
        radii = np.stack([radius, radius, radius], 1) * size
        rows = np.ones((8, 1))
        return Tube(HAIR, loft(centres, rows * head[:, 0], rows * head[:, 2], radii, 14), t, 1)

    length = .30 if person.hair_style == "long" else .13
    t = np.linspace(0, 1, 12)
    fall = np.clip(t / .6, 0, 1)[:, None, None]
    frames = (1 - fall) * head + fall * chest
    down = np.diff(t * length, prepend=0)[:, None] * size

    start = middle + apply(head, np.array([0, .05, -.048])) * size
    centres = start - (down * frames[:, :, 1]).cumsum(0)
    centres = centres - frames[:, :, 2] * (np.interp(t, [0, .5, 1], [0, .012, .035]) * size)[:, None]
    shape = np.interp(t, [0, .06, .3, .85, 1], [.02, .8, 1, .82, .05])
    radii = np.stack([.086 * shape, .050 * shape, .072 * shape], 1) * size

    return Tube(HAIR, loft(centres, frames[:, :, 0], frames[:, :, 2], radii, 18), t, -1)


def scarf(neck: np.ndarray, chest: np.ndarray, scale: float) -> Tube:
    t = np.linspace(0, 1, 8)
    swell = np.sin(np.pi * np.clip(t, .04, .96)) ** .5
    centres = neck + chest[:, 1] * ((t - .45) * .10 * scale)[:, None] + chest[:, 2] * .006 * scale
    radii = np.stack([.052 + .034 * swell, .052 + .038 * swell, .052 + .036 * swell], 1) * scale
    radii[[0, -1]] *= .5
    rows = np.ones((8, 1))

    return Tube(SCARF, loft(centres, rows * chest[:, 0], rows * chest[:, 2], radii, 20), t, 1)


def over_legs(person: Person, legs: list, lengths: dict, hip_centre: np.ndarray, pelvis: np.ndarray, scale: float
               ) -> list[Tube]:
    """Skirt and coat tails: rings around both legs, following them."""
    tubes = []
    if person.bottom in ("skirt", "dress"):
        tubes.append(_hanging(SKIRT, person.bottom_end, .02 + .10 * person.flare, legs, hip_centre, pelvis, scale,
                              person))
    if person.coat != "none":
        end = .22 if person.coat == "jacket" else .95
        extra = .03 if person.bottom not in ("skirt", "dress") else .05 + .11 * person.flare
        tubes.append(_hanging(COAT, end, extra, legs, hip_centre, pelvis, scale, person))

    return tubes


def _hanging(kind: int, end: float, flare: float, legs: list, hip_centre: np.ndarray, pelvis: np.ndarray,
             scale: float, person: Person) -> Tube:
    t = np.linspace(-.32, end, 14)
    centres, radii = (np.stack([np.stack([np.interp(t, leg[0], leg[which][:, i]) for i in range(3)], 1)
                                for leg in legs]) for which in (1, 2))
    middle = centres.mean(0)
    apart = apply(pelvis.T, centres[0] - centres[1])                 # left minus right, in the pelvis' frame

    top = np.clip((t + .32) / .32, 0, 1)                              # above the hip the trunk's own shape
    lateral = .5 * np.abs(apart[:, 0]) + radii[:, :, 0].max(0) + .012 * scale
    forward = .5 * np.abs(apart[:, 2]) + radii[:, :, 1].max(0) + .012 * scale
    grown = flare * np.clip(t, 0, None) * scale
    waist = np.array([.168 * person.hips, .118, .128]) * person.girth * scale + .014 * scale
    shape = np.stack([lateral + grown, forward + grown, forward + grown], 1)
    shape = (1 - top[:, None]) * waist + top[:, None] * np.maximum(shape, waist)

    above = hip_centre - pelvis[:, 1] * (t * legs_length(person))[:, None]
    middle = np.where(t[:, None] < 0, above, middle)

    if kind == COAT:
        shape = shape + .014 * scale

    rows = np.ones((len(t), 1))
    return Tube(kind, loft(middle, rows * pelvis[:, 0], rows * pelvis[:, 2], shape, 32, 2.2), t, -1)


def legs_length(person: Person) -> float:
    """Length of the thigh in metres: the unit of t on skirts and coats."""
    return LENGTHS["thigh"] * person.height / 1.75


def bag(person: Person, lengths: dict, hip_centre: np.ndarray, pelvis: np.ndarray, chest: np.ndarray, hands: list,
         scale: float) -> list[Tube]:
    side = LEFT if person.bag_left else RIGHT
    sign = 1 if side == LEFT else -1
    rise = lengths["neck"] - lengths["hip"]
    if person.bag == "backpack":
        centre = hip_centre + apply(chest, np.array([0, .52 * rise, -.185 * scale * (.6 + .4 * person.girth)]))
        return [_box(BAG, centre, chest, (.145 * scale, .225 * scale, .085 * scale))]
    if person.bag == "shoulder":
        reach = .20 * scale * person.hips * person.girth
        centre = hip_centre + apply(pelvis, np.array([sign * reach, .02, -.02]))
        return [_box(BAG, centre, pelvis, (.055 * scale, .13 * scale, .15 * scale))]
    if person.bag == "hand":
        hand, frame = hands[side]
        upright = np.stack([sign * frame[0], np.array([0.0, 1.0, 0.0]), frame[2]], 1)
        centre = hand - np.array([0, .24, 0])
        handle = _box(HANDLE, hand - np.array([0, .05, 0]), upright, (.012, .06, .05))
        return [_box(BAG, centre, upright, (.055, .15, .17)), handle]

    return []


def _box(kind: int, centre: np.ndarray, frame: np.ndarray, half: tuple[float, float, float]) -> Tube:
    """A rounded box: half sizes across, up and forward in the frame's columns."""
    t = np.array([0, .02, .08, .25, .5, .75, .9, .98, 1.0])
    shape = np.array([.02, .7, .95, 1, 1, .98, .9, .6, .02])[:, None]
    centres = centre + frame[:, 1] * ((2 * t - 1) * half[1])[:, None]
    radii = np.array([[half[0], half[2], half[2]]]) * shape
    rows = np.ones((len(t), 1))
    return Tube(kind, loft(centres, rows * frame[:, 0], rows * frame[:, 2], radii, 16, 4.0), t, 1)
