"""Occluders: sprites that are pushed over the person until the wanted share of the body is hidden."""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.renderer.clothing import NOISE

KINDS = ("car", "pillar", "plant", "box", "railing", "person", "board")
# Training and test pictures meet other things, in other colours; a parser's training data meets both and more.
STYLES = {"train": 0, "test": 1, "parsing": 2}
PALETTES = [
    [(.62, .10, .10), (.75, .75, .74), (.14, .15, .18), (.24, .30, .44), (.52, .46, .36)],
    [(.12, .22, .42), (.40, .41, .42), (.85, .84, .80), (.30, .18, .12), (.16, .30, .22)],
    [(.70, .52, .16), (.34, .36, .40), (.48, .20, .26), (.80, .78, .74), (.10, .12, .14), (.22, .36, .48),
     (.40, .28, .18)],
]
WEIGHTS = {"train": (3, 1, 3, 3, .6, 2, 1), "test": (2, 3, 1.5, 1.5, 1.5, 3, 1), "parsing": (2, 2, 2, 2, 1.2, 3, 1)}


@dataclass(frozen=True)
class Sprite:
    """A picture of something with its outline: colour (h, w, 3), mask (h, w). `sides` it may come from."""

    colour: np.ndarray
    mask: np.ndarray
    sides: tuple[str, ...]


def draw_kind(draw: np.random.Generator, style: str) -> str:
    """Draw what stands in front; the odds depend on the style."""
    odds = np.array(WEIGHTS[style], float)
    return str(draw.choice(KINDS, p=odds / odds.sum()))


def _colour(draw: np.random.Generator, style: str) -> np.ndarray:
    palette = PALETTES[STYLES[style]]
    base = np.array(palette[draw.integers(len(palette))])
    return np.clip(base * draw.normal(1, .12) + draw.normal(0, .02, 3), .03, .95)


def _grain(draw: np.random.Generator, height: int, width: int, amount: float) -> np.ndarray:
    y, x = draw.integers(0, 128, 2)
    patch = np.roll(NOISE, (y, x), (0, 1))[:96, :64]
    return 1 + amount * cv2.resize(patch, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]


def draw_sprite(kind: str, draw: np.random.Generator, style: str, height: int, width: int) -> Sprite:
    """A thing for a frame of `height` x `width` pixels (the person fills its height)."""
    shapes = {"car": _car, "pillar": _pillar, "plant": _plant, "box": _box, "railing": _railing, "board": _board}
    return shapes[kind](draw, style, height, width)


def _car(draw: np.random.Generator, style: str, height: int, width: int) -> Sprite:
    tall, wide = int(height * draw.uniform(.62, .85)), int(width * draw.uniform(2.0, 2.9))
    paint = _colour(draw, style)
    colour, mask = np.zeros((tall, wide, 3)), np.zeros((tall, wide), np.uint8)
    boxy = style == "test" or (style == "parsing" and draw.random() < .5)
    roof = ([(.08, .40), (.14, .04), (.90, .02), (.97, .40)] if boxy else
            [(.12, .46), (.30, .04), (.68, .04), (.88, .44)])
    hull = np.array([(.0, .55), *roof, (1.0, .55), (.99, .85), (.01, .85)]) * [wide, tall]
    cv2.fillPoly(mask, [hull.astype(np.int32)], 1)
    shade = np.interp(np.arange(tall) / tall, [0, .4, .45, .6, .85, 1], [1.15, 1.0, 1.2, .95, .6, .4])
    colour[:] = paint * shade[:, None, None]
    glass = np.array([(roof[0][0] + .05, .42), (roof[1][0] + .03, roof[1][1] + .06),
                      (roof[2][0] - .03, roof[2][1] + .06), (roof[3][0] - .06, .42)]) * [wide, tall]
    cv2.fillPoly(colour, [glass.astype(np.int32)], (.13, .16, .19))

    for x in (.36, .62):
        cv2.line(colour, (int(x * wide), int(.05 * tall)), (int(x * wide), int(.8 * tall)), tuple(paint * .6),
                 max(2, wide // 60))

    for x in (.01, .93):
        cv2.rectangle(colour, (int(x * wide), int(.52 * tall)), (int((x + .06) * wide), int(.60 * tall)),
                      (.8, .3, .2) if x > .5 else (.9, .9, .8), -1)

    for x in (.2, .8):
        for radius, tone in ((.17, .05), (.09, .45)):
            centre = (int(x * wide), int(.82 * tall))
            cv2.circle(colour, centre, int(radius * tall), (tone,) * 3, -1)
            if radius > .1:
                cv2.circle(mask, centre, int(radius * tall), 1, -1)

    return Sprite(colour * _grain(draw, tall, wide, .04), mask > 0, ("left", "right", "bottom"))


def _pillar(draw: np.random.Generator, style: str, height: int, width: int) -> Sprite:
    tall, wide = int(height * 1.6), int(width * draw.uniform(.28, .8))
    colour = np.ones((tall, wide, 3)) * _colour(draw, style)
    x = np.linspace(-1, 1, wide)
    if style == "test" or draw.random() < .4:                                  # round
        colour *= (.45 + .75 * np.sqrt(np.clip(1 - (x - draw.uniform(-.5, .5)) ** 2 * .6, 0, 1)))[None, :, None]
    else:                                                                      # square, with an edge and courses
        colour *= np.where(x < draw.uniform(-.5, .5), 1.0, .68)[None, :, None]
        course = int(draw.integers(8, 40))
        colour[np.arange(tall) % course < 2] *= .75

    return Sprite(colour * _grain(draw, tall, wide, .06), np.ones((tall, wide), bool), ("left", "right"))


def _plant(draw: np.random.Generator, style: str, height: int, width: int) -> Sprite:
    tall, wide = int(height * draw.uniform(.7, 1.1)), int(width * draw.uniform(1.1, 1.8))
    colour, mask = np.zeros((tall, wide, 3)), np.zeros((tall, wide), np.uint8)
    green = np.array({"train": (.22, .38, .12), "test": (.16, .30, .20), "parsing": (.26, .34, .10)}[style])
    green = green * draw.uniform(.7, 1.4)
    count, leaf = 420, height * draw.uniform(.022, .05)
    thin = .35 if style == "train" else .6

    x = draw.normal(.5, .22, count)
    y = 1 - np.abs(draw.normal(0, .45, count)) * (1 - .8 * np.abs(x - .5))
    for px, py, angle, size, tone in zip(x, y, draw.uniform(0, 180, count), draw.uniform(.6, 1.5, count),
                                         draw.uniform(.4, 1.5, count), strict=True):
        centre, axes = (int(px * wide), int(py * tall)), (int(leaf * size) + 1, int(leaf * size * thin) + 1)
        cv2.ellipse(colour, centre, axes, float(angle), 0, 360, tuple(green * float(tone)), -1)
        cv2.ellipse(mask, centre, axes, float(angle), 0, 360, 1, -1)

    return Sprite(colour, mask > 0, ("left", "right", "bottom"))


def _box(draw: np.random.Generator, style: str, height: int, width: int) -> Sprite:
    tall, wide = int(height * draw.uniform(.45, .8)), int(width * draw.uniform(.9, 1.7))
    paint = _colour(draw, style)
    colour = np.ones((tall, wide, 3)) * paint
    lid = int(tall * draw.uniform(.04, .16))
    colour[:lid] *= 1.3
    step = int(tall * draw.uniform(.15, .5))

    if style == "train":                                                       # crates: planks
        colour[np.arange(tall) % step < max(2, step // 10)] *= .55
        colour[:, np.arange(wide) % max(wide // 2, 1) < 4] *= .6
    else:                                                                      # bins, cupboards: panels, a label
        cv2.rectangle(colour, (wide // 10, lid + 4), (wide - wide // 10, tall - 6), tuple(paint * .7), 2)
        label = tuple(_colour(draw, style))
        cv2.rectangle(colour, (wide // 3, lid + tall // 6), (wide * 2 // 3, lid + tall // 3), label, -1)

    colour *= np.linspace(1.1, .8, wide)[None, :, None]
    return Sprite(colour * _grain(draw, tall, wide, .05), np.ones((tall, wide), bool), ("left", "right", "bottom"))


def _railing(draw: np.random.Generator, style: str, height: int, width: int) -> Sprite:
    tall, wide = int(height * draw.uniform(.55, .8)), int(width * 1.8)
    colour, mask = np.ones((tall, wide, 3)) * _colour(draw, style), np.zeros((tall, wide), bool)
    pitch = int(width * draw.uniform(.12, .24))
    y, x = np.mgrid[:tall, :wide]
    upright = style != "train" or draw.random() < .5
    bars = (x if upright else y) % pitch < pitch * draw.uniform(.45, .62)
    mask[bars] = True
    mask[:int(.07 * tall)] = mask[-int(.12 * tall):] = True
    along = (x if upright else y) % pitch
    colour *= (.65 + .6 * np.sin(np.pi * np.clip(along / (pitch * .6), 0, 1)))[..., None]

    return Sprite(colour, mask, ("bottom",))


def _board(draw: np.random.Generator, style: str, height: int, width: int) -> Sprite:
    """A sign, umbrella or awning, which may come from above."""
    tall, wide = int(height * draw.uniform(.5, .9)), int(width * draw.uniform(1.1, 1.8))
    paint = _colour(draw, style)
    colour, mask = np.ones((tall, wide, 3)) * paint, np.zeros((tall, wide), np.uint8)
    if style != "test":
        mask[:] = 1
        for _ in range(draw.integers(2, 6)):
            left, top = draw.integers(0, wide), draw.integers(0, tall)
            size = (int(left + wide * draw.uniform(.1, .5)), int(top + tall * draw.uniform(.02, .2)))
            cv2.rectangle(colour, (int(left), int(top)), size, tuple(_colour(draw, style)), -1)
    else:
        cv2.ellipse(mask, (wide // 2, int(tall * .45)), (wide // 2, int(tall * .5)), 0, 0, 360, 1, -1)
        sector = (np.arctan2(*(np.mgrid[:tall, :wide] - np.array([tall, wide])[:, None, None] * .5)) * 4 / np.pi)
        colour *= (.8 + .25 * (np.floor(sector) % 2))[..., None]

    return Sprite(colour * _grain(draw, tall, wide, .05), mask > 0, ("left", "right", "bottom", "top"))


def push(sprite: Sprite, side: str, amodal: np.ndarray, lost: int, target: float, draw: np.random.Generator
         ) -> tuple[np.ndarray, np.ndarray, float]:
    """Move a sprite in from `side` until about `target` of the body is hidden.

    amodal (H, W): body pixels inside the frame; `lost` body pixels lie outside it. Returns the sprite's mask (H, W)
    and colours (H, W, 3) in the frame and the share of the body that frame and sprite hide.
    """
    height, width = amodal.shape
    tall, wide = sprite.mask.shape
    total = max(int(amodal.sum()) + lost, 1)
    loose_x = int(draw.uniform(min(width - wide, -wide // 8), max(width - wide, -wide // 8)) if wide != width else 0)
    loose_y = int(draw.uniform(height - tall, height - .75 * tall)) if tall < height else int((height - tall) / 2)

    if tall < height and side in ("left", "right") and "top" in sprite.sides:
        loose_y = int(draw.uniform(0, height - tall))

    middle_x = (width - wide) / 2                       # never beyond the middle: the share would fall again
    paths = {"left": ((-wide, loose_y), (middle_x, loose_y)), "right": ((width, loose_y), (middle_x, loose_y)),
             "bottom": ((loose_x, height), (loose_x, -tall // 4)),
             "top": ((loose_x, -tall), (loose_x, height - tall // 2))}
    start, end = np.array(paths[side], float)

    low, high, best = 0.0, 1.0, (np.inf, start, 0.0)
    for _ in range(9):
        middle = (low + high) / 2
        place = start + middle * (end - start)
        share = (int(amodal[_cut(sprite.mask, place, height, width)].sum()) + lost) / total
        if abs(share - target) < best[0]:
            best = (abs(share - target), place, share)
        low, high = (middle, high) if share < target else (low, middle)

    _, place, share = best
    return _cut(sprite.mask, place, height, width), _cut(sprite.colour, place, height, width), share


def _cut(values: np.ndarray, place: np.ndarray, height: int, width: int) -> np.ndarray:
    """`values` laid at (x, y) `place` on an empty frame."""
    x, y = int(round(place[0])), int(round(place[1]))
    frame = np.zeros((height, width, *values.shape[2:]), values.dtype)
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + values.shape[0], height), min(x + values.shape[1], width)
    if bottom > top and right > left:
        frame[top:bottom, left:right] = values[top - y:bottom - y, left - x:right - x]

    return frame
