"""Surface coordinates to DensePose parts and charts.

Directions were read off DensePose's own output on its demo picture. u runs along the part: torso neck 0 -> crotch 1;
thigh front knee -> hip, back hip -> knee; shank front knee -> ankle, back ankle -> knee; upper arm shoulder -> elbow;
lower arm front wrist -> elbow, back elbow -> wrist; foot toes -> heel. v runs around it: torso from the person's left
0 to right 1; thigh front outer -> inner; all other limb halves towards the outer border, where both halves have v = 1
(lower arm front: v = 0 there). Hands: u around, v wrist -> finger tips. Head: u around (right half back -> face, left
half face -> back), v neck -> crown. On arms the border between front and back lies on the thumb's side.

Under a mirror left and right ids change places, limbs (hands and feet included) keep u and v, the torso has
v -> 1 - v and the head u -> 1 - u.
"""

import numpy as np

from pipeline import loft
from pipeline.people import Person
from pipeline.pose import LEFT

TORSO_BACK, TORSO_FRONT, HAND, FOOT = 1, 2, (4, 3), (5, 6)
# (left, right) ids
THIGH_BACK, THIGH_FRONT, SHANK_BACK, SHANK_FRONT = (8, 7), (10, 9), (12, 11), (14, 13)
UPPER_ARM_FRONT, UPPER_ARM_BACK, LOWER_ARM_FRONT, LOWER_ARM_BACK = (15, 16), (17, 18), (19, 20), (21, 22)
HEAD_LEFT, HEAD_RIGHT = 24, 23
MIRRORED = np.array([0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23])
UPPER_BORDER, LOWER_BORDER = 0.10, 0.16          # turns by which the arms' outer border lies towards the front


def mirrored_uv(part: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Part ids and u, v in [0, 1] of the mirrored body."""
    torso, head = (part == TORSO_BACK) | (part == TORSO_FRONT), part >= HEAD_RIGHT
    return MIRRORED[part], np.where(head, 1 - u, u), np.where(torso, 1 - v, v)


def chart(tube: int, t: np.ndarray, a: np.ndarray, person: Person) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """DensePose id (N,), u and v (N,) in [0, 1] of points of one tube; id 0 where it is no body (bags)."""
    if tube == loft.TRUNK:
        return torso(t, a)
    if tube in (loft.HEAD, loft.BRIM):
        return head(t if tube == loft.HEAD else np.full_like(t, .72), a)
    if tube in (loft.ARM_L, loft.ARM_R):
        return arm(tube - loft.ARM_L, t, a)
    if tube in (loft.LEG_L, loft.LEG_R):
        return leg(tube - loft.LEG_L, t, a)
    if tube in (loft.FOOT_L, loft.FOOT_R):
        return np.full(t.shape, FOOT[tube - loft.FOOT_L]), 1 - t, a
    if tube in (loft.SKIRT, loft.COAT):
        return over_legs(t, a)
    if tube == loft.SCARF:
        return torso(np.full_like(t, .985), a)
    if tube == loft.HAIR:
        return hair(t, a, person)
    return np.zeros(t.shape, int), np.zeros_like(t), np.zeros_like(t)


def torso(t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    front = (a >= .25) & (a < .75)
    v = np.where(front, (.75 - a) / .5, ((a + .25) % 1.0) / .5)
    return np.where(front, TORSO_FRONT, TORSO_BACK), np.clip(1 - t, 0, 1), v


def head(t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    right = a < .5
    return np.where(right, HEAD_RIGHT, HEAD_LEFT), np.where(right, a, a - .5) / .5, np.clip(t, 0, 1)


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
    return (np.where(hand, HAND[side], part), np.clip(np.where(hand, (a - .25) % 1.0, u), 0, 1),
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
