"""Poses and the skeleton: joint angles to limb frames in the body's own space.

Body space: metres, x to the person's left, y up, z forward. A limb frame is three unit rows (lateral, along, front):
`along` runs from the upper joint to the lower one, `lateral` away from the body's middle. The right limb is the left
one mirrored in x before the trunk's rotation is applied, so that a mirrored pose gives exactly a mirrored body.
"""

from dataclasses import dataclass, replace

import numpy as np

LEFT, RIGHT = 0, 1
Pair = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """Joint angles in radians; pairs are (left, right). Positive flexion moves a limb forward."""

    hip: Pair
    spread: Pair
    knee: Pair
    foot: Pair               # pitch of the foot, toes up positive
    shoulder: Pair
    abduct: Pair             # arm away from the body
    rotate: Pair             # forearm turned inward, across the body
    elbow: Pair
    twist: float             # chest against pelvis, to the left positive
    lean: float              # forward
    sway: float              # sideways, to the left positive
    yaw: float               # head to the left
    nod: float               # head down

    def mirrored(self) -> "Pose":
        """The same pose seen in a mirror."""
        pairs = {name: getattr(self, name)[::-1] for name in
                 ("hip", "spread", "knee", "foot", "shoulder", "abduct", "rotate", "elbow")}
        return replace(self, **pairs, twist=-self.twist, sway=-self.sway, yaw=-self.yaw)


def draw_pose(draw: np.random.Generator, carrying_left: bool | None = None) -> Pose:
    """A walking or standing person; `carrying_left` keeps that hand down with a bag."""
    phase = draw.uniform(0, 2 * np.pi)
    walking = draw.random() < 0.72
    stride = draw.uniform(0.28, 0.55) if walking else draw.uniform(0.0, 0.10)
    hips, knees, feet = zip(*[_leg(p, stride) for p in (phase, phase + np.pi)], strict=True)
    swing = draw.uniform(0.4, 1.1) * stride
    flex = [-swing * np.cos(phase), swing * np.cos(phase)]
    elbows = list(draw.uniform(0.1, 0.5, 2))
    rotate = list(draw.uniform(0.1, 0.5, 2))
    abduct = list(draw.uniform(0.08, 0.24, 2))
    gesture = draw.random()

    arms = [LEFT, RIGHT] if gesture < 0.08 else [int(draw.random() < 0.5)] if gesture < 0.42 else []
    for side in arms:        # phone, crossed or carrying arms
        flex[side], elbows[side] = draw.uniform(0.0, 0.6), draw.uniform(1.0, 2.1)
        rotate[side], abduct[side] = draw.uniform(0.1, 1.1), draw.uniform(0.08, 0.35)

    if carrying_left is not None:
        side = LEFT if carrying_left else RIGHT
        flex[side], elbows[side] = 0.4 * flex[side], draw.uniform(0.05, 0.2)

    return Pose(
        hip=_pair(hips), spread=_pair(draw.uniform(0.0, 0.07, 2) if walking else draw.uniform(0.01, 0.14, 2)),
        knee=_pair(knees), foot=_pair(feet), shoulder=_pair(flex), abduct=_pair(abduct), rotate=_pair(rotate),
        elbow=_pair(elbows), twist=float(0.35 * swing * np.cos(phase) + draw.normal(0, 0.04)),
        lean=float(np.clip(draw.normal(0.05, 0.05), -0.06, 0.3)), sway=float(draw.normal(0, 0.02)),
        yaw=float(np.clip(draw.normal(0, 0.3), -0.9, 0.9)), nod=float(np.clip(draw.normal(0.08, 0.12), -0.2, 0.5)))


def _pair(values) -> Pair:
    return float(values[0]), float(values[1])


def _leg(phase: float, stride: float) -> tuple[float, float, float]:
    """Hip, knee and foot angles of one leg at a gait phase (0 heel strike, pi toe off)."""
    p = phase % (2 * np.pi)
    scale = min(stride / 0.42, 1.15)
    hip = stride * np.cos(p) + 0.06 * scale
    knee = 0.06 + scale * (0.95 * np.exp(-((p - 1.38 * np.pi) / 0.85) ** 2) + 0.18 * np.exp(-((p - 0.8) / 0.5) ** 2))
    push = np.exp(-((p - 1.08 * np.pi) / 0.55) ** 2)
    strike = np.exp(-(min(p, 2 * np.pi - p) / 0.5) ** 2)

    return hip, knee, scale * (0.22 * strike - 0.75 * push)


def turn(axis: int, angle: float) -> np.ndarray:
    """(3, 3) rotation about a coordinate axis; columns are the images of x, y, z."""
    c, s = np.cos(angle), np.sin(angle)
    a, b = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = c, -s, s, c
    return matrix


def compose(*matrices: np.ndarray) -> np.ndarray:
    """Matrix product without BLAS, whose last bit depends on its threads."""
    result = matrices[0]
    for matrix in matrices[1:]:
        result = np.einsum("ij,jk->ik", result, matrix)
    return result


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(3, 3) on (..., 3) row vectors."""
    return np.einsum("ij,...j->...i", matrix, points)


def trunk(pose: Pose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations (3, 3) of pelvis, chest and head."""
    pelvis = turn(1, -0.4 * pose.twist)
    chest = compose(turn(1, 0.6 * pose.twist), turn(2, -pose.sway), turn(0, pose.lean))
    head = compose(turn(1, pose.yaw + 0.2 * pose.twist), turn(2, -0.5 * pose.sway), turn(0, 0.4 * pose.lean + pose.nod))
    return pelvis, chest, head


def _bones(first: np.ndarray, bend: float, forward: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames of the upper and lower limb; `forward` is the sense in which the lower one bends."""
    lateral, along, front = first
    c, s = np.cos(bend), forward * np.sin(bend)
    return first, np.stack([lateral, c * along + s * front, c * front - s * along])


def arm_frames(pose: Pose, side: int, chest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames (lateral, along, front) of upper and lower arm in body space."""
    # The shoulder rotates the arm forward (about x) after lifting it sideways (about z).
    base = compose(turn(0, -pose.shoulder[side]), turn(2, pose.abduct[side]))
    lateral, along, front = base[:, 0], -base[:, 1], base[:, 2]
    c, s = np.cos(pose.rotate[side]), np.sin(pose.rotate[side])
    upper = np.stack([c * lateral + s * front, along, c * front - s * lateral])
    return _placed(_bones(upper, pose.elbow[side], 1.0), side, chest)


def leg_frames(pose: Pose, side: int, pelvis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames (lateral, along, front) of thigh and shank in body space."""
    base = compose(turn(0, -pose.hip[side]), turn(2, pose.spread[side]))
    upper = np.stack([base[:, 0], -base[:, 1], base[:, 2]])
    return _placed(_bones(upper, pose.knee[side], -1.0), side, pelvis)


def foot_frame(pose: Pose, side: int, shank: np.ndarray) -> np.ndarray:
    """Frame of a foot: lateral, along (heel to toe) and front (its upper side). Pitch is against the ground."""
    outward = 0.16
    flat = np.array([shank[2][0], 0.0, shank[2][2]])
    flat /= max(float(np.sqrt((flat * flat).sum())), 1e-6)
    across = np.array([flat[2], 0.0, -flat[0]]) * (1 if side == LEFT else -1)
    c, s = np.cos(outward), np.sin(outward)
    toe, across = c * flat + s * across, c * across - s * flat
    up = np.array([0.0, 1.0, 0.0])
    c, s = np.cos(pose.foot[side]), np.sin(pose.foot[side])

    return np.stack([across, c * toe + s * up, c * up - s * toe])


def _placed(frames: tuple[np.ndarray, np.ndarray], side: int, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sign = np.array([1.0 if side == LEFT else -1.0, 1.0, 1.0])
    first, second = (apply(root, frame * sign) for frame in frames)
    return first, second
