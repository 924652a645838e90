"""Scene of a camera: where it stands, what is behind the people, how light falls and how the sensor answers."""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.renderer.clothing import NOISE
from pipeline.renderer.shading import Light

BACK_H, BACK_W = 300, 420


@dataclass(frozen=True)
class Look:
    """One camera. Angles in radians, lengths in metres, `backdrop` (300, 420, 3) in [0, 1], `horizon` its row.

    Colour response: out = mix((in * gain) ** gamma) with saturation, contrast and haze; blur in pixels of a picture
    128 high, noise in [0, 1], `quality` of the camera's own JPEG.
    """

    heading: float
    spread: float
    elevation: float
    distance: float
    sun_azimuth: float
    sun_height: float
    sun: float
    ambient: float
    tint: tuple[float, float, float]
    gain: tuple[float, float, float]
    gamma: float
    saturation: float
    contrast: float
    haze: float
    blur: float
    noise: float
    quality: int
    backdrop: np.ndarray
    horizon: int
    window: float

    def light(self, azimuth: float) -> Light:
        """The light in body space when the body is seen from `azimuth`."""
        around = self.sun_azimuth + azimuth
        flat = np.cos(self.sun_height)
        sun = (float(np.sin(around) * flat), float(np.sin(self.sun_height)), float(np.cos(around) * flat))
        return Light(sun=sun, strength=self.sun, ambient=self.ambient, tint=self.tint)


def draw_look(draw: np.random.Generator) -> Look:
    """Draw a camera with its place. Cameras differ strongly in light and colour, as real networks of cameras do."""
    indoor = draw.random() < 0.25
    backdrop, horizon = draw_backdrop(draw, indoor)
    warm, green = draw.normal(0, .06), draw.normal(0, .025)
    level = draw.uniform(.84, 1.16)
    sun = draw.uniform(.05, .3) if indoor or draw.random() < .4 else draw.uniform(.35, .75)

    return Look(
        heading=float(draw.uniform(-np.pi, np.pi)), spread=float(draw.uniform(.35, .8)),
        elevation=float(draw.uniform(.02, .36)), distance=float(draw.uniform(4.5, 12)),
        sun_azimuth=float(draw.uniform(-1.9, 1.9)), sun_height=float(draw.uniform(.45, 1.2)),
        sun=float(sun), ambient=float(1.02 - .62 * sun), tint=(1.03, 1.0, .95),
        gain=(float(level * (1 + warm)), float(level * (1 + green)), float(level * (1 - warm))),
        gamma=float(draw.uniform(.84, 1.2)), saturation=float(draw.uniform(.75, 1.2)),
        contrast=float(draw.uniform(.88, 1.1)), haze=float(draw.choice([0, 0, draw.uniform(.02, .08)])),
        blur=float(draw.uniform(.25, .75)), noise=float(draw.uniform(.004, .022)),
        quality=int(draw.integers(45, 90)), backdrop=backdrop, horizon=horizon, window=float(draw.uniform(.75, 1.5)))


def picture_azimuth(look: Look, draw: np.random.Generator) -> float:
    """People pass a camera in both directions along its path, and some stand anyhow."""
    if draw.random() < .2:
        return float(draw.uniform(-np.pi, np.pi))
    return float(look.heading + np.pi * (draw.random() < .5) + draw.normal(0, look.spread))


# ---- what is behind ----

GROUNDS = [(.50, .49, .47), (.42, .42, .43), (.56, .52, .46), (.36, .37, .38), (.60, .58, .55), (.46, .40, .36)]
WALLS = [(.55, .36, .30), (.66, .62, .55), (.45, .46, .48), (.74, .72, .68), (.32, .33, .36), (.58, .50, .38),
         (.38, .46, .50)]


def _tile(draw: np.random.Generator, height: int, width: int, grain: float) -> np.ndarray:
    """Smooth noise (height, width); a larger grain is coarser."""
    size = max(int(128 / grain), 8)
    y, x = draw.integers(0, 128, 2)
    patch = np.roll(NOISE, (y, x), (0, 1))[:size, :size]
    return cv2.resize(patch, (width, height), interpolation=cv2.INTER_CUBIC)


def _ground(draw: np.random.Generator, rows: int, horizon_gap: float, indoor: bool) -> np.ndarray:
    """A floor in perspective: tiles or asphalt, lanes, stains."""
    base = np.array(GROUNDS[draw.integers(len(GROUNDS))]) * draw.uniform(.8, 1.15)
    depth = 60.0 / (np.arange(rows) + horizon_gap)[:, None]
    x = (np.arange(BACK_W) - draw.uniform(.2, .8) * BACK_W)[None] * depth / 60
    z = depth * 6
    floor = np.ones((rows, BACK_W, 3)) * base
    fade = np.clip(1.3 - depth * .35, 0, 1)

    if indoor or draw.random() < .55:
        side, turned = draw.uniform(.18, .6), draw.uniform(-.6, .6)
        p, q = x + turned * z, z - turned * x
        lines = ((p / side) % 1 < .08) | ((q / side) % 1 < .08)
        checker = ((p / side).astype(int) + (q / side).astype(int)) % 2
        floor *= (1 - fade * (.22 * lines + draw.uniform(0, .10) * checker))[..., None]
    if not indoor and draw.random() < .5:
        paint = np.array([.85, .84, .80]) if draw.random() < .7 else np.array([.80, .66, .22])
        lane = np.abs(x - draw.uniform(-1, 1) - draw.uniform(-.7, .7) * z) < .09
        floor = np.where((lane & ((z * .8) % 1 < draw.choice([.6, 1.0])))[..., None], .35 * floor + .65 * paint, floor)
    if not indoor and draw.random() < .3:
        lawn = x > draw.uniform(.3, 1.5)
        grass = np.array([.30, .42, .20]) * (1 + .2 * _tile(draw, rows, BACK_W, 2)[..., None])
        floor = np.where(lawn[..., None], grass, floor)

    floor *= 1 + .07 * _tile(draw, rows, BACK_W, 1)[..., None] + .05 * draw.normal(size=(rows, BACK_W, 1))
    return floor


def _wall(draw: np.random.Generator, rows: int) -> np.ndarray:
    base = np.array(WALLS[draw.integers(len(WALLS))]) * draw.uniform(.7, 1.15)
    wall = np.ones((rows, BACK_W, 3)) * base
    y, x = np.mgrid[:rows, :BACK_W]
    kind = draw.integers(4)
    if kind == 0:                                                          # bricks or panels
        high = draw.integers(5, 40)
        wide = int(high * draw.uniform(1.5, 3))
        joint = (y % high < max(1, high // 9)) | ((x + (y // high % 2) * wide // 2) % wide < max(1, high // 9))
        wall[joint] *= draw.uniform(.7, 1.2)
    if kind in (1, 2):                                                     # windows, doors, shop fronts
        wide, gap = int(draw.integers(26, 80)), int(draw.integers(8, 40))
        top, bottom = int(draw.uniform(0, .3) * rows), int(draw.uniform(.6, 1) * rows)
        glass = np.array([.16, .20, .25]) * draw.uniform(.5, 2.2)
        for left in range(-int(draw.integers(60)), BACK_W, wide + gap):
            shine = draw.uniform(.7, 1.5)
            cv2.rectangle(wall, (left, top), (left + wide, bottom), tuple(glass * shine), -1)
            cv2.rectangle(wall, (left, top), (left + wide, bottom), tuple(base * draw.uniform(.4, 1.4)), 2)
            if draw.random() < .5:
                cv2.line(wall, (left + wide // 2, top), (left + wide // 2, bottom), tuple(base * .6), 2)
    if kind == 3:                                                          # columns
        wide = int(draw.integers(30, 90))
        wall *= (.8 + .25 * np.sin(2 * np.pi * x / wide))[..., None]

    return wall * (1 + .05 * _tile(draw, rows, BACK_W, 1)[..., None])


def _leaves(draw: np.random.Generator, image: np.ndarray, left: int, right: int, top: int, bottom: int) -> None:
    green = np.array([.20, .32, .14]) * draw.uniform(.6, 1.5) * (1 + draw.normal(0, .12, 3))
    count = int(80 + (right - left) * (bottom - top) / 30)
    for x, y, size, shade in zip(draw.integers(left, right, count), draw.integers(top, bottom, count),
                                 draw.integers(2, 9, count), draw.uniform(.35, 1.5, count), strict=True):
        cv2.ellipse(image, (int(x), int(y)), (int(size), int(size * .6)), float(shade * 150), 0, 360,
                    tuple(green * float(shade)), -1)


def _furniture(draw: np.random.Generator, image: np.ndarray, base: int) -> None:
    """Things that stand far away: parked cars, bicycles, posts, signs, benches."""
    for _ in range(draw.integers(1, 7)):
        x, kind = int(draw.integers(0, BACK_W)), draw.integers(5)
        y, size = base + int(draw.integers(-4, 26)), int(draw.integers(24, 56))
        colour = tuple(draw.uniform(.08, .8, 3) * draw.uniform(.4, 1))
        dark = (.07, .07, .08)
        if kind == 0:
            cv2.rectangle(image, (x, y - size // 2), (x + 2 * size, y - size // 8), colour, -1)
            cv2.rectangle(image, (x + size // 3, y - int(size * .8)), (x + int(1.6 * size), y - size // 2), dark, -1)
            for wheel in (x + size // 3, x + int(1.65 * size)):
                cv2.circle(image, (wheel, y - size // 8), size // 5, dark, -1)
        elif kind == 1:
            for wheel in (x, x + int(.8 * size)):
                cv2.circle(image, (wheel, y - size // 4), size // 4, dark, 2)
            low = y - size // 4
            points = np.array([[x, low], [x + size // 3, y - size * 2 // 3], [x + size * 4 // 5, low]])
            cv2.polylines(image, [points], True, colour, 2)
        elif kind == 2:
            cv2.rectangle(image, (x, 0), (x + max(2, size // 8), y), colour, -1)
        elif kind == 3:
            cv2.rectangle(image, (x, y - int(1.6 * size)), (x + size, y - size // 2), colour, -1)
            cv2.rectangle(image, (x + size // 2, y - size // 2), (x + size // 2 + 2, y), dark, -1)
        else:
            _leaves(draw, image, x, x + size, max(y - size, 0), max(y, 1))


def draw_backdrop(draw: np.random.Generator, indoor: bool) -> tuple[np.ndarray, int]:
    """A place without people, (300, 420, 3) in [0, 1], and its horizon's row."""
    horizon = int(draw.integers(40, 110))
    base = horizon + int(draw.integers(4, 46))                    # where the far wall meets the floor
    image = np.empty((BACK_H, BACK_W, 3))
    image[base:] = _ground(draw, BACK_H - base, base - horizon, indoor)
    image[:base] = _wall(draw, base)
    image = np.ascontiguousarray(image)

    if not indoor:
        if draw.random() < .3:
            image[:max(horizon - 15, 5)] = np.array([.72, .78, .84]) * draw.uniform(.8, 1.1)
        for _ in range(draw.integers(0, 4)):
            left = int(draw.integers(-40, BACK_W))
            top = int(draw.integers(0, max(horizon, 1)))
            _leaves(draw, image, left, left + int(draw.integers(40, 200)), top, base + int(draw.integers(1, 8)))

    _furniture(draw, image, base)
    shadow = np.clip(1 - .55 * np.exp(-np.abs(np.arange(BACK_H) - base) / 7.0), 0, 1)
    image *= np.where(np.arange(BACK_H) >= base, shadow, 1)[:, None, None]
    light = 1 + .16 * _tile(draw, BACK_H, BACK_W, 12)[..., None]

    if not indoor and draw.random() < .4:                         # cast shadows of buildings and trees
        light = light * np.where(_tile(draw, BACK_H, BACK_W, 8) > draw.uniform(-.5, .8), 1.0, .68)[..., None]

    return cv2.GaussianBlur(np.clip(image * light, 0, 1), (0, 0), draw.uniform(.6, 1.5)).astype(np.float32), horizon


def crop_backdrop(look: Look, draw: np.random.Generator, feet: float, height: int, width: int) -> np.ndarray:
    """The part of the backdrop behind one picture, (height, width, 3); `feet` is the row of the feet over `height`."""
    row = draw.uniform(look.horizon + 60, BACK_H - 4)
    tall = float(np.clip((row - look.horizon) * look.window, 90, BACK_H * .95))
    top = row - feet * tall
    wide = tall * .5
    left = draw.uniform(0, BACK_W - wide)
    matrix = np.array([[wide / width, 0, left], [0, tall / height, top]])

    return cv2.warpAffine(look.backdrop, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_REFLECT_101)


# ---- the sensor ----

def expose(look: Look, image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """(H, W, 3) light in [0, ~1.3] -> uint8: white balance, tone, blur, noise and the camera's own JPEG."""
    drift = 1 + draw.normal(0, .05)
    image = np.clip(image * (np.array(look.gain) * drift).astype(np.float32), 1e-4, 1.4) ** np.float32(look.gamma)

    # Saturation, contrast and haze are one affine map of the colours.
    keep, clear = look.saturation * look.contrast, 1 - look.haze
    matrix = np.full((3, 4), (1 - look.saturation) * look.contrast / 3) + keep * np.eye(3, 4)
    matrix[:, 3] = .45 * (1 - look.contrast)
    matrix = matrix * clear + np.array([0, 0, 0, .75 * look.haze])
    blur = look.blur * draw.uniform(.7, 1.4) * image.shape[0] / 128
    image = cv2.GaussianBlur(cv2.transform(image, matrix.astype(np.float32)), (0, 0), blur)

    if draw.random() < .12:                                                  # motion
        image = cv2.blur(image, (max(image.shape[1] // 13, 1), 1))

    image = image + np.float32(look.noise) * draw.standard_normal(image.shape, np.float32)
    pixels = (np.clip(image, 0, 1) * 255 + .5).astype(np.uint8)
    data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, look.quality])[1]
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None

    return decoded[..., ::-1]
