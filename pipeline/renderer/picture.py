"""Picture: a person seen by a camera, what stands in front, the detector's box, and exact labels.

Everything is drawn at twice the picture's size. Colours are averaged over 2 x 2; a label is the commonest of the four
(index and class together), on a tie the nearest to the camera.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.base.body_parts import SURFACE_PARTS
from pipeline.renderer import occluders
from pipeline.renderer.body_mesh import build_mesh
from pipeline.renderer.person import Person, draw_person
from pipeline.renderer.pose import draw_pose
from pipeline.renderer.rasterizer import Camera
from pipeline.renderer.scene import Look, crop_backdrop, expose, picture_azimuth
from pipeline.renderer.shading import Figure, draw_figure
from pipeline.renderer.tube_mesh import Mesh


@dataclass(frozen=True)
class Wish:
    """What a picture should be. `hidden` (low, high) is the share of the body that occluder and frame hide, None for
    no occluder; `style` of the occluder train | test | parsing; `crop` box | partial; `fault` scales the detector's
    error."""

    hidden: tuple[float, float] | None
    style: str
    crop: str
    fault: float


@dataclass(frozen=True)
class Picture:
    """image (H, W, 3) uint8; lip, index (H, W) uint8; uv (H, W, 2) uint8; visible (24,), joints (18, 3) float32;
    occlusion the hidden share of the body."""

    image: np.ndarray
    lip: np.ndarray
    index: np.ndarray
    uv: np.ndarray
    visible: np.ndarray
    joints: np.ndarray
    occlusion: float


@dataclass(frozen=True)
class Frame:
    """The detector's box on the plane of projection: left, top, width, height in metres."""

    left: float
    top: float
    width: float
    height: float


TRIES = 6


def render_picture(person: Person, look: Look, wish: Wish, draw: np.random.Generator, height: int, width: int
                   ) -> Picture:
    """Render one picture; it depends on `draw` alone."""
    carrying = person.bag_left if person.bag == "hand" else None
    mesh = build_mesh(person, draw_pose(draw, carrying))
    azimuth = picture_azimuth(look, draw)
    camera = Camera(azimuth=azimuth, elevation=float(np.clip(look.elevation + draw.normal(0, .03), 0, .6)),
                    distance=float(look.distance * draw.uniform(.85, 1.2)), target=.55 * person.height)

    projected, _ = camera.project(mesh.points)
    low, high = projected.min(0), projected.max(0)
    frame = (partial_frame if wish.crop == "partial" else box_frame)(low, high, wish.fault, draw)
    scale = np.array([2 * width / frame.width, 2 * height / frame.height])
    pad = _padding(low, high, frame, scale, height, width)
    origin = -np.array([frame.left, frame.top]) * scale + pad[:2]
    whole = draw_figure(person, mesh, camera, look.light(azimuth), scale, origin, 2 * height + pad[1] + pad[3],
                        2 * width + pad[0] + pad[2], draw)

    inside = (slice(pad[1], pad[1] + 2 * height), slice(pad[0], pad[0] + 2 * width))
    front, front_colour, share = _occlude(whole, inside, wish, look, camera, scale, draw)
    labels = _labels(whole, inside, front)

    background = crop_backdrop(look, draw, float(np.clip((high[1] - frame.top) / frame.height, .6, 2.0)), height, width)
    background *= _shadow(mesh, camera, look, azimuth, frame, height, width)[..., None]
    image = _composite(whole, inside, front, front_colour, background)
    places = (camera.project(mesh.joints)[0] - [frame.left, frame.top]) / [frame.width, frame.height] * [width, height]

    return Picture(image=expose(look, image, draw), visible=_visible(whole, inside, front), occlusion=share,
                   joints=_joints(mesh, camera, places, whole.mask[inside], front), **labels)


def box_frame(low: np.ndarray, high: np.ndarray, fault: float, draw: np.random.Generator) -> Frame:
    """The box of a person detector around the extent `low`..`high` (x, y): twice as high as wide, a little off."""
    tall = high[1] - low[1]
    above, below = np.clip(draw.normal(.035, .025 * fault, 2), -.04, .14)
    event = draw.random()
    if event < .06 * fault:
        above, below = draw.uniform(.05, .22, 2)                    # much too large
    elif event < .11 * fault:
        below = -draw.uniform(.03, .16)                             # feet cut off
    elif event < .13 * fault:
        above = -draw.uniform(.02, .08)                             # crown cut off

    height = tall * (1 + above + below)
    width = height * .5 * draw.uniform(.84, 1.10)
    centre = (low[0] + high[0]) / 2 + draw.normal(0, .035 * fault) * width
    return Frame(left=centre - width / 2, top=low[1] - above * tall, width=width, height=height)


def partial_frame(low: np.ndarray, high: np.ndarray, fault: float, draw: np.random.Generator) -> Frame:
    """A hand-made crop that holds part of a person: the upper part, the lower part or one side."""
    tall, centre = high[1] - low[1], (low[0] + high[0]) / 2
    kind = draw.choice(["upper", "lower", "side"], p=[.6, .15, .25])
    keep = draw.uniform(.42, .72)
    if kind == "side":
        height = tall * draw.uniform(.75, 1.0)
        width = height * .5 * draw.uniform(.75, 1.0)
        edge = draw.uniform(-.16, .02) * (high[0] - low[0])          # where the crop's side cuts the body
        left = centre + edge if draw.random() < .5 else centre - edge - width
        return Frame(left=left, top=low[1] - .03 * tall, width=width, height=height)

    height = keep * tall * 1.03
    width = max(height * .5, .8 * (high[0] - low[0])) * draw.uniform(.95, 1.25)
    top = low[1] - .03 * tall if kind == "upper" else high[1] - height * draw.uniform(.96, 1.0)
    return Frame(left=centre - width / 2 + draw.normal(0, .03 * fault) * width, top=top, width=width, height=height)


def _padding(low: np.ndarray, high: np.ndarray, frame: Frame, scale: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels left, above, right, below by which the canvas exceeds the frame to hold the whole person."""
    first = (low - [frame.left, frame.top]) * scale
    last = (high - [frame.left, frame.top]) * scale
    return np.maximum(np.ceil([-first[0], -first[1], last[0] - 2 * width, last[1] - 2 * height]), 0).astype(int)


def _occlude(whole: Figure, inside: tuple[slice, slice], wish: Wish, look: Look, camera: Camera, scale: np.ndarray,
             draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Mask and colours of what stands in front, and the share of the body hidden by it and the frame."""
    body = whole.part[inside] > 0
    lost = int((whole.part > 0).sum() - body.sum())
    front, colour = np.zeros(body.shape, bool), np.zeros((*body.shape, 3), np.float32)
    share = lost / max(int(body.sum()) + lost, 1)
    if wish.hidden is None or share >= wish.hidden[1] - .02:
        return front, colour, share

    low, high = wish.hidden
    target = draw.uniform(max(low, share) + .01, high - .01)

    miss = np.inf
    for attempt in range(TRIES):
        kind = occluders.draw_kind(draw, wish.style) if attempt < TRIES - 1 else "box"
        sprite = _passer_by(look, camera, scale, draw, body.shape) if kind == "person" else occluders.draw_sprite(
            kind, draw, wish.style, *body.shape)
        side = str(draw.choice(sprite.sides)) if attempt < TRIES - 1 else "bottom"
        mask, paint, got = occluders.push(sprite, side, body, lost, target, draw)
        if abs(got - target) < miss:
            miss, front, colour, share = abs(got - target), mask, paint, got
        if low <= share <= high:
            break

    lit = look.ambient * .9 + .45 * look.sun
    return front, (colour * (1.0 if kind == "person" else lit)).astype(np.float32), share


def _passer_by(look: Look, camera: Camera, scale: np.ndarray, draw: np.random.Generator, shape: tuple[int, int]
               ) -> occluders.Sprite:
    """Another person, nearer to the camera."""
    person = draw_person(draw, True)
    mesh = build_mesh(person, draw_pose(draw))
    azimuth = float(draw.uniform(-np.pi, np.pi))
    view = Camera(azimuth=azimuth, elevation=camera.elevation, distance=camera.distance, target=.55 * person.height)
    larger = scale * draw.uniform(1.0, 1.3)
    projected, _ = view.project(mesh.points)
    low, high = projected.min(0) * larger, projected.max(0) * larger
    size = np.ceil(high - low).astype(int) + 2
    figure = draw_figure(person, mesh, view, look.light(azimuth), larger, 1 - low, int(size[1]), int(size[0]), draw)

    return occluders.Sprite(figure.colour, figure.mask, ("left", "right"))


def _labels(whole: Figure, inside: tuple[slice, slice], front: np.ndarray) -> dict[str, np.ndarray]:
    code = _fours(np.where(front, 0, whole.part[inside].astype(np.int16) * 32 + whole.lip[inside]))
    depth = _fours(np.where(front, 0.0, np.minimum(whole.depth[inside], 99.0)))
    equal = {(i, j): code[i] == code[j] for i in range(4) for j in range(i)}
    votes = [sum((equal[max(i, j), min(i, j)] for j in range(4) if j != i), start=np.int8(0)) - .005 * depth[i]
             for i in range(4)]

    winner, u, v = code[0], *(_fours(values[inside]) for values in (whole.u, whole.v))
    chosen_u, chosen_v, best = u[0], v[0], votes[0]
    for i in range(1, 4):
        better = votes[i] > best
        winner, chosen_u, chosen_v, best = (np.where(better, new, old) for new, old in (
            (code[i], winner), (u[i], chosen_u), (v[i], chosen_v), (votes[i], best)))

    index = (winner // 32).astype(np.uint8)
    uv = np.where(index[..., None] > 0, np.rint(np.stack([chosen_u, chosen_v], -1) * 255), 0).astype(np.uint8)
    return {"lip": (winner % 32).astype(np.uint8), "index": index, "uv": uv}


def _fours(values: np.ndarray) -> list[np.ndarray]:
    """(2H, 2W) -> four of (H, W): upper left, upper right, lower left, lower right."""
    return [values[0::2, 0::2], values[0::2, 1::2], values[1::2, 0::2], values[1::2, 1::2]]


def _visible(whole: Figure, inside: tuple[slice, slice], front: np.ndarray) -> np.ndarray:
    every = np.bincount(whole.part.ravel(), minlength=SURFACE_PARTS + 1)[1:]
    seen = np.bincount(whole.part[inside][~front], minlength=SURFACE_PARTS + 1)[1:]
    return (seen / np.maximum(every, 1)).astype(np.float32)


def _composite(whole: Figure, inside: tuple[slice, slice], front: np.ndarray, front_colour: np.ndarray,
               background: np.ndarray) -> np.ndarray:
    height, width = background.shape[:2]
    colour = whole.colour[inside]
    if front.any():
        colour = np.where(front[..., None], front_colour, colour)

    cover = (front | whole.mask[inside]).astype(np.float32)
    colour, cover = (cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA) for values in (colour, cover))
    return colour + (1 - cover[..., None]) * background


def _shadow(mesh: Mesh, camera: Camera, look: Look, azimuth: float, frame: Frame, height: int, width: int
            ) -> np.ndarray:
    """Light (H, W) that is left on the ground: the sun's shadow and the darkness under the feet."""
    sun = np.array(look.light(azimuth).sun)
    points = mesh.points[::2]
    cast = points - points[:, 1:2] / sun[1] * sun

    light = np.ones((height, width), np.float32)
    for spots, depth, blur in ((cast, .55 * look.sun, 1.1), (points[points[:, 1] < .12] * [1, 0, 1], .5, 1.6)):
        xy, _ = camera.project(spots)
        pixel = np.floor((xy - [frame.left, frame.top]) / [frame.width, frame.height] * [width, height]).astype(int)
        pixel = pixel[((pixel >= 0) & (pixel < [width, height])).all(1)]
        mask = np.zeros((height, width), np.float32)
        mask[pixel[:, 1], pixel[:, 0]] = 1
        size = max(1, height // 128)
        soft = cv2.GaussianBlur(cv2.dilate(mask, np.ones((2 * size + 1, 2 * size + 1))), (0, 0), blur * height / 128)
        light = light * (1 - depth * soft)

    return light


def _joints(mesh: Mesh, camera: Camera, places: np.ndarray, mask: np.ndarray, front: np.ndarray) -> np.ndarray:
    """x, y in pixels and 1 where the joint is in the frame, not behind an occluder and, in the face, turned to us."""
    height, width = mask.shape[0] // 2, mask.shape[1] // 2
    column, row = np.floor(places * 2).astype(int).T
    framed = (column >= 0) & (row >= 0) & (column < 2 * width) & (row < 2 * height)
    column, row = np.clip(column, 0, 2 * width - 1), np.clip(row, 0, 2 * height - 1)
    shown = framed & mask[row, column] & ~front[row, column]

    towards = np.einsum("ji,i->j", mesh.joints - mesh.joints[[16, 17]].mean(0), camera.axes()[2])
    for joint, margin in ((0, .02), (14, .02), (15, .02), (16, -.04), (17, -.04)):
        shown[joint] &= towards[joint] > margin

    return np.column_stack([places, shown]).astype(np.float32)
