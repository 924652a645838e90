"""Body mesh of lofted tubes: rings of points along trunk, head, arms, legs, feet and what is worn over them.

Every vertex carries its tube's own coordinates (t along, a around); `uv_charts` turns them into DensePose parts and u,
v and `clothing` into LIP classes and colours, per pixel, so that borders are sharp whatever the mesh.

Coordinates. a in [0, 1] runs back 0 -> right (on limbs: inner) 0.25 -> front 0.5 -> left (outer) 0.75 -> back 1.
t: trunk 0 crotch .. 1 neck; head 0 neck .. 1 crown; arm 0 shoulder, 1 elbow, 2 wrist, 3 finger tips; leg 0 hip,
1 knee, 2 ankle; foot 0 heel .. 1 toes; skirts and coats as legs (negative above the hip); hair, bags, scarf, brim 0..1.
"""

from functools import cache

import numpy as np
from scipy.interpolate import PchipInterpolator

from pipeline.renderer.accessories import bag, brim, hanging_hair, over_legs, scarf
from pipeline.renderer.person import Person
from pipeline.renderer.pose import LEFT, RIGHT, Pose, apply, arm_frames, foot_frame, leg_frames, trunk
from pipeline.renderer.tube_mesh import ARM_L, FOOT_L, HEAD, LEG_L, LENGTHS, TRUNK, Mesh, Tube, assemble, loft

# Cross-sections of a 1.75 m figure: rows of (t, lateral radius, front radius, back radius, shift to the front).
TRUNK_RINGS = [(0.0, .02, .03, .03, 0), (.03, .095, .075, .085, 0), (.09, .150, .100, .118, -.004),
               (.17, .168, .106, .128, -.006), (.27, .160, .106, .110, 0), (.38, .145, .102, .092, .003),
               (.50, .148, .106, .096, .004), (.64, .163, .118, .108, 0), (.76, .176, .118, .116, -.006),
               (.84, .186, .104, .112, -.012), (.885, .180, .084, .100, -.016), (.92, .146, .068, .088, -.016),
               (.95, .096, .056, .074, -.014), (.975, .064, .052, .062, -.010), (1.0, .056, .052, .058, -.002)]
HEAD_RINGS = [(0.0, .054, .050, .058, -.004), (.16, .052, .050, .060, .004), (.22, .056, .066, .068, .008),
              (.27, .060, .088, .076, .010), (.36, .067, .091, .088, .012), (.47, .073, .092, .098, .012),
              (.60, .077, .095, .104, .012), (.73, .077, .092, .104, .010), (.85, .069, .078, .092, .008),
              (.94, .048, .052, .064, .004), (.985, .022, .024, .030, 0), (1.0, .002, .002, .002, 0)]
ARM_RINGS = [(-.17, .004, .004, .004, 0), (-.14, .030, .034, .034, 0), (-.06, .050, .056, .054, 0),
             (.08, .058, .061, .059, 0), (.3, .054, .057, .054, 0), (.6, .046, .050, .048, 0),
             (.95, .041, .043, .044, 0), (1.2, .042, .045, .043, 0), (1.5, .037, .040, .038, 0),
             (1.95, .026, .031, .030, 0), (2.15, .024, .038, .034, .004), (2.5, .023, .044, .036, .006),
             (2.8, .017, .034, .024, .010), (3.0, .003, .006, .006, .012)]
LEG_RINGS = [(-.16, .075, .085, .095, 0), (0, .086, .092, .100, 0), (.25, .083, .090, .092, .002),
             (.6, .066, .074, .072, .004), (.95, .054, .060, .054, .004), (1.1, .052, .056, .056, 0),
             (1.3, .054, .050, .068, -.006), (1.6, .044, .042, .052, -.006), (1.9, .034, .036, .040, 0),
             (2.05, .034, .036, .040, 0)]
FOOT_RINGS = [(0, .003, .004, .003, .012), (.015, .016, .030, .020, .010), (.05, .028, .048, .030, .006),
              (.25, .034, .075, .034, 0),
              (.45, .040, .050, .034, 0), (.70, .047, .030, .034, 0), (.88, .040, .018, .034, 0),
              (.97, .024, .008, .032, 0), (1.0, .002, -.012, .016, 0)]


@cache
def _profile(name: str, count: int) -> np.ndarray:
    """(count, 5) rings, smoothly interpolated between the rows of a table, denser where the rows are."""
    table = np.array({"trunk": TRUNK_RINGS, "head": HEAD_RINGS, "arm": ARM_RINGS, "leg": LEG_RINGS,
                      "foot": FOOT_RINGS}[name], float)
    place = PchipInterpolator(np.arange(len(table)), table[:, 0])(np.linspace(0, len(table) - 1, count))
    even = np.linspace(table[0, 0], table[-1, 0], count)
    t = 0.5 * place + 0.5 * even
    return np.column_stack([t, PchipInterpolator(table[:, 0], table[:, 1:])(t)])


def _step(t: np.ndarray, edge: float, width: float) -> np.ndarray:
    """1 below `edge`, 0 above, over `width`."""
    return np.clip((edge - t) / width + 0.5, 0, 1)


def build_mesh(person: Person, pose: Pose) -> Mesh:
    """Pose a person, standing on the ground y = 0."""
    scale = person.height / 1.75
    pelvis, chest, head = trunk(pose)
    lengths = {name: value * scale for name, value in LENGTHS.items()}
    hip_centre = np.array([0.0, lengths["hip"], 0.0])
    joints = np.zeros((18, 3))

    tubes = [_trunk(person, lengths, hip_centre, pelvis, chest, scale)]
    neck = hip_centre + apply(chest, np.array([0, lengths["neck"] - lengths["hip"], -.004 * scale]))
    tubes += _head(person, lengths, neck, chest, head, joints, scale)
    hands = [_arm(person, pose, side, lengths, hip_centre, chest, tubes, joints, scale) for side in (LEFT, RIGHT)]
    legs = [_leg(person, pose, side, lengths, hip_centre, pelvis, tubes, joints, scale) for side in (LEFT, RIGHT)]
    tubes += over_legs(person, legs, lengths, hip_centre, pelvis, scale)
    tubes += bag(person, lengths, hip_centre, pelvis, chest, hands, scale)
    joints[1] = 0.5 * (joints[2] + joints[5]) + apply(chest, np.array([0, .03 * scale, 0]))

    return assemble(tubes, joints)


def _trunk(person: Person, lengths: dict, hip_centre: np.ndarray, pelvis: np.ndarray, chest: np.ndarray,
           scale: float) -> Tube:
    rings = _profile("trunk", 30)
    t = rings[:, 0]
    bend = np.clip((t - 0.2) / 0.45, 0, 1)[:, None, None]
    frames = (1 - bend) * pelvis + bend * chest
    height = lengths["crotch"] - lengths["hip"] + t * (lengths["neck"] - lengths["crotch"])
    up, lateral, front = frames[:, :, 1], frames[:, :, 0], frames[:, :, 2]

    # Ring centres follow the blended spine.
    centres = hip_centre + np.concatenate([up[:1] * height[:1, None], np.diff(height)[:, None] * up[1:]]).cumsum(0)
    centres = centres + front * (rings[:, 4:] * scale)
    width = np.interp(t, [0, .2, .4, .7, .88, .96], [person.hips, person.hips, 0.97, person.shoulders,
                                                      person.shoulders, 1.0])
    girth = np.interp(t, [0, .8, .98], [person.girth, person.girth, 0.6 + 0.4 * person.girth])
    cloth = (.006 + .014 * person.loose_top) * np.interp(t, [person.hem - .02, person.hem, .35, .8, .93, .96],
                                                        [0, 1, 1, .5, .2, 0])

    if person.coat != "none":
        cloth = cloth + .016 * np.interp(t, [0, .08, .9, .96], [0, 1, 1, .4])

    belly = person.belly * np.exp(-((t - .36) / .16) ** 2)
    bust = .018 * max(0.0, 1.0 - person.shoulders) / .06 * np.exp(-((t - .70) / .07) ** 2)
    extra = np.stack([.018 * belly, .045 * belly + bust, .006 * belly], 1) + cloth[:, None]
    radii = (rings[:, 1:4] * np.stack([width * girth, girth, girth], 1) + extra) * scale
    return Tube(TRUNK, loft(centres, lateral, front, radii, 32, 2.35), t, 1)


def _head(person: Person, lengths: dict, neck: np.ndarray, chest: np.ndarray, head: np.ndarray, joints: np.ndarray,
          scale: float) -> list[Tube]:
    rings = _profile("head", 26)
    t = rings[:, 0]
    size = lengths["head"] / LENGTHS["head"] * (0.5 + 0.5 / scale)       # heads vary less than bodies
    bend = np.clip(t / .25, 0, 1)[:, None, None]
    frames = (1 - bend) * chest + bend * head
    height = (t * LENGTHS["head"] - .042) * size
    steps = np.diff(height, prepend=0)[:, None]
    centres = neck + (steps * frames[:, :, 1]).cumsum(0) + frames[:, :, 2] * rings[:, 4:] * size
    radii = rings[:, 1:4] * size * np.interp(t, [0, .2, .3], [np.sqrt(person.girth), 1, 1])[:, None]
    points = loft(centres, frames[:, :, 0], frames[:, :, 2], radii, 24, 2.1)

    a = np.arange(25) / 24
    nose = np.exp(-((t[:, None] - .47) / .05) ** 2 - ((a - .5) / .032) ** 2) * .018
    ears = np.exp(-((t[:, None] - .52) / .07) ** 2) * (np.exp(-((a - .24) / .03) ** 2) +
                                                      np.exp(-((a - .76) / .03) ** 2)) * .010
    outward = points - centres[:, None]
    reach = np.sqrt((outward ** 2).sum(-1, keepdims=True)) + 1e-9
    grown = nose + ears + hair_depth(person, t[:, None], a[None])
    points = points + outward / reach * (grown * size)[..., None]
    upward = _step(-t, -.9, .12)[:, None, None] * frames[:, None, :, 1]
    points = points + upward * (hair_depth(person, t[:, None], a[None]) * .5 * size)[..., None]

    middle = neck + head[:, 1] * (.47 * LENGTHS["head"] - .042) * size
    for joint, place in zip((0, 14, 15, 16, 17), ((0, 0, .112), (-.032, .030, .094), (.032, .030, .094),
                                                   (-.078, .012, .0), (.078, .012, .0)), strict=True):
        joints[joint] = middle + apply(head, np.array(place) * size)

    tubes = [Tube(HEAD, points, t, 1)]
    if person.hat == "cap":
        tubes.append(brim(middle, head, size))
    if person.hair_style in ("long", "medium", "bun"):
        tubes.append(hanging_hair(person, middle, chest, head, size))
    if person.scarf:
        tubes.append(scarf(neck, chest, scale))

    return tubes


def hair_line(person: Person, a: np.ndarray) -> np.ndarray:
    """Head coordinate t above which there is hair, at angle a: high at the face, low at the nape."""
    off = np.abs(a - 0.5) * 2                                   # 0 face, 1 nape
    low = .30 if person.hair_style in ("medium", "long") else .34
    if person.hair_style == "bald":
        return np.interp(off, [0, .3, .42, .55, 1], [1.1, 1.1, 1.1, 1.1, 1.1])
    side = .46 if person.hair_style in ("medium", "long") else .58
    return np.interp(off, [0, .20, .34, .46, .62, 1], [.80 - person.fringe, .76 - person.fringe, .68, side, .40, low])


def hair_depth(person: Person, t: np.ndarray, a: np.ndarray) -> np.ndarray:
    """How far hair or hat stand off the skull, metres."""
    if person.hat != "none":
        hat = _hat_line(person, a)
        under = .010 * (t > hair_line(person, a)) if person.hair_style != "bald" else 0.0
        return np.where(t > hat - .02, .020 if person.hat == "cap" else .024, under)
    depth = {"bald": 0.0, "short": .013, "medium": .026, "long": .022, "bun": .014}[person.hair_style]
    return depth * np.clip((t - hair_line(person, a)) / .06 + .5, 0, 1)


def _hat_line(person: Person, a: np.ndarray) -> np.ndarray:
    off = np.abs(a - 0.5) * 2
    return np.interp(off, [0, 1], [.74, .62]) if person.hat == "cap" else np.interp(off, [0, 1], [.74, .56])


def hat_line(person: Person, a: np.ndarray) -> np.ndarray:
    """Head coordinate t above which there is a hat; beyond 1 without one."""
    return _hat_line(person, a) if person.hat != "none" else np.full_like(a, 1.1)


def _limb(t: np.ndarray, root: np.ndarray, first: np.ndarray, second: np.ndarray, lengths: tuple, soft: float
          ) -> tuple[np.ndarray, np.ndarray]:
    """Ring centres (R, 3) and frames (R, 3, 3) along two bones and a straight end; frames turn over `soft`."""
    upper, lower, end = lengths
    place = (np.minimum(t, 1)[:, None] * upper * first[1] + np.clip(t - 1, 0, 1)[:, None] * lower * second[1]
             + np.clip(t - 2, 0, None)[:, None] * end * second[1])
    blend = np.clip((t - 1) / soft + .5, 0, 1)
    blend = (blend * blend * (3 - 2 * blend))[:, None, None]
    frames = (1 - blend) * first + blend * second

    return root + place, frames / np.sqrt((frames ** 2).sum(-1, keepdims=True))


def _arm(person: Person, pose: Pose, side: int, lengths: dict, hip_centre: np.ndarray, chest: np.ndarray,
         tubes: list[Tube], joints: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    rings = _profile("arm", 32)
    t, sign = rings[:, 0], 1 if side == LEFT else -1
    first, second = arm_frames(pose, side, chest)

    half = lengths["shoulder_half"] * person.shoulders * (.45 + .55 * person.girth)
    root = hip_centre + apply(chest, np.array([sign * half, lengths["shoulder"] - lengths["hip"], -.014 * scale]))
    centres, frames = _limb(t, root, first, second, tuple(lengths[n] for n in ("upper_arm", "lower_arm", "hand")), .3)
    girth = np.interp(t, [0, 1.9, 2.1], [person.girth, .4 + .6 * person.girth, 1]) * (.25 + .75 * person.shoulders)
    loose = (.003 + .011 * person.loose_top) * _step(t, person.sleeve, .08) * np.interp(t, [-.1, .15, .5, 1.9],
                                                                                       [0, .4, 1, .7])

    if person.coat != "none":
        loose = loose + .011 * _step(t, 1.95, .06) * np.interp(t, [-.1, .2], [.2, 1])

    radii = (rings[:, 1:4] * girth[:, None] + loose[:, None]) * scale
    centres = centres + frames[:, 2] * rings[:, 4:] * scale
    tubes.append(Tube(ARM_L + side, loft(centres, frames[:, 0], frames[:, 2], radii, 14), t, -sign))

    elbow = root + lengths["upper_arm"] * first[1]
    wrist = elbow + lengths["lower_arm"] * second[1]
    joints[[5, 6, 7] if side == LEFT else [2, 3, 4]] = root, elbow, wrist

    return wrist + .6 * lengths["hand"] * second[1], second


def _leg(person: Person, pose: Pose, side: int, lengths: dict, hip_centre: np.ndarray, pelvis: np.ndarray,
         tubes: list[Tube], joints: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adds leg and foot; returns the leg's ring coordinates, centres and radii for what hangs over it."""
    rings = _profile("leg", 30)
    t, sign = rings[:, 0], 1 if side == LEFT else -1
    first, second = leg_frames(pose, side, pelvis)
    root = hip_centre + apply(pelvis, np.array([sign * lengths["hip_half"] * person.hips, 0, 0]))
    centres, frames = _limb(t, root, first, second, (lengths["thigh"], lengths["shank"], lengths["shank"]), .36)
    girth = np.interp(t, [0, 2], [person.girth * (.3 + .7 * person.hips), .45 + .55 * person.girth])
    cloth = np.zeros_like(t)

    if person.bottom in ("trousers", "shorts", "jumpsuit"):
        wide = .018 if person.bottom != "shorts" else .022
        cloth = (.003 + wide * person.loose_bottom * np.interp(t, [0, .3, 1, 1.9], [.2, .5, .8, 1.25])
                 ) * _step(t, person.bottom_end, .06)

    boot = .012 * _step(-t, -person.boot, .08)
    radii = (rings[:, 1:4] * girth[:, None] + (cloth + boot)[:, None]) * scale
    tubes.append(Tube(LEG_L + side, loft(centres, frames[:, 0], frames[:, 2], radii, 16), t, -sign))

    knee = root + lengths["thigh"] * first[1]
    ankle = knee + lengths["shank"] * second[1]
    joints[[11, 12, 13] if side == LEFT else [8, 9, 10]] = root, knee, ankle

    frame = foot_frame(pose, side, second)
    tubes.append(_foot(lengths, side, ankle, frame, scale))

    return t, centres, radii


def _foot(lengths: dict, side: int, ankle: np.ndarray, frame: np.ndarray, scale: float) -> Tube:
    rings = _profile("foot", 14)
    t = rings[:, 0]
    rows = np.ones((len(t), 1))
    base = ankle - frame[2] * (lengths["ankle"] - .036 * scale) - frame[1] * .25 * lengths["foot"]
    centres = base + frame[1] * (t * lengths["foot"])[:, None] + frame[2] * rings[:, 4:] * scale
    radii = rings[:, 1:4] * scale

    return Tube(FOOT_L + side, loft(centres, rows * frame[0], rows * frame[2], radii, 14, 2.2), t,
                -1 if side == LEFT else 1)
