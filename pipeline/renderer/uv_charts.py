"""UV charts: surface coordinates to DensePose parts, u and v.

Directions were read off DensePose's own output on its demo picture. u runs along the part: torso neck 0 -> crotch 1;
thigh front knee -> hip, back hip -> knee; shank front knee -> ankle, back ankle -> knee; upper arm shoulder ->
elbow; lower arm front wrist -> elbow, back elbow -> wrist; right foot toes -> heel, left foot heel -> toes. v runs
around it: torso from the person's left 0 to right 1; thigh front outer -> inner; foot from the sole over the inner
side; all other limb halves towards the outer border, where both halves have v = 1 (lower arm front: v = 0 there).
Hands: u around (right from the palm over the thumb, left the other way round), v wrist -> finger tips. Head: u
around (right half back -> face, left half face -> back), v neck -> crown. On arms the border between front and back
lies on the thumb's side.

Under a mirror left and right ids change places, arms and legs keep u and v, the torso has v -> 1 - v, and hands,
feet and head have u -> 1 - u: pipeline/base/body_parts.py.
"""

import numpy as np

from pipeline.base.body_parts import DENSEPOSE24
from pipeline.renderer import tube_mesh
from pipeline.renderer.person import Person
from pipeline.renderer.pose import LEFT, RIGHT


def _sides(name: str) -> tuple[int, int]:
    """The ids of a part's left and right; `{}` stands for the side."""
    left, right = (DENSEPOSE24.index(name.format(side)) for side in ("left", "right"))
    return left, right


TORSO_BACK, TORSO_FRONT = DENSEPOSE24.index("torso back"), DENSEPOSE24.index("torso front")
# (left, right) ids
HAND, FOOT, HEAD = _sides("{} hand"), _sides("{} foot"), _sides("head {}")
THIGH_BACK, THIGH_FRONT = _sides("upper leg {} back"), _sides("upper leg {} front")
SHANK_BACK, SHANK_FRONT = _sides("lower leg {} back"), _sides("lower leg {} front")
UPPER_ARM_BACK, UPPER_ARM_FRONT = _sides("upper arm {} back"), _sides("upper arm {} front")
LOWER_ARM_BACK, LOWER_ARM_FRONT = _sides("lower arm {} back"), _sides("lower arm {} front")
UPPER_BORDER, LOWER_BORDER = 0.10, 0.16          # turns by which the arms' outer border lies towards the front


def chart(tube: int, t: np.ndarray, a: np.ndarray, person: Person) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """DensePose id (N,), u and v (N,) in [0, 1] of points of one tube; id 0 where it is no body (bags)."""
    if tube == tube_mesh.TRUNK:
        return torso(t, a)
    if tube in (tube_mesh.HEAD, tube_mesh.BRIM):
        return head(t if tube == tube_mesh.HEAD else np.full_like(t, .72), a)
    if tube in (tube_mesh.ARM_L, tube_mesh.ARM_R):
        return arm(tube - tube_mesh.ARM_L, t, a)
    if tube in (tube_mesh.LEG_L, tube_mesh.LEG_R):
        return leg(tube - tube_mesh.LEG_L, t, a)
    if tube in (tube_mesh.FOOT_L, tube_mesh.FOOT_R):
        side = tube - tube_mesh.FOOT_L
        return np.full(t.shape, FOOT[side]), t if side == LEFT else 1 - t, a
    if tube in (tube_mesh.SKIRT, tube_mesh.COAT):
        return over_legs(t, a)
    if tube == tube_mesh.SCARF:
        return torso(np.full_like(t, .985), a)
    if tube == tube_mesh.HAIR:
        return hair(t, a, person)

    return np.zeros(t.shape, int), np.zeros_like(t), np.zeros_like(t)


def torso(t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    front = (a >= .25) & (a < .75)
    v = np.where(front, (.75 - a) / .5, ((a + .25) % 1.0) / .5)
    return np.where(front, TORSO_FRONT, TORSO_BACK), np.clip(1 - t, 0, 1), v


def head(t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    right = a < .5
    return np.where(right, HEAD[RIGHT], HEAD[LEFT]), np.where(right, a, a - .5) / .5, np.clip(t, 0, 1)


def _halves(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether a point lies on the front half, and its share of the way from the inner to the outer border."""
    front = (a >= .25) & (a < .75)
    return front, np.where(front, (a - .25) / .5, ((.25 - a) % 1.0) / .5)


def arm(side: int, t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    upper, hand = t < 1, t >= 2
    front, outer = _halves((a + np.where(upper, UPPER_BORDER, LOWER_BORDER)) % 1.0)
    part = np.where(upper, np.where(front, UPPER_ARM_FRONT[side], UPPER_ARM_BACK[side]),
                    np.where(front, LOWER_ARM_FRONT[side], LOWER_ARM_BACK[side]))
    u = np.where(upper, t, np.where(front, 2 - t, t - 1))
    v = np.where(upper | ~front, outer, 1 - outer)
    around = (a - .25) % 1.0
    if side == LEFT:
        around = 1 - around

    return (np.where(hand, HAND[side], part), np.clip(np.where(hand, around, u), 0, 1),
            np.clip(np.where(hand, t - 2, v), 0, 1))


def leg(side: int, t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    upper = t < 1
    front, outer = _halves(a)
    part = np.where(upper, np.where(front, THIGH_FRONT[side], THIGH_BACK[side]),
                    np.where(front, SHANK_FRONT[side], SHANK_BACK[side]))
    u = np.where(upper, np.where(front, 1 - t, t), np.where(front, t - 1, 2 - t))
    return part, np.clip(u, 0, 1), np.where(upper & front, 1 - outer, outer)


def over_legs(t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skirts and coats: above the hip the trunk, below it the leg that they hide."""
    left = a >= .5
    # Each side's half ring (back, outer side, front) is spread over that leg's outer three quarters.
    own = np.where(left, 1 - a, a) / .5                       # 0 back middle .. 1 front middle
    around = (1.125 - .75 * own) % 1.0
    parts = [leg(side, np.maximum(t, 0), around) for side in (0, 1)]
    part, u, v = (np.where(left, one, other) for one, other in zip(*parts, strict=True))
    above = t < 0
    trunk_part, trunk_u, trunk_v = torso(.12 - t * .64, a)

    return np.where(above, trunk_part, part), np.where(above, trunk_u, u), np.where(above, trunk_v, v)


def hair(t: np.ndarray, a: np.ndarray, person: Person) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hanging hair is head down to the neck and torso below it, as what it hides."""
    if person.hair_style == "bun":
        return head(np.full_like(t, .65), a)

    length = .30 if person.hair_style == "long" else .13
    down = t * length
    part, u, v = head(np.clip(.65 - down / .275, 0, 1), a)
    trunk_part, trunk_u, trunk_v = torso(1.0 - np.clip(down - .17, 0, None) / .66, a)
    below = down > .17

    return np.where(below, trunk_part, part), np.where(below, trunk_u, u), np.where(below, trunk_v, v)


assert LEFT == 0          # tubes and id pairs are ordered (left, right)
