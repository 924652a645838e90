"""Clothing of a point of the surface: its LIP-20 class, its colour, and how strongly the cloth creases there."""

import numpy as np

from pipeline.base.body_parts import LIP20
from pipeline.base.seeds import rng
from pipeline.renderer import body_mesh, tube_mesh
from pipeline.renderer.person import Person

(HAT, HAIR, GLOVE, SUNGLASSES, UPPER, DRESS, COAT, SOCKS, PANTS, JUMPSUITS, SCARF, SKIRT, FACE, LEFT_ARM, RIGHT_ARM,
 LEFT_LEG, RIGHT_LEG, LEFT_SHOE, RIGHT_SHOE) = range(1, len(LIP20))  # body_parts.LIP20, in its order
SIDED = ((LEFT_ARM, LEFT_LEG, LEFT_SHOE), (RIGHT_ARM, RIGHT_LEG, RIGHT_SHOE))
BELT = 0.27                                            # trunk coordinate of the waistband
CREASED = np.isin(np.arange(len(LIP20)), [UPPER, DRESS, COAT, PANTS, JUMPSUITS, SKIRT, SCARF])


def _make_noise() -> np.ndarray:
    draw, size = rng(0, "render", "noise"), 128
    frequency = np.sqrt(np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size) ** 2)
    spectrum = np.fft.rfft2(draw.normal(size=(size, size))) / np.maximum(frequency, 2 / size) ** 1.3
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (size, size))
    return (field / field.std()).astype(np.float32)


NOISE = _make_noise()


def noise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, repeating every 1 in x and y."""
    return NOISE[(y * 128).astype(np.int64) & 127, (x * 128).astype(np.int64) & 127]


def dress(person: Person, tube: int, t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """LIP class (N,) uint8 and colour (N, 3) of points of one tube; class 0 for bags."""
    if tube == tube_mesh.TRUNK:
        return _trunk(person, t, a)
    if tube == tube_mesh.HEAD:
        return _head(person, t, a)
    if tube in (tube_mesh.ARM_L, tube_mesh.ARM_R):
        return _arm(person, tube - tube_mesh.ARM_L, t, a)
    if tube in (tube_mesh.LEG_L, tube_mesh.LEG_R):
        return _leg(person, tube - tube_mesh.LEG_L, t, a)
    if tube in (tube_mesh.FOOT_L, tube_mesh.FOOT_R):
        return _foot(person, tube - tube_mesh.FOOT_L, t, a)
    if tube == tube_mesh.SKIRT:
        return _skirt(person, t, a)
    if tube == tube_mesh.COAT:
        return _paint(COAT, _coat_colour(person, t, a))

    plain = {tube_mesh.HAIR: (HAIR, person.hair), tube_mesh.BRIM: (HAT, person.hat_colour),
             tube_mesh.SCARF: (SCARF, person.scarf_colour)}
    label, colour = plain.get(tube, (0, person.bag_colour))
    colours = np.repeat(np.array([colour]), len(t), 0)
    if tube == tube_mesh.HAIR:
        colours *= (1 + .10 * noise(a * 5, t * .3))[:, None]
    if tube == tube_mesh.SCARF:
        colours *= (1 + .18 * np.sign(np.sin(a * 60 + t * 9)))[:, None] if person.pattern_scale > 1.2 else 1
    if tube == tube_mesh.BAG:
        colours *= np.where((np.abs(t - .62) < .03) | (np.abs(a - .02) < .012), .7, 1.0)[:, None]

    return np.full(len(t), label, np.uint8), colours


def _paint(label: int, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.full(len(colours), label, np.uint8), colours


class _Layers:
    """Paint over paint: later layers hide earlier ones."""

    def __init__(self, count: int, label: int, colour) -> None:
        self.label = np.full(count, label, np.uint8)
        self.colour = np.empty((count, 3))
        self.colour[:] = colour

    def over(self, mask: np.ndarray, label: int, colour) -> None:
        self.label[mask] = label
        self.tint(mask, colour)

    def tint(self, mask: np.ndarray, colour) -> None:
        colour = np.asarray(colour)
        self.colour[mask] = colour[mask] if colour.ndim == 2 else colour


def pattern(name: str, first: tuple, second: tuple, scale: float, x: np.ndarray, y: np.ndarray, front: np.ndarray
            ) -> np.ndarray:
    """Colours (N, 3) of a cloth; x, y metres on the cloth (x 0 at the front's middle, y up from the crotch), front
    whether the point lies on the front."""
    colours = np.repeat(np.array([first]), len(x), 0)
    wave = .085 * scale
    if name == "stripes":
        mask = (y / wave) % 1 < .5
    elif name == "pinstripes":
        mask = (x / (.5 * wave)) % 1 < .3
    elif name == "checks":
        one, other = (x / wave) % 1 < .5, (y / wave) % 1 < .5
        colours[one ^ other] = np.array(first) * .5 + np.array(second) * .5
        mask = one & other
    elif name == "logo":
        mask = front & ((x / (.075 * scale)) ** 2 + ((y - .46) / (.055 * scale)) ** 2 < 1)
    elif name == "two-tone":
        mask = y > .36 + .06 * scale
    elif name == "panel":
        mask = np.abs(x) > .115 * scale ** .5
    elif name == "dots":
        mask = ((x / wave) % 1 - .5) ** 2 + ((y / wave) % 1 - .5) ** 2 < .07
    else:
        return colours

    colours[mask] = second
    return colours


def _top(person: Person, x: np.ndarray, y: np.ndarray, front: np.ndarray) -> np.ndarray:
    return pattern(person.top_pattern, person.top, person.top_second, person.pattern_scale, x, y, front)


def _straps(person: Person, paint: _Layers, t: np.ndarray, a: np.ndarray) -> None:
    """Bag straps lie on the cloth and keep its label."""
    off = np.abs(a - .5)
    if person.bag == "backpack":
        paint.tint((np.abs(off - .10 - .05 * (1 - t)) < .016) & (t > .42) & (t < .95), person.bag_colour)
    if person.bag == "shoulder":
        x = -np.sin(2 * np.pi * a) * (1 if person.bag_left else -1)        # bag side positive
        line = np.abs(x * .62 + (t - .56) * 1.5) < .05
        paint.tint(line & (t < .95), person.bag_colour)


def _trunk(person: Person, t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    front = (a >= .25) & (a < .75)
    x, y = (a - .5) * 1.0, t * .665
    whole = {"dress": DRESS, "jumpsuit": JUMPSUITS}.get(person.bottom, UPPER)
    colours = _top(person, x, y, front)

    if whole == JUMPSUITS:
        colours = np.repeat(np.array([person.bottom_colour]), len(t), 0)

    paint = _Layers(len(t), whole, 0)
    paint.colour = colours
    if whole == UPPER:
        lower = t < person.hem
        paint.over(lower, SKIRT if person.bottom == "skirt" else PANTS, person.bottom_colour)
        paint.tint((t < BELT) & (t > BELT - .03) & (person.hem > .25), np.array(person.bottom_colour) * .45)
    else:
        paint.tint(np.abs(t - .30) < .022, paint.colour * .7)

    collar = .955 - np.where(front, person.neckline * np.clip(1 - np.abs(a - .5) / .09, 0, 1), 0)
    if person.top_pattern in ("plain", "pinstripes", "checks") and person.pattern_scale > 1.15:     # a placket
        paint.tint((np.abs(a - .5) < .006) & (t > person.hem) & (t < collar), paint.colour * .72)
    if person.coat != "none":
        open_to = _coat_gap(person, t)
        paint.over(np.abs(a - .5) > open_to, COAT, _coat_colour(person, t, a))
        paint.tint((np.abs(a - .5) > open_to) & (np.abs(a - .5) < open_to + .012), paint.colour * .75)

    paint.over(t > np.minimum(collar + (.02 if person.coat != "none" else 0), .975), FACE, person.skin)
    _straps(person, paint, t, a)
    return paint.label, paint.colour


def _coat_gap(person: Person, t: np.ndarray) -> np.ndarray:
    """Half the opening of a coat in front, as a share of the way around."""
    wide = .075 * max(person.pattern_scale - .9, 0) / .7
    return np.interp(t, [0, .3, .95], [wide, wide * .8, wide + .035])


def _coat_colour(person: Person, t: np.ndarray, a: np.ndarray) -> np.ndarray:
    return np.repeat(np.array([person.coat_colour]), len(t), 0)


def _head(person: Person, t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    paint = _Layers(len(t), FACE, person.skin)
    off = np.abs(a - .5)
    skin = np.array(person.skin)
    cheeks = np.exp(-((off - .07) / .04) ** 2 - ((t - .42) / .07) ** 2)
    paint.colour *= 1 + cheeks[:, None] * np.array([.04, -.05, -.05])
    paint.tint((np.abs(t - .335) < .014) & (off < .042), skin * np.array([.80, .52, .52]))                # mouth
    paint.tint((np.abs(t - .605) < .016) & (np.abs(off - .058) < .040), .45 * skin + .55 * np.array(person.hair))
    paint.tint((np.abs(t - .545) < .020) & (np.abs(off - .055) < .028), skin * .38)                          # eyes
    paint.tint((np.abs(t - .43) < .012) & (off < .02), skin * .72)                                           # nostrils
    paint.colour *= np.where((t < .25), .86, 1.0)[:, None]                                                  # under chin

    if person.beard:
        chin = (t > .23) & (t < .46 - .10 * np.exp(-(off / .05) ** 2)) & (off < .26) | (np.abs(t - .375) < .02) & (
            off < .06)
        shade = (1 - .75 * person.beard) * skin + .75 * person.beard * np.array(person.hair)
        paint.tint(chin, shade)
    if person.sunglasses:
        paint.over((np.abs(t - .555) < .045) & (off < .125) & (off > .008), SUNGLASSES, (.05, .05, .06))
        paint.over((np.abs(t - .575) < .014) & (off < .23), SUNGLASSES, (.08, .08, .09))

    strands = np.array(person.hair) * (1 + .12 * noise(a * 4, t * .5))[:, None]
    edge = body_mesh.hair_line(person, a) + .012 * noise(a * 6, t * 0)
    paint.over(t > edge, HAIR, strands)
    hat = body_mesh.hat_line(person, a)
    paint.over(t > hat, HAT, person.hat_colour)

    if person.hat == "beanie":
        paint.tint((t > hat) & (t < hat + .09), np.array(person.hat_colour) * .8)
    if person.hat == "cap" and person.pattern_scale > 1:
        paint.tint((t > hat + .05) & (t < .92) & (off < .05), person.top_second)

    return paint.label, paint.colour


def _arm(person: Person, side: int, t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    paint = _Layers(len(t), SIDED[side][0], person.skin)
    paint.colour *= np.where(t > 2.45, .93 + .05 * np.sign(np.sin(a * 75)), 1.0)[:, None]                  # fingers
    whole = {"dress": DRESS, "jumpsuit": JUMPSUITS}.get(person.bottom, UPPER)
    if whole == JUMPSUITS:
        cloth = np.repeat(np.array([person.bottom_colour]), len(t), 0)
    elif person.top_pattern == "panel":
        cloth = np.repeat(np.array([person.top_second]), len(t), 0)
    else:
        name = "plain" if person.top_pattern == "logo" else person.top_pattern
        cloth = pattern(name, person.top, person.top_second, person.pattern_scale, (a - .5) * .33, .57 - t * .27,
                        a < 0)

    paint.over(t < person.sleeve, whole, cloth)
    paint.tint((t < person.sleeve) & (t > person.sleeve - .07), cloth * .82)
    if person.coat != "none":
        paint.over(t < 1.95, COAT, _coat_colour(person, t, a))
        paint.tint((t < 1.95) & (t > 1.87), np.array(person.coat_colour) * .8)
    if person.gloves:
        paint.over(t > 1.9, GLOVE, np.array(person.bag_colour) * .6)

    return paint.label, paint.colour


def _bottom(person: Person, t: np.ndarray, a: np.ndarray) -> np.ndarray:
    colour = np.array(person.bottom_colour)
    cloth = np.repeat(colour[None], len(t), 0)
    if person.bottom_pattern == "seam":
        cloth[np.abs(a - .75) < .035] = person.bottom_second
    elif person.bottom_pattern == "checks":
        cloth[((a * 6) % 1 < .25) | ((t * 4) % 1 < .25)] *= .7
    elif person.bottom_pattern == "worn":
        fade = np.exp(-((t - .45) / .3) ** 2 - ((a - .5) / .13) ** 2) + .6 * np.exp(-((t - 1.35) / .3) ** 2)
        cloth += (1 - cloth) * (.30 * fade)[:, None]

    return cloth


def _leg(person: Person, side: int, t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    paint = _Layers(len(t), SIDED[side][1], person.skin)
    paint.over(t > person.sock_top, SOCKS, person.sock)
    paint.over(t > person.boot, SIDED[side][2], person.shoe)
    if person.bottom in ("trousers", "shorts", "jumpsuit"):
        cloth = _bottom(person, t, a)
        paint.over(t < person.bottom_end, JUMPSUITS if person.bottom == "jumpsuit" else PANTS, cloth)
        paint.tint((t < person.bottom_end) & (t > person.bottom_end - .05), cloth * .8)
    elif person.bottom == "skirt":
        paint.over(t < .1, SKIRT, person.bottom_colour)
    else:
        paint.over(t < .1, DRESS, person.top)

    return paint.label, paint.colour


def _foot(person: Person, side: int, t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    paint = _Layers(len(t), SIDED[side][2], person.shoe)
    top = np.abs(a - .5)
    opening = (top < .10) & (t < .36) & (t > .12)
    if person.boot > 1.93:
        sock = person.sock_top < 2
        paint.over(opening, SOCKS if sock else SIDED[side][1], person.sock if sock else person.skin)
    if person.pattern_scale > 1.1:
        paint.tint((t > .42) & (t < .68) & (top < .06), person.sole)

    paint.tint(top > .34, person.sole)
    return paint.label, paint.colour


def _skirt(person: Person, t: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = (a - .5) * 1.1, .08 - t * .42
    if person.bottom == "dress":
        name = "plain" if person.top_pattern in ("logo", "two-tone") else person.top_pattern
        cloth = pattern(name, person.top, person.top_second, person.pattern_scale, x, y, a < 0)
    else:
        cloth = np.repeat(np.array([person.bottom_colour]), len(t), 0)
        if person.bottom_pattern != "plain":
            cloth = pattern("checks" if person.bottom_pattern == "checks" else "dots", person.bottom_colour,
                            person.bottom_second, person.pattern_scale, x, y, a < 0)

    cloth = cloth * (1 + .12 * np.sin(a * 2 * np.pi * 14) * np.clip(t, 0, 1))[:, None]                      # pleats
    label = DRESS if person.bottom == "dress" else SKIRT
    paint = _Layers(len(t), label, 0)
    paint.colour = cloth

    if person.bottom == "skirt":
        paint.over((t < -.12) & (person.hem < .25), UPPER, _top(person, x, .33 + y * 0, a < 0))

    return paint.label, paint.colour


def in_coat_gap(person: Person, a: np.ndarray) -> np.ndarray:
    """Whether a point of the coat's tails lies in its opening, where there is no cloth."""
    return np.abs(a - .5) < .02 + float(_coat_gap(person, np.zeros(1))[0])
